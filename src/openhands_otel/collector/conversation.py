"""One conversation: what every process that worked on it says, and the constant-size state that viewers see."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from openhands_otel import semconv
from openhands_otel.collector.decode import Instance
from openhands_otel.collector.ranges import out_of_range
from openhands_otel.collector.series import Attributes, ExactSum, MetricInfo, Point, Series
from openhands_otel.collector.usages import by_usage, token_usage
from openhands_otel.stats import ConversationStats, CostShare

STALE_AFTER_S: Final = 150.0
"""Two and a half heartbeats without a word."""

_SHARE_LIMIT: Final = 32
_SERIES_LIMIT: Final = 2_000
"""Series of one metric; ours has a few per process that worked on it."""
_SLOTTED: Final = frozenset(
    metric.name for metric in (semconv.CONVERSATION_STATE, semconv.CONVERSATION_NOW, semconv.CONVERSATION_INFO)
)
"""Gauges that say something by an attribute, of which a process has one at a time."""
_LASTING: Final = frozenset(
    metric.name
    for metric in (
        semconv.CONVERSATION_INFO,
        semconv.CONVERSATION_COST,
        semconv.CONVERSATION_TOKENS,
        semconv.CONVERSATION_CALLS,
    )
)
"""Series that end only with the conversation."""

CONVERSATION_METRICS: Final = {
    metric.name: MetricInfo(metric.name, metric.kind, metric.unit, metric.description)
    for metric in semconv.CONVERSATION_METRICS
}

SeriesKey = tuple[str, Attributes]
"""Process, and attributes without the conversation's id (none for what has one slot)."""


@dataclass(slots=True)
class Held:
    """A series and the attributes it carries now."""

    series: Series
    attributes: Attributes


