"""Spans on their way to the database: acknowledged once they are in it, and never in the way of metrics.

Few requests wait, and a sender beyond them is asked to come again. Each transaction is small: the archive's one thread
takes what metrics need in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from itertools import batched
from typing import Final

from openhands_otel._internal.collector.absent import Unavailable
from openhands_otel._internal.collector.archive import spans
from openhands_otel._internal.collector.points.decode import MalformedRequest
from openhands_otel._internal.collector.spans.decode import DecodedSpans
from openhands_otel._internal.collector.spans.span import Span
from openhands_otel._internal.collector.store import Store
from openhands_otel._internal.collector.supervision import FORESEEN

SPANS_PART: Final = "spans"
"""The part whose health is told."""
REQUESTS: Final = 64
"""Requests that may wait: fewer than gRPC serves at a time, so that metrics always find room."""
BYTES: Final = 48 * 1024 * 1024
"""What they may weigh together."""
BATCH: Final = 300
"""Spans of one transaction."""
_TRIM_EVERY_S: Final = 60.0
_MEMORY_BYTES: Final = 50_000_000
"""Kept where there is no file to put them into."""
_SPANS_FAULT: Final = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, OverflowError, UnicodeError)
_LATER: Final = "more spans arrive than can be saved: send them again"


@dataclass(slots=True)
class _Waiting:
    spans: list[Span]
    received: float
    saved: asyncio.Future[None]


class SpanIntake:
    """The way in. ``run`` is a task that goes on as long as the viewer."""

    def __init__(self, store: Store, kept_s: float, kept_bytes: int) -> None:
        self._store = store
        self._kept_s = kept_s
        self._kept_bytes = kept_bytes if store.archive.path is not None else min(kept_bytes, _MEMORY_BYTES)
        self._held_bytes: int | None = None
        """Bytes in the database, about; not known before it was asked."""
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._requests = 0
        self._bytes = 0

    @contextlib.contextmanager
    def place(self, size: int) -> Generator[None]:
        """Room for one request of ``size`` bytes; raises Unavailable where there is none."""
        if self._requests >= REQUESTS or (self._requests and self._bytes + size > BYTES):
            raise Unavailable(_LATER)
        self._requests += 1
        self._bytes += size
        try:
            yield
        finally:
            self._requests -= 1
            self._bytes -= size

    async def keep(self, decoded: DecodedSpans, received: float) -> None:
        """Have spans saved that came at ``received`` (unix seconds); raises Unavailable and MalformedRequest."""
        if not decoded.spans or self._kept_bytes == 0:
            return
        size = decoded.size
        if self._bytes + size > BYTES and self._waiting:
            raise Unavailable(_LATER)
        self._bytes += size
        try:
            waiting = _Waiting(decoded.spans, received, asyncio.get_running_loop().create_future())
            self._waiting.append(waiting)
            self._wake.set()
            await waiting.saved
        finally:
            self._bytes -= size

    async def run(self) -> None:
        """Save what waits, and let go of what is old."""
        due = 0.0
        while True:
            if self._held_bytes is None or time.monotonic() >= due:
                await self._trim()
                due = time.monotonic() + _TRIM_EVERY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TRIM_EVERY_S):
                    await self._wake.wait()
            self._wake.clear()
            while group := self._next():
                await self._save(group)

    def stop(self) -> None:
        """Have nobody wait for what will not be saved."""
        while self._waiting:
            _answer(self._waiting.popleft(), Unavailable("the viewer is stopping"))

    def _next(self) -> list[_Waiting]:
        """Requests that one transaction takes; at least one, if any waits."""
        group: list[_Waiting] = []
        count = 0
        while self._waiting and (not group or count + len(self._waiting[0].spans) <= BATCH):
            count += len(self._waiting[0].spans)
            group.append(self._waiting.popleft())
        return group

    async def _save(self, group: list[_Waiting]) -> None:
        try:
            await self._write(group)
        except _SPANS_FAULT as error:
            if len(group) > 1:
                # One of them is to blame.
                for one in group:
                    await self._save([one])
                return
            answer: Exception | None = MalformedRequest(f"a span cannot be saved ({type(error).__name__})")
        except FORESEEN as error:
            self._store.health.failed(SPANS_PART, error)
            # The file that is there next may be another.
            self._held_bytes = None
            answer = Unavailable("spans cannot be saved for now")
        except BaseException:
            for one in group:
                _answer(one, Unavailable("spans cannot be saved for now"))
            raise
        else:
            self._store.health.well(SPANS_PART)
            answer = None
        for one in group:
            _answer(one, answer)

    async def _write(self, group: list[_Waiting]) -> None:
        archive = self._store.archive
        everything = [span for one in group for span in one.spans]
        for batch in batched(everything, BATCH):
            added = await archive.add_spans(batch, group[0].received)
            self._held_bytes = None if self._held_bytes is None else self._held_bytes + added
            if self._held_bytes is not None and self._held_bytes > self._kept_bytes:
                await self._trim()

    async def _trim(self) -> None:
        archive = self._store.archive
        try:
            if self._held_bytes is None:
                self._held_bytes = await archive.read(spans.held_bytes)
            older_than = time.time() - self._kept_s
            while freed := await archive.trim_spans(older_than, self._held_bytes - self._kept_bytes):
                self._held_bytes -= freed
        except FORESEEN as error:
            self._store.health.failed(SPANS_PART, error)


def _answer(waiting: _Waiting, error: Exception | None) -> None:
    if waiting.saved.done():
        return
    if error is None:
        waiting.saved.set_result(None)
    else:
        waiting.saved.set_exception(error)
