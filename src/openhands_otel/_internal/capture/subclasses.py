"""Methods of a class that its subclasses override: hooked on each of them, on those that come later as well.

A subclass that brings a method of its own, or gets one from a mixin, need not call the base class's. So it is hooked
where it stands, when the class is made or, if it is there already, at once. Functions that are put on a class or on one
object later are not seen; what they record is (``recording.py``).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType
from typing import Any, cast

from openhands_otel._internal.guard import guarded
from openhands_otel._internal.patching.patching import Enter, Original, Ours, Patches

ASYNC = frozenset({"acompletion", "aresponses", "agenerate", "arun", "acondense"})
"""Methods that return something to await, whether they are coroutine functions or not."""


def follow(patches: Patches, base: type, enters: Mapping[str, Enter]) -> None:
    """Surround each of these methods that a subclass of ``base``, present or future, has of its own.

    Once for each ``base``. One that calls the method that it overrides enters twice, where that is hooked too.
    """
    enters = dict(enters)

    @guarded
    def hook(subclass: type) -> None:
        for name, enter in enters.items():
            _hook(patches, base, subclass, name, enter)

    def make(original: Original) -> Any:
        def __init_subclass__(cls: type[Any], **keywords: Any) -> None:
            super(base, cls).__init_subclass__(**keywords)
            if patches.active:
                hook(cls)

        return cast("Any", classmethod(__init_subclass__))  # pyright: ignore[reportUnknownArgumentType]

    if "__init_subclass__" not in base.__dict__:
        patches.replace(base, "__init_subclass__", make)
    # After that: a class that is made meanwhile in another thread is seen here or there.
    for subclass in _descendants(base):
        hook(subclass)


def _descendants(base: type) -> Iterator[type]:
    seen: set[type] = set()
    waiting = base.__subclasses__()
    while waiting:
        subclass = waiting.pop()
        if subclass not in seen:
            seen.add(subclass)
            yield subclass
            waiting += subclass.__subclasses__()


def _hook(patches: Patches, base: type, subclass: type, name: str, enter: Enter) -> None:
    for owner in subclass.__mro__:
        if owner is base:
            return
        if name in owner.__dict__:
            # A subclass between has been hooked itself; a mixin is hooked where it becomes part of one.
            own = owner is subclass or not issubclass(owner, base)
            if own and isinstance(owner.__dict__[name], FunctionType):
                _surround(patches, subclass, name, enter)
            return


def _surround(patches: Patches, subclass: type, name: str, enter: Enter) -> None:
    if name not in ASYNC or inspect.iscoroutinefunction(getattr(subclass, name)):
        patches.around(subclass, name, enter)
    else:
        patches.replace(subclass, name, lambda original: _awaited(patches, original, Ours(guarded(enter))))


def _awaited(patches: Patches, original: Original, enter: Callable[..., Any]) -> Original:
    """A plain function that returns a coroutine: the call is over when that is."""

    @functools.wraps(original)
    def surrounded(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if not patches.active or not inspect.iscoroutine(result):
            return result
        return _follow_coroutine(result, lambda: enter(args, dict(kwargs)))

    return surrounded


async def _follow_coroutine(coroutine: Any, enter: Callable[[], Any]) -> Any:
    leave = enter()
    if leave is None:
        return await coroutine
    try:
        result = await coroutine
    except BaseException as error:
        guarded(leave)(None, error)
        raise
    guarded(leave)(result, None)
    return result
