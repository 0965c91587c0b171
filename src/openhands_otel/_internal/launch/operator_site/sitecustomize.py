"""What a Python finds first in a pod that the OpenTelemetry Operator has put a bundle into.

The Operator names two folders in PYTHONPATH, around what the pod had there: this one, under the name that it has in
OpenTelemetry's own image, and the root of the bundle. The bundle's ``site`` takes their place, in the environment and
in ``sys.path``, and from then on all is as if it had been named there. Any Python may come here, 2.7 too.
"""

import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))
_bundle = os.path.dirname(os.path.dirname(os.path.dirname(_here)))
_site = os.path.join(_bundle, "site")


_given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
for _entries in (_given, sys.path):
    _entries[:] = [_site] + [_entry for _entry in _entries if os.path.abspath(_entry) not in (_here, _bundle)]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, _given))
_own = sys.modules.pop(__name__)
try:
    import sitecustomize  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
except ImportError:
    pass
finally:
    sys.modules.setdefault(__name__, _own)
