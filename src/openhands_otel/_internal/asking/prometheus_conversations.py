"""Conversations from a Prometheus: their series as it has them, and what these say together.

Of sums and the like the last value is asked for, over all time. Of what gives way to something else, such as a state,
it takes every value of a time, since which of them was said last is what counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import batched
from typing import Final

from openhands_otel import semconv
from openhands_otel._internal.asking.prometheus_spend import INSTANCE, JOB, service_of
from openhands_otel._internal.asking.promql import (
    EVER_S,
    Sample,
    Samples,
    all_values,
    duration,
    matching,
    now_values,
    series_of,
)
from openhands_otel._internal.asking.steps import Steps
from openhands_otel._internal.clock import MILLISECOND_NS
from openhands_otel._internal.combining.building import OVERDUE, Life
from openhands_otel._internal.combining.naming import labels_in
from openhands_otel._internal.combining.told import SLOTS, Attributes, ProcessSeries, ToldSeries, takes_up
from openhands_otel._internal.facts import CONVERSATION_METRICS, FACTS, Combine, Format
from openhands_otel._internal.prometheus import label_name
from openhands_otel.semconv import Metric

ID: Final = label_name(semconv.CONVERSATION_ID)
PARENT: Final = label_name(semconv.CONVERSATION_PARENT_ID)
_NAMES: Final[Mapping[str, Metric]] = {metric.prometheus_name: metric for metric in CONVERSATION_METRICS}
_ATTRIBUTES: Final[Mapping[str, str]] = {
    label_name(name): name for fact in FACTS for name in (*fact.by, fact.attribute) if name is not None
}
_LABEL_PREFIX: Final = label_name(semconv.LABEL_PREFIX)
_WITH_TIMES: Final = frozenset({Combine.SPEAKER, Combine.RESULT, Combine.NEWEST, Combine.CURRENT})
TIMED: Final = (
    # Its first value is a 0, said when the conversation began to spend.
    semconv.CONVERSATION_CALLS,
    *dict.fromkeys(fact.metric for fact in FACTS if fact.combine in _WITH_TIMES),
)
"""Metrics of which it matters when what was said."""
_LAST: Final = (
    semconv.CONVERSATION_INFO,
    *dict.fromkeys(fact.metric for fact in FACTS if fact.combine not in _WITH_TIMES),
)
"""Metrics of which the last value counts."""
_COUNTS: Final = frozenset(fact.metric for fact in FACTS if fact.format is Format.COUNT)
HEARTBEAT_SERIES: Final = semconv.HEARTBEAT_INTERVAL.prometheus_name
LOOK_BACK_S: Final = 300.0
"""For how long Prometheus shows a series that says nothing more and has not ended."""
_STEP_S: Final = 30.0
_BATCH: Final = 50
"""Conversations in one query."""


@dataclass(slots=True)
class Sampled:
    """One series, as its values tell. Times are unix nanoseconds, 0 where they are not known."""

    start: int
    time: int
    total: float
    ended: bool = False


class PrometheusSeries(ToldSeries[Sampled]):
    """The series of one conversation."""

    __slots__ = ("process_labels", "services")

    def __init__(self) -> None:
        super().__init__()
        self.services: dict[str, str] = {}
        self.process_labels: dict[str, str] = {}

    @property
    def heard(self) -> int:
        """When something was said of it last, unix nanoseconds."""
        return max((held.series.time for _, held in self.each()), default=0)

    @property
    def speaker(self) -> str:
        """The process that spoke of it last."""
        said = [(held.series.time, held.process) for _, held in self.each()]
        return max(said, default=(0, ""))[1]

    def end(self, shown: set[tuple[str, str, Attributes]], life: Life, at: float) -> None:
        """Note which series have ended: of those that go on, Prometheus shows (``shown``) a value."""
        # Where the first 0 of a process was said too long ago, its first call is the next best sign of when it began.
        calling = {held.process for held in self.of(semconv.CONVERSATION_CALLS)}
        begun = {held.process for _, held in self.each() if held.series.start}
        for held in self.of(semconv.CONVERSATION_FIRST_CALL):
            if held.process in calling - begun:
                held.series.start = int(held.series.total * 1e9)
        for name, held in self.each():
            # What a process that is no more there said long ago is not shown in any case.
            known = life is Life.LIVE or held.series.time > (at - LOOK_BACK_S) * 1e9
            given_way = name == semconv.CONVERSATION_INFO.name and not held.series.time
            gone = bool(held.series.time) and known and (name, held.process, held.attributes) not in shown
            held.series.ended = given_way or gone

    def take_last(self, sample: Sample) -> None:
        """Take what a series said last, whenever that was."""
        metric, process, attributes = self._know(sample.labels)
        key = process, () if metric.name in SLOTS else attributes
        held = ProcessSeries(process, Sampled(0, 0, _number(metric, sample.value)), attributes, (1, 0))
        self._by_metric.setdefault(metric.name, {})[key] = held

    def take_all(self, told: Iterable[Samples]) -> None:
        """Take what series said, and when."""
        values: dict[tuple[Metric, str, Attributes], list[tuple[int, float, Attributes]]] = defaultdict(list)
        for series in told:
            metric, process, attributes = self._know(series.labels)
            first = 1, series.values[0][0] * MILLISECOND_NS
            self.taken_up[process] = min(first, self.taken_up.get(process, first))
            key = metric, process, () if metric.name in SLOTS else attributes
            values[key] += [(at * MILLISECOND_NS, _number(metric, value), attributes) for at, value in series.values]
        for (metric, process, key), said in values.items():
            self._by_metric.setdefault(metric.name, {})[process, key] = self._replayed(metric, process, said)

    def _replayed(
        self, metric: Metric, process: str, said: list[tuple[int, float, Attributes]]
    ) -> ProcessSeries[Sampled]:
        held: ProcessSeries[Sampled] | None = None
        start = 0
        for at, value, attributes in sorted(said, key=lambda each: each[0]):
            if held is None:
                start = at if metric.kind == "counter" and not value else 0
            elif held.attributes == attributes and held.series.total == value:
                held.series.time = at
                continue
            if takes_up(metric.name, held, attributes):
                self.taken_up[process] = max((1, at), self.taken_up[process])
            held = ProcessSeries(process, Sampled(start, at, value), attributes, (1, at))
        assert held is not None
        return held

    def _know(self, labels: Mapping[str, str]) -> tuple[Metric, str, Attributes]:
        metric, process = _NAMES[labels["__name__"]], process_of(labels)
        attributes = tuple(sorted(_attributes(labels)))
        self.services[process] = service_of(labels)[1]
        if metric is semconv.CONVERSATION_INFO:
            self.process_labels |= labels_in(attributes)
        return metric, process, attributes


def _number(metric: Metric, value: float) -> float:
    """Prometheus has but one kind of number; what counts things is whole."""
    return round(value) if metric in _COUNTS else value


def process_of(labels: Mapping[str, str]) -> str:
    """What a process is told apart by."""
    return f"{labels.get(JOB, '')} {labels.get(INSTANCE, '')}"


def _attributes(labels: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for label, value in labels.items():
        if label in _ATTRIBUTES:
            yield _ATTRIBUTES[label], value
        elif label.startswith(_LABEL_PREFIX):
            yield semconv.LABEL_PREFIX + label.removeprefix(_LABEL_PREFIX), value


def ask_known(heard_within_s: float, at: float) -> Steps[list[str]]:
    """Ids of the conversations that something was said of."""
    info = semconv.CONVERSATION_INFO.prometheus_name
    found = yield from now_values(f"count by ({ID}) (last_over_time({info}[{duration(heard_within_s)}]))", at)
    return [each.labels[ID] for each in found if ID in each.labels]


def ask_children(parents: Iterable[str], at: float) -> Steps[dict[str, str]]:
    """Conversations below some, at whatever depth, with the parent of each."""
    found: dict[str, str] = {}
    waiting = set(parents)
    looked_up: set[str] = set()
    while waiting:
        looked_up |= waiting
        for some in batched(sorted(waiting), _BATCH):
            info = series_of([semconv.CONVERSATION_INFO], matching(semconv.CONVERSATION_PARENT_ID, some))
            below = yield from now_values(f"count by ({ID}, {PARENT}) (last_over_time({info}[{duration(EVER_S)}]))", at)
            found |= {
                each.labels[ID]: each.labels[PARENT]
                for each in below
                if ID in each.labels and each.labels[ID] != each.labels[PARENT]
            }
        waiting = set(found) - looked_up
    return found


def ask_costs(ids: Iterable[str], at: float) -> Steps[dict[str, list[float]]]:
    """What conversations cost, in parts."""
    found: dict[str, list[float]] = defaultdict(list)
    for some in batched(sorted(ids), _BATCH):
        cost = series_of([semconv.CONVERSATION_COST], matching(semconv.CONVERSATION_ID, some))
        values = yield from now_values(f"last_over_time({cost}[{duration(EVER_S)}])", at)
        for each in values:
            found[each.labels[ID]].append(each.value)
    return found


def ask_series(
    ids: Iterable[str], now: float, at: float, time_s: float
) -> Steps[dict[str, tuple[PrometheusSeries, Life]]]:
    """The series of some conversations and what became of who speaks of each.

    Args:
        ids: Of conversations.
        now: Until when their values are asked for, unix seconds.
        at: When is looked what has ended: now, or soon after something was said of them last.
        time_s: For how long before ``now`` is asked what was said when.
    """
    lives = yield from ask_lives(at)
    found: dict[str, tuple[PrometheusSeries, Life]] = {}
    for some in batched(sorted(ids), _BATCH):
        which = matching(semconv.CONVERSATION_ID, some)
        series: dict[str, PrometheusSeries] = defaultdict(PrometheusSeries)
        last = yield from now_values(f"last_over_time({series_of(_LAST, which)}[{duration(EVER_S)}])", now)
        for each in last:
            series[each.labels[ID]].take_last(each)
        told: dict[str, list[Samples]] = defaultdict(list)
        for samples in (yield from all_values(series_of(TIMED, which), time_s, now)):
            told[samples.labels[ID]].append(samples)
        for name, all_of_one in told.items():
            series[name].take_all(all_of_one)
        shown: dict[str, set[tuple[str, str, Attributes]]] = defaultdict(set)
        for each in (yield from now_values(series_of(TIMED, which), at)):
            key = _NAMES[each.labels["__name__"]].name, process_of(each.labels), tuple(sorted(_attributes(each.labels)))
            shown[each.labels[ID]].add(key)
        for name, of_one in series.items():
            life = lives.get(of_one.speaker, Life.SILENT)
            of_one.end(shown[name], life, at)
            found[name] = of_one, life
    return found


def ask_lives(at: float) -> Steps[dict[str, Life]]:
    """Which processes were there at a moment, of those that were heard of in the day before it.

    A process that ends says so: its heartbeat's own interval is a series that ends, so Prometheus shows it no longer.
    That of a process which died without a word is shown for some minutes more.
    """
    day, looks = duration(86_400), f"{duration(86_400)}:{duration(_STEP_S)}"
    known = yield from now_values(f"last_over_time({HEARTBEAT_SERIES}[{day}])", at)
    last_heard = yield from _by_process(f"max_over_time(timestamp({HEARTBEAT_SERIES})[{looks}])", at)
    last_shown = yield from _by_process(f"max_over_time((0 * {HEARTBEAT_SERIES} + time())[{looks}])", at)
    heard = yield from _by_process(f"timestamp({HEARTBEAT_SERIES})", at)
    lives: dict[str, Life] = {}
    for process, interval_s in ((process_of(each.labels), each.value) for each in known):
        if process in heard:
            lives[process] = Life.SILENT if at - heard[process] > OVERDUE * interval_s else Life.LIVE
        else:
            # Who came and went between two looks was not shown for minutes either.
            shown_s = last_shown.get(process, 0.0) - last_heard.get(process, 0.0)
            lives[process] = Life.SILENT if shown_s > LOOK_BACK_S - 2 * _STEP_S else Life.ENDED
    return lives


def _by_process(expression: str, at: float) -> Steps[dict[str, float]]:
    found = yield from now_values(expression, at)
    return {process_of(each.labels): each.value for each in found}
