"""The script that ``openhands-otel run`` puts in front of a Python program: KIND PROGRAM BEHIND WORDS.

It runs in any Python 3, installed beside this package or not. It leaves nothing of itself in ``__main__``. The work is
done by ``program.py``, loaded by its path: the program's own modules must win every name.
"""

_pristine = dict(globals())

import os  # noqa: E402
import sys  # noqa: E402

_directory = os.path.dirname(os.path.abspath(__file__))
if sys.path and os.path.abspath(sys.path[0]) == _directory:
    del sys.path[0]
_program = type(sys)("_openhands_otel_program")
_program.__file__ = os.path.join(_directory, "program.py")
with open(_program.__file__, encoding="utf-8") as _source:
    exec(compile(_source.read(), _program.__file__, "exec"), _program.__dict__)
_program.run(globals(), _pristine)
