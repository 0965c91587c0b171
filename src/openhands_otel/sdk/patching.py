"""Replaces methods of OpenHands' classes by functions of ours, and puts the identical objects back.

Replacements are plain functions made by ``after`` and ``around``, not proxies: ``inspect.iscoroutinefunction``,
bound methods, pickling by name and ``type(x).method is type(y).method`` keep answering as before. The parts that are
ours run guarded; the original's return value and exceptions pass through untouched. After ``undo`` a replacement that
somebody still holds (a cached bound method) is inert.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from openhands_otel.guard import guarded

Original = Callable[..., Any]
Observe = Callable[[tuple[Any, ...], dict[str, Any]], None]
"""Gets (args, kwargs) of a call that has returned; a method's first argument is its object."""
Enter = Callable[[tuple[Any, ...], dict[str, Any]], "Leave | None"]
"""Gets (args, kwargs) of a call that begins; returns what to do when it ends."""
Leave = Callable[[Any, BaseException | None], None]
"""(result, exception) of the call: one of them is None."""


@dataclass(frozen=True, slots=True)
class _Patch:
    owner: Any
    name: str
    original: Any
    replacement: Any
    own: bool
    """Whether the attribute stood on ``owner`` itself and not on a base class."""


class Patches:
    """A set of replacements that live and end together."""

    def __init__(self) -> None:
        self.active = True
        self._applied: list[_Patch] = []

    def replace(self, owner: Any, name: str, make: Callable[[Original], Original]) -> bool:
        """Put ``make(original)`` in the place of ``owner.name``; False if there is no such attribute."""
        members: Mapping[str, Any] = owner.__dict__
        own = name in members
        original: Any = members[name] if own else getattr(owner, name, None)
        if not callable(original) or isinstance(original, type):
            return False
        replacement = make(original)
        setattr(owner, name, replacement)
        self._applied.append(_Patch(owner, name, original, replacement, own))
        return True

    def after(self, owner: Any, name: str, observe: Observe) -> bool:
        """Call ``observe`` after each call of ``owner.name`` that returns."""
        return self.replace(owner, name, lambda original: self._make_after(original, guarded(observe)))

    def around(self, owner: Any, name: str, enter: Enter) -> bool:
        """Call ``enter`` before each call of ``owner.name`` and what it returns after it, also when it raises."""
        return self.replace(owner, name, lambda original: self._make_around(original, guarded(enter)))

    def undo(self) -> None:
        """Put everything back, newest first. What somebody else has replaced since then stays his; ours is inert."""
        self.active = False
        for patch in reversed(self._applied):
            members: Mapping[str, Any] = patch.owner.__dict__
            if members.get(patch.name) is not patch.replacement:
                continue
            if patch.own:
                setattr(patch.owner, patch.name, patch.original)
            else:
                delattr(patch.owner, patch.name)
        self._applied.clear()

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


@guarded
def _end(leave: Leave, result: Any, error: BaseException | None) -> None:
    leave(result, error)
