"""Server-sent events to many viewers: at once, and never more than one waiting event per subject.

A viewer's queue is a dict by subject. While the viewer keeps up it holds one entry; while it doesn't, a newer state of
a conversation takes the place of the older, so a slow viewer costs a reference per conversation and nobody any time.
Since each event carries a whole state, resuming needs no log: what changed after the last id seen is sent again.

A crowd is paced: a row is told four times a second at most, the newest state last, and the more viewers there are the
more goes out at once. A viewer of a few agents notices neither.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Final

from pydantic import BaseModel

KEEP_ALIVE_S: Final = 1.0
"""A viewer that hears nothing for some of these knows that it is cut off, or that we are stopped."""
KEEP_ALIVE: Final = b": still here\n\n"
VIEWER_LIMIT: Final = 256
ROWS_A_SECOND: Final = 4
"""How often in a second one conversation is told. An agent's call makes about three changes within a moment."""
CHANGES_EVERY_S: Final = 0.25
"""How often those are told who are told of changes."""
WAITING_LIMIT: Final = 1_000
"""Events that wait for such a viewer."""
DELIVERIES_PER_S: Final = 2_500
"""How often in a second viewers are written to, all together: each time costs the same, however much goes out."""
GREETING_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of greetings that viewers have not taken yet; each viewer has one of its own."""


class StreamSubscription:
    """One viewer's queue."""

    def __init__(
        self,
        pace_s: Callable[[], float],
        service: str | None = None,
        by_changes: bool = False,
        whole: str | None = None,
    ) -> None:
        self.service = service
        """The only service that it is told of; None for every one."""
        self.by_changes = by_changes
        """Whether it is told of what changed in rows, many at once, and of the whole of a row only once."""
        self.whole = whole
        """The conversation of which it is always told the whole."""
        self._pace_s = pace_s
        self._delivered = 0.0
        self._waiting: dict[str, bytes] = {}
        self._woken = asyncio.Event()
        self.closed = False

    def put(self, subject: str, frame: bytes) -> None:
        # Out and in again: ids must leave in rising order for a resume to miss nothing.
        self._waiting.pop(subject, None)
        self._waiting[subject] = frame
        if self.by_changes and len(self._waiting) > WAITING_LIMIT:
            # No change takes the place of another's. It comes again, and is told what it missed.
            self._waiting.clear()
            self.close()
        self._woken.set()

    def close(self) -> None:
        self.closed = True
        self._woken.set()

    @property
    def depth(self) -> int:
        return len(self._waiting)

    async def next(self) -> list[bytes]:
        """All that waits, or a heartbeat after a silent while. The frames are every viewer's: none is copied here."""
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                await self._woken.wait()
        except TimeoutError:
            return [KEEP_ALIVE]
        early_s = self._delivered + self._pace_s() - time.monotonic()
        if early_s > 0 and not self.closed:
            await asyncio.sleep(early_s)
        self._delivered = time.monotonic()
        self._woken.clear()
        frames = list(self._waiting.values())
        self._waiting.clear()
        return frames


class Broker:
    """Hands events to all viewers. Ids name this run of the collector and a position in it."""

    def __init__(self) -> None:
        self._run = uuid.uuid4().hex[:12]
        self._subscriptions: set[StreamSubscription] = set()
        self._services: dict[bool, set[str | None]] = {False: set(), True: set()}
        self.position = 0
        self.greeting_bytes = 0
        self._told: dict[str, deque[float]] = {}
        """When subjects were told last, by the monotonic clock."""
        self._held: dict[str, tuple[asyncio.TimerHandle, Callable[[], object]]] = {}

    @property
    def viewers(self) -> int:
        return len(self._subscriptions)

    @property
    def full(self) -> bool:
        return len(self._subscriptions) >= VIEWER_LIMIT

    def advance(self) -> int:
        """The next position; whoever changes something takes one, watched or not."""
        self.position += 1
        return self.position

    def services(self, by_changes: bool) -> set[str | None]:
        """What viewers of one kind look at: single services, and None for all of them."""
        return self._services[by_changes]

    def publish(
        self,
        subject: str,
        update: BaseModel,
        position: int,
        service: str | None = None,
        by_changes: bool = False,
        whole: str | None = None,
    ) -> None:
        """Tell those who look at ``service`` (or at all of them) in one way, or only those who look at one row.

        Encoded once for all who see the same.
        """
        frame = self.frame(update, position)
        for one in self._subscriptions:
            if (one.service, one.by_changes) == (service, by_changes) and whole in (None, one.whole):
                one.put(subject, frame)

    def holds(self, subject: str, limit: int, tell: Callable[[], object]) -> bool:
        """Whether a subject was told as often as may be; then ``tell`` is called as soon as it may be again."""
        if not self._subscriptions:
            return False
        if subject in self._held:
            self._held[subject] = (self._held[subject][0], tell)
            return True
        now = time.monotonic()
        told = self._told.setdefault(subject, deque(maxlen=limit))
        if len(told) == limit and now - told[0] < 1.0:
            timer = asyncio.get_running_loop().call_later(told[0] + 1.0 - now, self._release, subject)
            self._held[subject] = (timer, tell)
            return True
        told.append(now)
        return False

    def _release(self, subject: str) -> None:
        _, tell = self._held.pop(subject)
        tell()

    def forget(self, subject: str) -> None:
        """It is gone: what was held back of it is not told any more."""
        self._told.pop(subject, None)
        if (held := self._held.pop(subject, None)) is not None:
            held[0].cancel()

    def wholes(self, service: str | None) -> set[str]:
        """Conversations of which somebody who is told of changes is always told the whole."""
        return {one.whole for one in self._subscriptions if one.service == service and one.whole is not None}

    def frame(self, update: BaseModel, position: int) -> bytes:
        kind: str = getattr(update, "type")  # noqa: B009
        return f"id: {self._run}-{position}\nevent: {kind}\ndata: {update.model_dump_json()}\n\n".encode()

    def position_of(self, event_id: str | None) -> int | None:
        """Where a returning viewer left off; None if that was another run, or makes no sense."""
        run, _, position = (event_id or "").partition("-")
        if run != self._run or not (position.isascii() and position.isdigit()) or int(position) > self.position:
            return None
        return int(position)

    def subscribe(
        self, service: str | None = None, by_changes: bool = False, whole: str | None = None
    ) -> StreamSubscription | None:
        """A place for one more viewer (of one service, or of all), or None where there is none.

        Looking first and taking it later would let too many in.
        """
        if self.full or self.greeting_bytes >= GREETING_LIMIT:
            return None
        subscription = StreamSubscription(lambda: self.viewers / DELIVERIES_PER_S, service, by_changes, whole)
        self._subscriptions.add(subscription)
        self._recount()
        return subscription

    def unsubscribe(self, subscription: StreamSubscription) -> None:
        self._subscriptions.discard(subscription)
        self._recount()

    def _recount(self) -> None:
        # Asked for at each change, and another one only when somebody comes or goes.
        for by_changes in self._services:
            self._services[by_changes] = {one.service for one in self._subscriptions if one.by_changes is by_changes}

    def close(self) -> None:
        """End all streams, so that the server can stop."""
        for timer, _ in self._held.values():
            timer.cancel()
        self._held.clear()
        for subscription in self._subscriptions:
            subscription.close()
