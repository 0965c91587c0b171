"""A question that is asked again when something changed, and never more often than its answers come easily."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

_LEAST_PAUSE_S: Final = 1.0
_TIMES: Final = 4
"""Of the time that an answer took: what is left to others."""
_LONGEST_PAUSE_S: Final = 30.0


class Repeated:
    """Runs for as long as ``run`` is awaited; ``ask`` raises nothing."""

    def __init__(self, ask: Callable[[], Awaitable[None]]) -> None:
        self._ask = ask
        self._wanted = asyncio.Event()
        self._hurried = asyncio.Event()

    def want(self) -> None:
        """Ask again when it is due."""
        self._wanted.set()

    def hurry(self) -> None:
        """Ask again at once: a person waits."""
        self._wanted.set()
        self._hurried.set()

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            self._hurried.clear()
            began = time.monotonic()
            await self._ask()
            pause = min(_LONGEST_PAUSE_S, max(_LEAST_PAUSE_S, _TIMES * (time.monotonic() - began)))
            try:
                await asyncio.wait_for(self._hurried.wait(), pause)
            except TimeoutError:
                continue
