"""What every Python under ``openhands-otel run`` finds first, through PYTHONPATH, which its children inherit.

Any Python may come here, 2.7 too, with or without this package, so it is written for all of them and says nothing. It
takes itself out of ``sys.path`` (not out of the environment), sets ``_openhands_otel_launch`` to wait for OpenHands,
and lets the ``sitecustomize`` run that it stands in front of. That module stands beside it, or in the ``lib`` of the
bundle that a copy of this file is in.
"""

import os
import sys

_directory = os.path.dirname(os.path.abspath(__file__))
_places = [_directory]
if sys.version_info >= (3, 6):  # noqa: UP036
    _bundled = ("lib", "openhands-otel", "openhands_otel", "_internal", "launch", "site")
    _places.append(os.path.join(os.path.dirname(_directory), *_bundled))
    sys.path.insert(0, _places[1])
    try:
        import _openhands_otel_launch  # pyright: ignore[reportMissingImports]

        _openhands_otel_launch.wait()  # pyright: ignore[reportUnknownMemberType]
    except Exception:
        pass
sys.path[:] = [_entry for _entry in sys.path if os.path.abspath(_entry) not in _places]
for _place in _places:
    sys.path_importer_cache.pop(_place, None)
_own = sys.modules.pop(__name__)
try:
    import sitecustomize  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
except ImportError as _error:
    # Python 2 has no name there, and says "No module named sitecustomize".
    if getattr(_error, "name", str(_error).split()[-1]) != __name__:
        raise
finally:
    sys.modules.setdefault(__name__, _own)