class Conversation:
    """What is held of one conversation. Only the newest point of each series counts (see series.py)."""

    __slots__ = (
        "_own_cost",
        "_stats",
        "changed_seq",
        "folded_cost",
        "folded_descendants",
        "folded_into",
        "held",
        "id",
        "parent_id",
        "received",
        "seen",
        "services",
        "stale",
    )

    def __init__(self, conversation_id: str) -> None:
        self.id = conversation_id
        self.held: dict[str, dict[SeriesKey, Held]] = {}
        """Series by metric."""
        self.services: dict[str, str] = {}
        """Service names by process."""
        self.parent_id: str | None = None
        self.seen = 0.0
        self.received = 0
        self.stale = False
        self.changed_seq = 0
        self.folded_cost = ExactSum()
        """What conversations under this one cost that have left memory."""
        self.folded_descendants = 0
        self.folded_into: str | None = None
        """The parent that has its cost while it is out of memory."""
        self._stats: ConversationStats | None = None
        self._own_cost: float | None = None

    def apply(self, instance: Instance, point: Point, attributes: Attributes) -> bool:
        """Take one point (``attributes``: without the conversation's id); True when anything changed."""
        name = point.metric.name
        if not self._take(self.held.setdefault(name, {}), instance.key, point, attributes):
            return False
        self.services[instance.key] = instance.service
        self._stats = self._own_cost = None
        if name == semconv.CONVERSATION_INFO.name:
            self._find_parent()
        return True

    def _take(self, all_held: dict[SeriesKey, Held], process: str, point: Point, attributes: Attributes) -> bool:
        slotted = point.metric.name in _SLOTTED
        key = (process, () if slotted else attributes)
        held = all_held.get(key)
        if held is not None and held.attributes == attributes:
            return held.series.apply(point)
        if point.value is None or (held is not None and point.time < held.series.time):
            return False
        if held is None and len(all_held) >= _SERIES_LIMIT:
            return False
        all_held[key] = Held(Series(point.start, point.time, point.value), attributes)
        return True

    def _find_parent(self) -> None:
        parent = self._newest_attribute(semconv.CONVERSATION_INFO, semconv.CONVERSATION_PARENT_ID)
        self.parent_id = None if parent in {None, "", self.id} else parent

    @property
    def own_cost(self) -> float:
        if self._own_cost is None:
            self._own_cost = math.fsum(self._totals(semconv.CONVERSATION_COST))
        return self._own_cost

    @property
    def closed(self) -> bool:
        """Closed by the process that took it up last; one before may have died without a word."""
        lasting = [
            (held.series.start or held.series.time, process, held.series.ended)
            for name in _LASTING
            for (process, _), held in self.held.get(name, {}).items()
        ]
        last = max(lasting, default=(0, "", False))[1]
        return self._status() == semconv.Status.CLOSED or any(ended for _, process, ended in lasting if process == last)

    @property
    def running(self) -> bool:
        return not self.closed and not self.stale and self._status() == semconv.Status.RUNNING

    def stats(self, tree_cost: float, descendants: int) -> ConversationStats:
        """The state that viewers see; what lies under it is known to the caller."""
        if self._stats is None:
            self._stats = self._build()
        return self._stats.model_copy(
            update={
                "tree_cost": tree_cost,
                "descendants": descendants,
                "stale": self.stale,
                "received_unix_nano": self.received,
            }
        )

    def _build(self) -> ConversationStats:
        shares, tokens, context = self._shares(), self._tokens(), self._context()
        closed = self.closed
        activity = None if closed else self._newest(semconv.CONVERSATION_NOW)
        budget = self._newest(semconv.CONVERSATION_BUDGET, ended=True)
        unreconciled = self._newest(semconv.CONVERSATION_UNRECONCILED) or self._newest(
            semconv.CONVERSATION_UNRECONCILED, ended=True
        )
        reasons = None if unreconciled is None else _named(unreconciled, semconv.RECONCILIATION_REASON)
        newest_process = self._newest_process()
        return ConversationStats(
            conversation_id=self.id,
            parent_id=self.parent_id,
            agent=self._newest_attribute(semconv.CONVERSATION_INFO, semconv.AGENT_NAME),
            sdk_version=self._newest_attribute(semconv.CONVERSATION_INFO, semconv.SDK_VERSION),
            service=self.services.get(newest_process),
            processes=len(self.services),
            model_name=shares[0].model if shares else semconv.UNKNOWN,
            accumulated_cost=self.own_cost,
            restored_cost=self._restored(),
            max_budget_per_task=None if budget is None else float(budget.series.total),
            unreconciled_cost=None if unreconciled is None else float(unreconciled.series.total),
            unreconciled_reasons=tuple(reasons.split(",")) if reasons else (),
            accumulated_token_usage=token_usage(tokens.values(), context),
            llm_calls=int(sum(self._totals(semconv.CONVERSATION_CALLS))),
            unpriced_calls=int(sum(self._totals(semconv.CONVERSATION_UNPRICED))),
            costs=shares,
            usage_to_metrics=by_usage(shares, tokens, context),
            status=self._status(),
            activity=None if activity is None else _named(activity, semconv.CONVERSATION_ACTIVITY),
            activity_since=None if activity is None else float(activity.series.total),
            closed=closed,
            started_unix_nano=min((held.series.start for _, held in self._each() if held.series.start), default=0),
            updated_unix_nano=max((held.series.time for _, held in self._each()), default=0),
        )

    def _all(self, metric: semconv.Metric) -> Iterable[Held]:
        return self.held.get(metric.name, {}).values()

    def _each(self) -> Iterator[tuple[str, Held]]:
        """Every series with its process."""
        for all_held in self.held.values():
            for (process, _), held in all_held.items():
                yield process, held

    def _totals(self, metric: semconv.Metric) -> list[int | float]:
        return [held.series.total for held in self._all(metric)]

    def _newest(self, metric: semconv.Metric, ended: bool = False) -> Held | None:
        return max(
            (held for held in self._all(metric) if ended or not held.series.ended),
            key=lambda held: held.series.time,
            default=None,
        )

    def _newest_attribute(self, metric: semconv.Metric, attribute: str) -> str | None:
        newest = self._newest(metric) or self._newest(metric, ended=True)
        return None if newest is None else _named(newest, attribute)

    def _newest_process(self) -> str:
        newest = max(self._each(), key=lambda each: each[1].series.time, default=None)
        return "" if newest is None else newest[0]

    def _status(self) -> str | None:
        return self._newest_attribute(semconv.CONVERSATION_STATE, semconv.CONVERSATION_STATUS)

    def _restored(self) -> float:
        # Later processes restored what earlier ones spent: only what came before the first is not counted otherwise.
        begun: dict[str, int] = {}
        for process, held in self._each():
            start = held.series.start or held.series.time
            begun[process] = min(start, begun.get(process, start))
        first = min(begun, key=lambda process: begun[process], default="")
        held = self.held.get(semconv.CONVERSATION_RESTORED_COST.name, {}).get((first, ()))
        return 0.0 if held is None else float(held.series.total)

    def _tokens(self) -> dict[str, dict[str, int]]:
        """Tokens by usage id and type."""
        by_usage: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for held in self._all(semconv.CONVERSATION_TOKENS):
            usage_id = _named(held, semconv.USAGE_ID) or semconv.UNKNOWN
            by_usage[usage_id][_named(held, semconv.TOKEN_TYPE) or ""] += int(held.series.total)
        return by_usage

    def _context(self) -> tuple[int, int]:
        """Tokens of the agent's last turn, and how many its model takes."""
        turn = self._newest(semconv.CONVERSATION_CONTEXT_TOKENS, ended=True)
        limit = self._newest(semconv.CONVERSATION_CONTEXT_LIMIT, ended=True)
        return 0 if turn is None else int(turn.series.total), 0 if limit is None else int(limit.series.total)

    def _shares(self) -> tuple[CostShare, ...]:
        parts: dict[tuple[str, str, str | None], list[float]] = {}
        for held in self._all(semconv.CONVERSATION_COST):
            named = dict(held.attributes)
            usage = named.get(semconv.USAGE_ID)
            key = (
                str(named.get(semconv.LLM_ROLE, semconv.UNKNOWN)),
                str(named.get(semconv.REQUEST_MODEL, semconv.UNKNOWN)),
                None if usage is None else str(usage),
            )
            parts.setdefault(key, []).append(held.series.total)
        costs = sorted(((math.fsum(values), *key) for key, values in parts.items()), key=lambda part: -part[0])
        shares = [
            CostShare(role=role, model=model, usage_id=usage, accumulated_cost=cost)
            for cost, role, model, usage in costs[:_SHARE_LIMIT]
        ]
        if rest := costs[_SHARE_LIMIT:]:
            cost = math.fsum(part[0] for part in rest)
            shares.append(CostShare(role=semconv.OVERFLOW, model=semconv.OVERFLOW, accumulated_cost=cost))
        return tuple(shares)

    def record(self) -> dict[str, Any]:
        """What the archive keeps, plain enough for JSON."""
        return {
            "id": self.id,
            "seen": self.seen,
            "received": self.received,
            "services": self.services.copy(),
            "folded_cost": self.folded_cost.partials,
            "folded_descendants": self.folded_descendants,
            "folded_into": self.folded_into,
            "held": [
                [process, name, held.attributes, s.start, s.time, s.base, s.value, s.ended, bool(key_attributes)]
                for name, all_held in self.held.items()
                for (process, key_attributes), held in all_held.items()
                for s in (held.series,)
            ],
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Conversation:
        conversation = cls(record["id"])
        conversation.seen = record["seen"]
        conversation.received = record["received"]
        conversation.services = dict(record["services"])
        conversation.folded_cost = ExactSum(record["folded_cost"])
        conversation.folded_descendants = record["folded_descendants"]
        conversation.folded_into = record["folded_into"]
        for process, name, pairs, start, time, base, value, ended, keyed in record["held"]:
            attributes = tuple((str(key), item) for key, item in pairs)
            key = (process, attributes if keyed else ())
            # A collector of before took numbers that no sum can hold.
            if name not in CONVERSATION_METRICS or out_of_range(CONVERSATION_METRICS[name], value):
                continue
            conversation.held.setdefault(name, {})[key] = Held(Series(start, time, value, base, ended), attributes)
        conversation._find_parent()
        return conversation


def _named(held: Held, attribute: str) -> str | None:
    value = dict(held.attributes).get(attribute)
    return None if value is None else str(value)
