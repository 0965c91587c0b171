"""Memory for the bodies that are on their way. What an agent sends is small and needs none of it."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from openhands_otel._internal.collector.absent import Unavailable

SMALL: Final = 256 * 1024
"""Bytes of a body that count for nothing: as many connections as there may be hold some hundred megabytes so."""
ROOM: Final = 96 * 1024 * 1024
WAIT_S: Final = 5.0


class Room:
    """So many bytes, of one signal or of some, over one protocol."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._freed = asyncio.Event()

    async def take(self, size: int, wait_s: float = WAIT_S) -> None:
        """Wait for a while until there is room; raises Unavailable where none comes."""
        deadline = time.monotonic() + wait_s
        while size > self._free:
            self._freed.clear()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    await self._freed.wait()
            except TimeoutError:
                raise Unavailable("too much arrives at once: send it again") from None
        self._free -= size

    def give_back(self, size: int) -> None:
        self._free += size
        self._freed.set()
