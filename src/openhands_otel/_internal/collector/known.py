"""What the collector knows, and what it says of that to whoever asks.

Lives on the event loop, so nothing in it needs a lock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from openhands_otel import semconv
from openhands_otel._internal.collector.absent import HISTORY
from openhands_otel._internal.collector.archive.history import Archive
from openhands_otel._internal.collector.archive.journal import Journal
from openhands_otel._internal.collector.points.refusals import LOG_LIMIT, RefusalLog
from openhands_otel._internal.collector.state.conversations import Conversations
from openhands_otel._internal.collector.state.fleet import Fleet
from openhands_otel._internal.collector.state.stream import Broker
from openhands_otel._internal.collector.supervision import Health
from openhands_otel._internal.version import __version__
from openhands_otel.stats import (
    Breakdown,
    ConversationStats,
    Glance,
    ReceiverStats,
    State,
    Totals,
)


@dataclass(slots=True)
class Counts:
    """What the receivers did."""

    started: int = field(default_factory=time.time_ns)
    requests: int = 0
    refused_requests: int = 0
    points: int = 0
    refused_points: int = 0
    spans: int = 0
    log_records: int = 0


class Known:
    """The collector's state."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.journal = Journal(archive.path)
        self.fleet = Fleet()
        self.conversations = Conversations()
        self.broker = Broker()
        self.counts = Counts()
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

    def totals(self) -> Totals:
        sums = self.fleet.sums
        return Totals(
            accumulated_cost=sums.cost,
            accumulated_token_usage=sums.tokens,
            llm_calls=sums.calls,
            unpriced_calls=int(sums.value(semconv.UNPRICED_CALLS)),
            cache_savings=sums.value(semconv.CACHE_SAVINGS),
            burn=self.fleet.burn.rate(),
            conversations_running=self.conversations.running_count,
            conversations_open=self.conversations.open_count,
            conversations_seen=self.conversations_seen,
            processes_live=self.fleet.lives.live_count,
            received_unix_nano=self.received,
        )

    def glance(self, cost_today: float) -> Glance:
        """One line about now; what today cost is the archive's to say."""
        return Glance(
            cost_today=cost_today,
            cost_per_hour=self.fleet.burn.rate().per_hour,
            cost_total=self.fleet.sums.cost,
            running=self.conversations.running_count,
            needs_you=self.conversations.waiting_count,
            unix_s=time.time(),
        )

    def breakdown(self) -> Breakdown:
        sums = self.fleet.sums
        return Breakdown(
            totals=self.totals(),
            by_model=sums.by_attribute(semconv.REQUEST_MODEL),
            by_role=sums.by_attribute(semconv.LLM_ROLE),
            by_provider=sums.by_attribute(semconv.PROVIDER_NAME),
            by_agent=sums.by_attribute(semconv.AGENT_NAME),
            by_service=sums.by_service(),
        )

    def all_stats(self) -> tuple[ConversationStats, ...]:
        return tuple(self.conversations.stats(conversation) for conversation in self.conversations.newest_first())

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
            history_error=self.health.reason(HISTORY),
            problems=self.health.problems,
            refusals=self.refusals.newest(refusals),
            assumed_restarts=self.fleet.assumed_restarts,
        )

    def state(self) -> State:
        return State(
            totals=self.totals(),
            conversations=self.all_stats(),
            receiver=self.receiver_stats(),
            version=__version__,
            server_unix_nano=time.time_ns(),
        )

    def tell_trouble(self) -> None:
        """Told in the next round of housekeeping: a flood of refusals is no flood of updates."""
        self.trouble_changed = True
