"""One conversation: what every process that worked on it says, and the constant-size state that viewers see."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from openhands_otel import semconv
from openhands_otel._internal.collector.points.decode import Instance
from openhands_otel._internal.collector.points.limits import CONVERSATION_WEIGHT, weigh
from openhands_otel._internal.collector.points.ranges import out_of_range
from openhands_otel._internal.collector.points.series import (
    Attributes,
    MetricInfo,
    Point,
    Series,
    begin,
    is_newer,
    series_before,
    series_from_record,
)
from openhands_otel._internal.collector.state.liveness import Life
from openhands_otel._internal.exact import ExactSum
from openhands_otel._internal.usages import by_usage, most_used, token_usage
from openhands_otel.stats import ConversationStats, CostShare, ModelCalls

_SHARE_LIMIT: Final = 32
_SERIES_LIMIT: Final = 2_000
"""Series of one metric; ours has a few per process that worked on it."""
_SLOTTED: Final = frozenset(
    metric.name
    for metric in (
        semconv.CONVERSATION_STATE,
        semconv.CONVERSATION_OUTCOME,
        semconv.CONVERSATION_NOW,
        semconv.CONVERSATION_INFO,
    )
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

_RESULTS: Final = frozenset({semconv.Status.FINISHED, semconv.Status.ERROR, semconv.Status.STUCK})
"""States in which a run leaves a conversation and that say how it ended."""

CONVERSATION_METRICS: Final = {
    metric.name: MetricInfo(metric.name, metric.kind, metric.unit, metric.description)
    for metric in semconv.CONVERSATION_METRICS
}

SeriesKey = tuple[str, Attributes]
"""Process, and attributes without the conversation's id (none for what has one slot)."""


Heard = tuple[int, int]
"""1 for what was heard live, 0 for what was told after the event; and when, by the collector's clock."""
_NEVER: Final = (0, 0)


@dataclass(slots=True)
class Held:
    """A series and the attributes it carries now."""

    series: Series
    attributes: Attributes
    heard: Heard
    """When it last said something new, its end apart."""


