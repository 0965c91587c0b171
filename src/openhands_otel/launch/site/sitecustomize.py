"""For a command that is no Python itself (a shell script, ``make``, ``uv run``): Pythons find this through PYTHONPATH.

The first thing it does is to take itself away, out of ``sys.path`` and out of the environment, so that nothing the
program starts finds it, and to let the ``sitecustomize`` run that it stands in front of. Any Python 3 may come here.
"""

import os
import sys

_directory = os.path.dirname(os.path.abspath(__file__))
_path = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry != _directory]
if any(_path):
    os.environ["PYTHONPATH"] = os.pathsep.join(_path)
else:
    os.environ.pop("PYTHONPATH", None)
sys.path[:] = [entry for entry in sys.path if entry != _directory]
_own = sys.modules.pop(__name__)
try:
    import sitecustomize  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
except ModuleNotFoundError as _error:
    if _error.name != __name__:
        raise
finally:
    sys.modules.setdefault(__name__, _own)
    _program = type(sys)("_openhands_otel_program")
    _program.__file__ = os.path.join(os.path.dirname(_directory), "program.py")
    with open(_program.__file__, encoding="utf-8") as _source:
        exec(compile(_source.read(), _program.__file__, "exec"), _program.__dict__)
    _program.start()
