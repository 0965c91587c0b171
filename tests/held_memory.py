"""Memory that some objects hold, whatever else the process does meanwhile.

tracemalloc counts every thread of the process: what a server of the test before still had to do, or a collection that
came late, was taken for a leak of ours.
"""

from __future__ import annotations

import gc
import sys
from types import BuiltinFunctionType, CodeType, FunctionType, MethodWrapperType, ModuleType

# A class and a function lead to their module, and so to everything that is imported.
SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodWrapperType, CodeType)


def held_bytes(*roots: object) -> int:
    """Bytes of all objects that ``roots`` lead to, each once; classes, functions and modules are nobody's."""
    seen = {id(root) for root in roots}
    todo = list(roots)
    held = 0
    while todo:
        one = todo.pop()
        held += sys.getsizeof(one)
        for other in gc.get_referents(one):
            if id(other) not in seen and not isinstance(other, SHARED):
                seen.add(id(other))
                todo.append(other)
    return held
