"""What somebody may see of the collector's knowledge: all of it, or one service's part.

Whatever is answered to anybody is answered by a ``Sight``. That of one service is made of narrowed parts (its
processes, its share of the sums, its conversations, a database that shows nothing else), so no answer has to think of
it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from openhands_otel import semconv
from openhands_otel._internal.collector.archive import listings
from openhands_otel._internal.collector.archive.narrowing import narrowed
from openhands_otel._internal.collector.points.refusals import LOG_LIMIT
from openhands_otel._internal.collector.points.series import MetricInfo
from openhands_otel._internal.collector.state.conversations import Conversations
from openhands_otel._internal.collector.state.process import Process
from openhands_otel._internal.collector.state.totals import TotalSums
from openhands_otel._internal.combining.building import Life
from openhands_otel._internal.version import __version__
from openhands_otel.stats import (
    Breakdown,
    BurnRate,
    ConversationStats,
    Glance,
    ReceiverStats,
    State,
    Totals,
)

if TYPE_CHECKING:
    from openhands_otel._internal.collector.known import Known


class Sight:
    """Answers from the parts that it sees."""

    service: str | None = None
    """The only service that it is of; None for every one."""
    conversations: Conversations

    @property
    def sums(self) -> TotalSums:
        """What was ever spent."""
        raise NotImplementedError

    @property
    def burn(self) -> BurnRate:
        """What is spent now."""
        raise NotImplementedError

    @property
    def processes(self) -> Mapping[str, Process]:
        """Those in memory."""
        raise NotImplementedError

    @property
    def metrics(self) -> Mapping[str, MetricInfo]:
        """What their series are of, by name."""
        raise NotImplementedError

    @property
    def heard(self) -> int:
        """When something last arrived, unix nanoseconds."""
        raise NotImplementedError

    @property
    def seen_count(self) -> int:
        """How many conversations there ever were."""
        raise NotImplementedError

    def receiver_stats(self, refusals: int = LOG_LIMIT) -> ReceiverStats:
        """What the receivers did; of refusals the newest."""
        raise NotImplementedError

    async def read[T](self, ask: Callable[[sqlite3.Connection], T]) -> T:
        """What ``ask`` finds in the archive; it writes nothing."""
        raise NotImplementedError

    def totals(self) -> Totals:
        sums = self.sums
        return Totals(
            accumulated_cost=sums.cost,
            accumulated_token_usage=sums.tokens,
            llm_calls=sums.calls,
            unpriced_calls=int(sums.value(semconv.UNPRICED_CALLS)),
            cache_savings=sums.value(semconv.CACHE_SAVINGS),
            burn=self.burn,
            conversations_running=self.conversations.running_count,
            conversations_open=self.conversations.open_count,
            conversations_seen=self.seen_count,
            processes_live=sum(process.pulse.life is Life.LIVE for process in self.processes.values()),
            received_unix_nano=self.heard,
        )

    def glance(self, cost_today: float) -> Glance:
        """One line about now; what today cost is the archive's to say."""
        return Glance(
            cost_today=cost_today,
            cost_per_hour=self.burn.per_hour,
            cost_total=self.sums.cost,
            running=self.conversations.running_count,
            needs_you=self.conversations.waiting_count,
            unix_s=time.time(),
        )

    def breakdown(self) -> Breakdown:
        sums = self.sums
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

    def state(self) -> State:
        return State(
            totals=self.totals(),
            conversations=self.all_stats(),
            receiver=self.receiver_stats(),
            version=__version__,
            server_unix_nano=time.time_ns(),
        )

    async def stats(self, conversation_id: str) -> ConversationStats | None:
        """The state of a conversation, one that has left memory too."""
        held = self.conversations.by_id.get(conversation_id)
        if held is not None:
            return self.conversations.stats(held)
        archived = await self.read(lambda connection: listings.archived_stats(connection, conversation_id))
        return None if archived is None else ConversationStats.model_validate_json(archived)


class ServiceSight(Sight):
    """One service's part, as it is at this moment."""

    def __init__(self, known: Known, service: str) -> None:
        self.service = service
        self._known = known
        self.conversations = known.conversations.of_service(service)

    @cached_property
    def _sums(self) -> TotalSums:
        return self._known.fleet.sums.of_service(self.service or "")

    @property
    def sums(self) -> TotalSums:
        return self._sums

    @property
    def burn(self) -> BurnRate:
        return self._known.fleet.burn.rate(self.service)

    @cached_property
    def _processes(self) -> Mapping[str, Process]:
        processes = self._known.fleet.processes
        return {key: process for key, process in processes.items() if process.instance.service == self.service}

    @property
    def processes(self) -> Mapping[str, Process]:
        return self._processes

    @property
    def metrics(self) -> Mapping[str, MetricInfo]:
        return self._known.metrics

    @property
    def heard(self) -> int:
        return max((int(process.seen * 1e9) for process in self.processes.values()), default=0)

    @property
    def seen_count(self) -> int:
        # What others did is none of its business: of those that left memory nobody counts whose they were.
        return len(self.conversations.by_id)

    def receiver_stats(self, refusals: int = LOG_LIMIT) -> ReceiverStats:
        told = self._known.receiver_stats()
        return ReceiverStats(
            started_unix_nano=told.started_unix_nano,
            history_error=told.history_error,
            problems=told.problems,
            refusals=tuple(each for each in told.refusals if each.service == self.service)[:refusals],
        )

    async def read[T](self, ask: Callable[[sqlite3.Connection], T]) -> T:
        service = self.service or ""
        return await self._known.archive.read(lambda connection: narrowed(connection, service, ask))
