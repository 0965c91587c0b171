"""Replaces methods of OpenHands' classes by functions of ours, and puts the identical objects back.

Replacements are plain functions made by ``after`` and ``around``, not proxies: ``inspect.iscoroutinefunction``,
bound methods, pickling and ``type(x).method is type(y).method`` keep answering as before. The parts that are ours run
guarded; the original's return value and exceptions pass through untouched. After ``undo`` a replacement that
somebody still holds (a cached bound method) is inert.

An attribute is replaced once, however often and from whatever thread that is asked for, and never after ``undo``. One
lock stands over all of it. A finalizer or a signal's handler may come back here in the middle of a change, in the same
thread: then ``undo`` has the last word.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from openhands_otel._internal.guard import guarded

Original = Callable[..., Any]
Observe = Callable[[tuple[Any, ...], dict[str, Any]], None]
"""Gets (args, kwargs) of a call that has returned; a method's first argument is its object."""
Enter = Callable[[tuple[Any, ...], dict[str, Any]], "Leave | None"]
"""Gets (args, kwargs) of a call that begins; returns what to do when it ends."""
Leave = Callable[[Any, BaseException | None], None]
"""(result, exception) of the call: one of them is None."""


_changing = threading.RLock()
"""One for all sets: two of them may want to replace one attribute."""


@dataclass(frozen=True, slots=True)
class _Patch:
    owner: Any
    name: str
    original: Any
    replacement: Any
    own: bool
    """Whether the attribute stood on ``owner`` itself and not on a base class."""


class Ours(functools.partial[Any]):
    """A part of ours in a replacement. It stays behind where that is pickled by value: locks and queues hang on it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Ours, (_nothing,)


def _nothing(*args: Any) -> None:
    return


class Patches:
    """A set of replacements that live and end together."""

    def __init__(self) -> None:
        self.active = True
        self._applied: list[_Patch] = []

    def replace(self, owner: Any, name: str, make: Callable[[Original], Original]) -> bool:
        """Put ``make(original)`` in the place of ``owner.name``; False if there is no such attribute.

        Where this set has done so already, or is undone, nothing is changed.
        """
        with _changing:
            members: Mapping[str, Any] = owner.__dict__
            own = name in members
            original: Any = members[name] if own else getattr(owner, name, None)
            if not callable(original) or isinstance(original, type):
                return False
            if self.active and not self._stands(owner, name, original):
                self._put(_Patch(owner, name, original, make(original), own))
            return True

    def _stands(self, owner: Any, name: str, current: Any) -> bool:
        """Whether ``owner.name`` is replaced by us, seen or under what somebody else has put there since.

        A module that was loaded again has the same attributes anew.
        """
        ours = [patch.replacement for patch in self._applied if patch.owner is owner and patch.name == name]
        return bool(ours) and (not isinstance(owner, ModuleType) or any(each in _layers(current) for each in ours))

    def _put(self, patch: _Patch) -> None:
        self._applied.append(patch)
        setattr(patch.owner, patch.name, patch.replacement)
        if not self.active:
            # Undone in the middle of this.
            _take_back(patch)

    def __reduce__(self) -> tuple[Any, ...]:
        """Of a class that is pickled by value, as cloudpickle does with those of ``__main__``: inert in the copy."""
        return _inert, ()

    def after(self, owner: Any, name: str, observe: Observe) -> bool:
        """Call ``observe`` after each call of ``owner.name`` that returns."""
        return self.replace(owner, name, lambda original: self._make_after(original, Ours(guarded(observe))))

    def around(self, owner: Any, name: str, enter: Enter) -> bool:
        """Call ``enter`` before each call of ``owner.name`` and what it returns after it, also when it raises."""
        return self.replace(owner, name, lambda original: self._make_around(original, Ours(guarded(enter))))

    def undo(self) -> None:
        """Put everything back, newest first. What somebody else has replaced since then stays his; ours is inert."""
        self.active = False
        with _changing:
            while self._applied:
                _take_back(self._applied.pop())

    def _make_after(self, original: Original, observe: Observe) -> Original:
        @functools.wraps(original)
        def observed(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if self.active:
                observe(args, kwargs)
            return result

        return observed

    def _make_around(self, original: Original, enter: Callable[..., Leave | None]) -> Original:
        if inspect.iscoroutinefunction(original):

            @functools.wraps(original)
            async def surrounded_async(*args: Any, **kwargs: Any) -> Any:
                leave = enter(args, kwargs) if self.active else None
                if leave is None:
                    return await original(*args, **kwargs)
                try:
                    result = await original(*args, **kwargs)
                except BaseException as error:
                    _end(leave, None, error)
                    raise
                _end(leave, result, None)
                return result

            return surrounded_async

        @functools.wraps(original)
        def surrounded(*args: Any, **kwargs: Any) -> Any:
            leave = enter(args, kwargs) if self.active else None
            if leave is None:
                return original(*args, **kwargs)
            try:
                result = original(*args, **kwargs)
            except BaseException as error:
                _end(leave, None, error)
                raise
            _end(leave, result, None)
            return result

        return surrounded


def _inert() -> Patches:
    patches = Patches()
    patches.undo()
    return patches


def _take_back(patch: _Patch) -> None:
    members: Mapping[str, Any] = patch.owner.__dict__
    if members.get(patch.name) is not patch.replacement:
        return
    if patch.own:
        setattr(patch.owner, patch.name, patch.original)
    else:
        delattr(patch.owner, patch.name)


def _layers(function: Any) -> list[Any]:
    """A function and those that it wraps, outermost first."""
    layers: list[Any] = []
    while function is not None and function not in layers:
        layers.append(function)
        function = getattr(function, "__wrapped__", None)
    return layers


def _renew_lock() -> None:
    """In a forked child: a thread that is gone may have held it."""
    global _changing
    _changing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@guarded
def _end(leave: Leave, result: Any, error: BaseException | None) -> None:
    leave(result, error)