class Conversation:
    """What is held of one conversation: of one process by its stamps (see series.py), of several by arrival."""

    __slots__ = (
        "_own_cost",
        "_stats",
        "changed_seq",
        "folded_cost",
        "folded_descendants",
        "folded_into",
        "heard",
        "held",
        "id",
        "left_out",
        "life",
        "parent_id",
        "received",
        "result",
        "seen",
        "services",
        "speaker",
        "taken_up",
        "weight",
    )

    def __init__(self, conversation_id: str) -> None:
        self.id = conversation_id
        self.held: dict[str, dict[SeriesKey, Held]] = {}
        """Series by metric."""
        self.services: dict[str, str] = {}
        """Service names by process."""
        self.taken_up: dict[str, Heard] = {}
        """When each process began, or began again, to work on it."""
        self.parent_id: str | None = None
        self.result: str | None = None
        """What the last state said of a run's end, for senders that say no outcome; closing takes nothing back."""
        self.seen = 0.0
        self.received = 0
        self.heard: float | None = None
        """When something was said of it last, seconds awake (``liveness.py``)."""
        self.speaker = ""
        """The process that spoke of it last."""
        self.life = Life.LIVE
        """Of that process."""
        self.changed_seq = 0
        self.folded_cost = ExactSum()
        """What conversations under this one cost that have left memory."""
        self.folded_descendants = 0
        self.folded_into: str | None = None
        """The parent that has its cost while it is out of memory."""
        self._stats: ConversationStats | None = None
        self._own_cost: float | None = None
        self.weight = CONVERSATION_WEIGHT
        """Bytes that its series take, about."""
        self.left_out = 0
        """Points whose series is one too many."""

    def apply(
        self, instance: Instance, point: Point, attributes: Attributes, received: int, replayed: bool = False
    ) -> bool:
        """Take one point (``attributes``: without the conversation's id); True when anything changed."""
        name = point.metric.name
        heard = (0, min(received, point.time)) if replayed else (1, received)
        key = (instance.key, () if name in _SLOTTED else attributes)
        all_held = self.held.setdefault(name, {})
        held = all_held.get(key)
        begins = instance.key not in self.taken_up or _takes_up(name, held, attributes)
        if held is not None and held.attributes == attributes:
            if not held.series.apply(point, received):
                return False
        else:
            held = self._begin(all_held, key, point, instance, received)
            if held is None:
                return False
        held.attributes = attributes
        if point.value is not None:
            held.heard = max(held.heard, heard)
            if begins:
                self.taken_up[instance.key] = max(heard, self.taken_up.get(instance.key, _NEVER))
        self.services[instance.key] = instance.service
        self._stats = self._own_cost = None
        if name == semconv.CONVERSATION_INFO.name:
            self._find_parent()
        elif name == semconv.CONVERSATION_STATE.name:
            self._note_result()
        return True

    def _note_result(self) -> None:
        status = self._status()
        if status != semconv.Status.CLOSED:
            self.result = status if status in _RESULTS else None

    def _begin(
        self, all_held: dict[SeriesKey, Held], key: SeriesKey, point: Point, instance: Instance, received: int
    ) -> Held | None:
        """A new series, or one that takes the place of what its slot said; None where the point is not news."""
        held = all_held.get(key)
        if point.value is None or (held is not None and not is_newer(point.time, held.series.time, received)):
            return None
        if held is None:
            if len(all_held) >= _SERIES_LIMIT:
                self.left_out += 1
                return None
            self.weight += weigh(key[1])
        series = begin(point, point.value, instance.named, received)
        all_held[key] = begun = Held(series, (), _NEVER if held is None else held.heard)
        return begun

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
        last = self._last_process
        return self._status() == semconv.Status.CLOSED or any(
            held.series.ended
            for name in _LASTING
            for (process, _), held in self.held.get(name, {}).items()
            if process == last
        )

    @property
    def attended(self) -> bool:
        """Open, and its process is there."""
        return self.life is Life.LIVE and not self.closed

    @property
    def running(self) -> bool:
        return self.attended and self._status() == semconv.Status.RUNNING

    def stats(self, tree_cost: float, descendants: int) -> ConversationStats:
        """The state that viewers see; what lies under it is known to the caller."""
        if self._stats is None:
            self._stats = self._build()
        update: dict[str, Any] = {
            "tree_cost": tree_cost,
            "descendants": descendants,
            "received_unix_nano": self.received,
        }
        if self.life is not Life.LIVE and not self._stats.closed:
            # Whatever it said last, nothing runs there now that anybody knows of.
            update |= {"activity": None, "activity_since": None}
            update |= {"stale": self.life is not Life.ENDED, "gone": self.life is Life.GONE}
            update |= {"ended": self.life is Life.ENDED}
        return self._stats.model_copy(update=update)

    def _build(self) -> ConversationStats:
        shares, tokens, context, calls = self._shares(), self._tokens(), self._context(), self._calls()
        model, provider = most_used(shares, calls)
        outcome, error_type = self._outcome()
        closed = self.closed
        activity = None if closed else self._activity()
        budget = self._newest(semconv.CONVERSATION_BUDGET, ended=True)
        unreconciled = self._newest(semconv.CONVERSATION_UNRECONCILED) or self._newest(
            semconv.CONVERSATION_UNRECONCILED, ended=True
        )
        reasons = None if unreconciled is None else _named(unreconciled, semconv.RECONCILIATION_REASON)
        return ConversationStats(
            conversation_id=self.id,
            parent_id=self.parent_id,
            agent=self._newest_attribute(semconv.CONVERSATION_INFO, semconv.AGENT_NAME),
            sdk_version=self._newest_attribute(semconv.CONVERSATION_INFO, semconv.SDK_VERSION),
            service=self.services.get(self._last_process),
            processes=len(self.services),
            model_name=model,
            provider_name=provider,
            accumulated_cost=self.own_cost,
            restored_cost=self._restored(),
            max_budget_per_task=None if budget is None else float(budget.series.total),
            unreconciled_cost=None if unreconciled is None else float(unreconciled.series.total),
            unreconciled_reasons=tuple(reasons.split(",")) if reasons else (),
            accumulated_token_usage=token_usage(tokens.values(), context),
            llm_calls=int(sum(self._totals(semconv.CONVERSATION_CALLS))),
            unpriced_calls=int(sum(self._totals(semconv.CONVERSATION_UNPRICED))),
            calls_by_model=calls,
            costs=shares,
            usage_to_metrics=by_usage(shares, tokens, context, calls),
            status=self._status(),
            outcome=outcome,
            error_type=error_type,
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
            key=lambda held: (held.heard, held.series.time),
            default=None,
        )

    def _newest_attribute(self, metric: semconv.Metric, attribute: str) -> str | None:
        newest = self._newest(metric) or self._newest(metric, ended=True)
        return None if newest is None else _named(newest, attribute)

    @property
    def _last_process(self) -> str:
        return max(self.taken_up, key=lambda process: self.taken_up[process], default="")

    def _speaker(self) -> tuple[str, Held | None]:
        """The process that says what state the conversation is in."""
        last = self._last_process

        def rank(said: tuple[str, Held]) -> tuple[bool, Heard, int]:
            process, held = said
            # Whoever has handed it on may close what is no longer his.
            handed_on = process != last and _named(held, semconv.CONVERSATION_STATUS) == semconv.Status.CLOSED
            return not handed_on, held.heard, held.series.time

        states = self.held.get(semconv.CONVERSATION_STATE.name, {})
        return max(((process, held) for (process, _), held in states.items()), key=rank, default=(last, None))

    def _status(self) -> str | None:
        held = self._speaker()[1]
        return None if held is None else _named(held, semconv.CONVERSATION_STATUS)

    def _outcome(self) -> tuple[str | None, str | None]:
        """How the last run ended, whatever has become of its series; nothing while another is under way."""
        held = self._newest(semconv.CONVERSATION_OUTCOME, ended=True)
        if held is None:
            return self.result, None
        if held.series.total != 1:
            return None, None
        return _named(held, semconv.RUN_OUTCOME), _named(held, semconv.ERROR_TYPE)

    def _activity(self) -> Held | None:
        held = self.held.get(semconv.CONVERSATION_NOW.name, {}).get((self._speaker()[0], ()))
        return None if held is None or held.series.ended else held

    def _restored(self) -> float:
        # Later processes restored what earlier ones spent as well: the first restored least, and nothing if it began.
        opened = {
            process
            for (process, _), held in self.held.get(semconv.CONVERSATION_INFO.name, {}).items()
            if _named(held, semconv.SDK_VERSION)
        }
        restored = {
            process: float(held.series.total)
            for (process, _), held in self.held.get(semconv.CONVERSATION_RESTORED_COST.name, {}).items()
        }
        return min((restored.get(process, 0.0) for process in opened or restored), default=0.0)

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

    def _calls(self) -> tuple[ModelCalls, ...]:
        """By model and provider; of agents before they said so, under a model that is not known."""
        parts: dict[tuple[str, str | None], list[int]] = defaultdict(lambda: [0, 0])
        for place, metric in enumerate((semconv.CONVERSATION_CALLS, semconv.CONVERSATION_UNPRICED)):
            for held in self._all(metric):
                model = _named(held, semconv.REQUEST_MODEL) or semconv.UNKNOWN
                parts[model, _named(held, semconv.PROVIDER_NAME)][place] += int(held.series.total)
        most = sorted(parts.items(), key=lambda part: (-part[1][0], part[0][0], part[0][1] or ""))
        calls = [
            ModelCalls(model=model, provider=provider, llm_calls=made, unpriced_calls=unpriced)
            for (model, provider), (made, unpriced) in most[:_SHARE_LIMIT]
        ]
        if rest := [counts for _, counts in most[_SHARE_LIMIT:]]:
            made, unpriced = (sum(counts[place] for counts in rest) for place in (0, 1))
            calls.append(ModelCalls(model=semconv.OVERFLOW, llm_calls=made, unpriced_calls=unpriced))
        return tuple(calls)

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
            "speaker": self.speaker,
            "life": str(self.life),
            "services": self.services.copy(),
            "folded_cost": self.folded_cost.parts,
            "folded_descendants": self.folded_descendants,
            "folded_into": self.folded_into,
            "taken_up": self.taken_up,
            "result": self.result,
            "held": [
                [process, name, held.attributes, bool(key_attributes), held.heard, held.series.record()]
                for name, all_held in self.held.items()
                for (process, key_attributes), held in all_held.items()
            ],
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Conversation:
        conversation = cls(record["id"])
        conversation.seen = record["seen"]
        conversation.received = record["received"]
        conversation.speaker = record.get("speaker", "")
        conversation.life = Life(record.get("life", Life.LIVE))
        conversation.services = dict(record["services"])
        conversation.folded_cost = ExactSum(record["folded_cost"])
        conversation.folded_descendants = record["folded_descendants"]
        conversation.folded_into = record["folded_into"]
        for process, name, pairs, *row in record["held"]:
            attributes = tuple((str(key), item) for key, item in pairs)
            # A collector of before took numbers that no sum can hold, and names that are none of ours any more.
            if name not in CONVERSATION_METRICS or (len(row) > 3 and out_of_range(CONVERSATION_METRICS[name], row[3])):
                continue
            if len(row) == 3:
                keyed, (live, at), series_record = row
                held = Held(series_from_record(series_record), attributes, (live, at))
            else:
                keyed, held = _held_before(name, attributes, row, conversation.received)
            key_attributes = attributes if keyed else ()
            conversation.held.setdefault(name, {})[process, key_attributes] = held
            conversation.weight += weigh(key_attributes)
        known: dict[str, list[int]] = record.get("taken_up") or conversation._taken_up_before()
        conversation.taken_up = {process: (live, at) for process, (live, at) in known.items()}
        conversation._find_parent()
        conversation.result = record.get("result")
        conversation._note_result()
        return conversation

    def _taken_up_before(self) -> dict[str, list[int]]:
        """What an archive that does not say it had to go by."""
        begun: dict[str, list[int]] = {}
        for name in _LASTING:
            for (process, _), held in self.held.get(name, {}).items():
                at = min(held.series.start or held.series.time, self.received)
                begun[process] = max(begun.get(process, [1, 0]), [1, at])
        return begun


def _held_before(name: str, attributes: Attributes, row: list[Any], received: int) -> tuple[bool, Held]:
    """A series as archives had it that knew but the senders' clocks."""
    start, time, base, value, ended, keyed = row
    series = series_before(CONVERSATION_METRICS[name].accumulates, start, time, base, value, ended)
    return keyed, Held(series, attributes, (1, min(time, received)))


def _takes_up(name: str, held: Held | None, attributes: Attributes) -> bool:
    """Whether what takes the place of ``held`` says that its process works on the conversation again."""
    if name == semconv.CONVERSATION_STATE.name:
        status = dict(attributes).get(semconv.CONVERSATION_STATUS)
        before = None if held is None else _named(held, semconv.CONVERSATION_STATUS)
        return status != before and (status == semconv.Status.RUNNING or before == semconv.Status.CLOSED)
    return held is not None and held.series.ended and name in _LASTING


def _named(held: Held, attribute: str) -> str | None:
    value = dict(held.attributes).get(attribute)
    return None if value is None else str(value)
