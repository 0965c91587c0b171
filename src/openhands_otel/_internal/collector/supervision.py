"""What does not work now: logged once when it fails and once when it works again, and shown by /healthz meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Final

from openhands_otel._internal.collector.archive.database import Lost
from openhands_otel._internal.collector.archive.schema import UnusableDatabase
from openhands_otel._internal.log import logger
from openhands_otel._internal.terminal_text import printable

FORESEEN: Final = (sqlite3.Error, OSError, UnusableDatabase, Lost)
"""Errors of the world around us, whose message is enough; others are our own faults and are logged with their trace."""
_TEXT_LIMIT: Final = 300
_PAUSE_S: Final = 1.0
"""How long a task that ended is left alone, and how long it has to run to be well again."""


class Health:
    """The parts that do not work, and why."""

    def __init__(self, on_change: Callable[[], None] | None = None) -> None:
        self.errors: Counter[str] = Counter()
        """Errors by part, since the start."""
        self._wrong: dict[str, str] = {}
        self._on_change = on_change

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each part that does not work, in words for people."""
        return tuple(f"{part}: {reason}" for part, reason in self._wrong.items())

    def reason(self, part: str) -> str | None:
        return self._wrong.get(part)

    def wrong(self, part: str, reason: str, error: BaseException | None = None) -> None:
        """``part`` does not work; the error's trace is logged if it is given."""
        self.errors[part] += 1
        reason = printable(" ".join(reason.split()))[:_TEXT_LIMIT]
        before = self._wrong.get(part)
        self._wrong[part] = reason
        if before is None:
            logger.error("%s: %s", part, reason, exc_info=error)
        if before != reason:
            self._changed()

    def well(self, part: str) -> None:
        """``part`` works."""
        if self._wrong.pop(part, None) is not None:
            logger.warning("%s: works again", part)
            self._changed()

    def failed(self, part: str, error: Exception) -> None:
        """``part`` raised this."""
        if isinstance(error, FORESEEN):
            self.wrong(part, str(error) or type(error).__name__)
        else:
            self.wrong(part, f"{type(error).__name__}: {error}", error)

    async def guard[T](self, part: str, work: Awaitable[T]) -> T | None:
        """Await ``work``, whatever it raises: None then, and the part is unwell until it goes through again."""
        try:
            result = await work
        except Exception as error:
            self.failed(part, error)
            return None
        self.well(part)
        return result

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change()


async def to_its_end[T](step: Awaitable[T]) -> T:
    """Make a step of which no half may be made: who is cancelled while it waits hears of that when the step is over.

    What a thread has written cannot be called back, and would be written again by whoever believed that it was not.
    """
    task = asyncio.ensure_future(step)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            # Nobody hears of it any more.
            task.exception()
        raise


async def keep_running(
    health: Health,
    part: str,
    work: Callable[[], Coroutine[object, object, None]],
    until: Callable[[], bool] = lambda: False,
) -> None:
    """Run ``work``, which is not meant to end, as a task of its own, until this is cancelled or ``until`` is true.

    Whatever ends it, an error, a return or a stray cancellation, is told as the health of ``part``, and it begins anew.
    """
    while not until():
        task = asyncio.create_task(work(), name=f"openhands-otel {part}")
        try:
            _, running = await asyncio.wait([task], timeout=_PAUSE_S)
            if running:
                if health.reason(part) is not None:
                    health.well(part)
                await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
            raise
        if until():
            return
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            health.failed(part, error)
        else:
            health.wrong(part, "it was cancelled" if task.cancelled() else "it ended", error)
        await asyncio.sleep(_PAUSE_S)
