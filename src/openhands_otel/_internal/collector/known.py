"""What the collector knows, and what it says of that to whoever asks.

Lives on the event loop, so nothing in it needs a lock.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from openhands_otel._internal.collector.absent import HISTORY_PART
from openhands_otel._internal.collector.archive.history import Archive
from openhands_otel._internal.collector.archive.journal import Journal
from openhands_otel._internal.collector.points.refusals import LOG_LIMIT, RefusalLog
from openhands_otel._internal.collector.points.series import MetricInfo
from openhands_otel._internal.collector.sight import ServiceSight, Sight
from openhands_otel._internal.collector.state.conversations import Conversations
from openhands_otel._internal.collector.state.fleet import Fleet
from openhands_otel._internal.collector.state.process import Process
from openhands_otel._internal.collector.state.stream import Broker
from openhands_otel._internal.collector.state.totals import TotalSums
from openhands_otel._internal.collector.supervision import Health
from openhands_otel.stats import BurnRate, ReceiverStats


@dataclass(slots=True)
class ReceiverCounts:
    """What the receivers did."""

    started: int = field(default_factory=time.time_ns)
    requests: int = 0
    refused_requests: int = 0
    points: int = 0
    refused_points: int = 0
    spans: int = 0
    log_records: int = 0


class Known(Sight):
    """The collector's state."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.journal = Journal(archive.path)
        self.fleet = Fleet()
        self.conversations = Conversations()
        self.broker = Broker()
        self.counts = ReceiverCounts()
        self.received = 0
        self.conversations_seen = 0
        self.refusals = RefusalLog()
        self.health = Health(self.tell_trouble)
        self.trouble_changed = False
        """Whether there is something about refusals or health that viewers have not been told."""
        self.sampled: set[str] = set()
        """Subjects that changed since the last samples were taken."""
        self.moving = asyncio.Lock()
        """Held while conversations or processes go out of memory or come back."""
        self.save_soon: Callable[[], Awaitable[bool]] | None = None
        """Saves a piece of what is not saved; False where there is nothing left."""
        self.make_room: Callable[[], Awaitable[None]] | None = None
        """Has the oldest leave memory (see ``housekeeping.py``); raises Unavailable where they cannot."""

    def sight(self, service: str | None) -> Sight:
        """What may be seen of it by who may see one service alone; None for all of it."""
        return self if service is None else ServiceSight(self, service)

    @property
    def sums(self) -> TotalSums:
        return self.fleet.sums

    @property
    def burn(self) -> BurnRate:
        return self.fleet.burn.rate()

    @property
    def processes(self) -> Mapping[str, Process]:
        return self.fleet.processes

    @property
    def metrics(self) -> Mapping[str, MetricInfo]:
        return self.fleet.metrics

    @property
    def heard(self) -> int:
        return self.received

    @property
    def seen_count(self) -> int:
        return self.conversations_seen

    async def read[T](self, ask: Callable[[sqlite3.Connection], T]) -> T:
        return await self.archive.read(ask)

    def receiver_stats(self, refusals: int = LOG_LIMIT) -> ReceiverStats:
        counts = self.counts
        return ReceiverStats(
            started_unix_nano=counts.started,
            requests=counts.requests,
            refused_requests=counts.refused_requests,
            points=counts.points,
            refused_points=counts.refused_points,
            spans=counts.spans,
            log_records=counts.log_records,
            viewers=self.broker.viewers,
            database=None if self.archive.path is None else str(self.archive.path),
            shared_points=self.fleet.shared_points,
            history_error=self.health.reason(HISTORY_PART),
            problems=self.health.problems,
            refusals=self.refusals.newest(refusals),
            assumed_restarts=self.fleet.assumed_restarts,
        )

    def tell_trouble(self) -> None:
        """Told in the next round of housekeeping: a flood of refusals is no flood of updates."""
        self.trouble_changed = True
