"""The series of one conversation: of one process by its stamps (see ``points/series.py``), of several by arrival."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from openhands_otel import semconv
from openhands_otel._internal.collector.points.decode import Instance
from openhands_otel._internal.collector.points.limits import weigh
from openhands_otel._internal.collector.points.quarters import Step, quarter_of
from openhands_otel._internal.collector.points.ranges import out_of_range
from openhands_otel._internal.collector.points.series import (
    Attributes,
    Counted,
    MetricInfo,
    Point,
    Series,
    begin,
    is_newer,
    series_before,
    series_from_record,
)
from openhands_otel._internal.collector.state.erased import Erased
from openhands_otel._internal.collector.state.placing import conversation_measure
from openhands_otel._internal.combining.told import (
    LASTING,
    NEVER,
    SLOTS,
    ProcessSeries,
    SeriesKey,
    ToldSeries,
    takes_up,
)
from openhands_otel._internal.facts import CONVERSATION_METRICS

INFOS: Final = {
    metric.name: MetricInfo(metric.name, metric.kind, metric.unit, metric.description)
    for metric in CONVERSATION_METRICS
}
"""The metrics of conversations by name."""

_SERIES_LIMIT: Final = 2_000
"""Series of one metric; ours has a few per process that worked on it."""


HeldSeries = ProcessSeries[Series]


@dataclass(frozen=True, slots=True)
class Growth:
    """By how much a series of spend grew, and when."""

    instance: Instance
    attributes: Attributes
    measure: str
    """The field of an amount that it adds to."""
    steps: list[Step]

    @property
    def is_agents(self) -> bool:
        """Whether it is of calls that an agent itself makes."""
        return dict(self.attributes).get(semconv.LLM_ROLE) in semconv.AGENT_ROLES


class SeriesSet(ToldSeries[Series]):
    """All of them, by metric."""

    __slots__ = ("erased", "grown", "left_out", "tool_calls", "weight")

    def __init__(self) -> None:
        super().__init__()
        self.grown: list[Growth] = []
        """What is to be booked yet."""
        self.tool_calls = 0
        """Those of which no run has been told yet."""
        self.weight = 0
        """Bytes that they take, about."""
        self.left_out = 0
        """Points whose series is one too many."""
        self.erased = Erased()
        """Series that are forgotten and have not spoken since."""

    def apply(self, instance: Instance, point: Point, attributes: Attributes, received: int, replayed: bool) -> bool:
        """Take one point (``attributes``: without the conversation's id); True when anything changed."""
        name = point.metric.name
        heard = (0, min(received, point.time)) if replayed else (1, received)
        key = (instance.key, () if name in SLOTS else attributes)
        of_metric = self._by_metric.setdefault(name, {})
        held = of_metric.get(key) or self._take_erased(of_metric, name, key, attributes)
        begins = instance.key not in self.taken_up or takes_up(name, held, attributes)
        before = held.series.reached if held is not None and isinstance(held.series, Counted) else 0
        if held is not None and held.attributes == attributes:
            if not held.series.apply(point, received):
                # A late point may still say when something was spent.
                self._grow(instance, held, point, attributes, before, received)
                return False
        else:
            held = self._begin(of_metric, key, point, instance, received)
            if held is None:
                return False
        self._grow(instance, held, point, attributes, before, received)
        held.attributes = attributes
        if point.value is not None:
            held.heard = max(held.heard, heard)
            if begins:
                self.taken_up[instance.key] = max(heard, self.taken_up.get(instance.key, NEVER))
        return True

    def _take_erased(
        self, of_metric: dict[SeriesKey, HeldSeries], name: str, key: SeriesKey, attributes: Attributes
    ) -> HeldSeries | None:
        series = self.erased.take(key[0], name, attributes)
        if series is None:
            return None
        self.weight += weigh(key[1])
        held = of_metric[key] = ProcessSeries(key[0], series, attributes, NEVER)
        return held

    def grows(self, process: str, points: Iterable[tuple[Attributes, Point]], now: int) -> bool:
        """Whether some points of spend (each after its attributes) tell of more than is forgotten."""
        spent = (
            (attributes, point) for attributes, point in points if conversation_measure(point.metric.name, attributes)
        )
        return self.erased.grows(
            ((point, (process, point.metric.name, attributes)) for attributes, point in spent), now
        )

    def forget(self, salt: str, process: str, matches: Callable[[Attributes, Series], bool]) -> None:
        """Forget series of a process: of counters a hash and what they had reached stays, of the others nothing."""
        self.erased.salt = salt
        for name, of_metric in self._by_metric.items():
            for key, held in list(of_metric.items()):
                if held.process == process and matches(held.attributes, held.series):
                    del of_metric[key]
                    self.weight -= weigh(key[1])
                    if isinstance(held.series, Counted):
                        self.erased.put(held.series, process, name, held.attributes)

    def _grow(
        self,
        instance: Instance,
        held: HeldSeries,
        point: Point,
        attributes: Attributes,
        before: int | float,
        received: int,
    ) -> None:
        if not isinstance(held.series, Counted):
            return
        if point.metric.name == semconv.CONVERSATION_TOOL_CALLS.name:
            self.tool_calls += int(held.series.reached) - int(before)
        measure = conversation_measure(point.metric.name, attributes)
        if measure is not None:
            steps = held.series.place(point, quarter_of(point.time, received), before)
            if steps:
                self.grown.append(Growth(instance, attributes, measure, steps))

    def _begin(
        self,
        of_metric: dict[SeriesKey, HeldSeries],
        key: SeriesKey,
        point: Point,
        instance: Instance,
        received: int,
    ) -> HeldSeries | None:
        """A new series, or one that takes the place of what its slot said; None where the point is not news."""
        held = of_metric.get(key)
        if point.value is None or (held is not None and not is_newer(point.time, held.series.time, received)):
            return None
        if held is None:
            if len(of_metric) >= _SERIES_LIMIT:
                self.left_out += 1
                return None
            self.weight += weigh(key[1])
        series = begin(point, point.value, instance.named, received)
        begun = ProcessSeries(instance.key, series, (), NEVER if held is None else held.heard)
        of_metric[key] = begun
        return begun

    def held_by(self) -> list[tuple[str, float, float]]:
        """Each process, since when and until when it spoke (unix seconds)."""
        spans: dict[str, tuple[int, int]] = {}
        for _, held in self.each():
            since, until = spans.get(held.process, (held.series.time, 0))
            spans[held.process] = min(since, held.series.start or since), max(until, held.series.time)
        return [(process, since / 1e9, until / 1e9) for process, (since, until) in spans.items()]

    def records(self) -> list[list[Any]]:
        """What the archive keeps."""
        return [
            [process, name, held.attributes, bool(key_attributes), held.heard, held.series.record()]
            for name, of_metric in self._by_metric.items()
            for (process, key_attributes), held in of_metric.items()
        ]

    def restore(self, records: list[list[Any]], taken_up: Mapping[str, list[int]] | None, received: int) -> None:
        """The opposite; ``received`` is when something last arrived, ``taken_up`` None in archives of before."""
        for process, name, pairs, *row in records:
            attributes = tuple((str(key), item) for key, item in pairs)
            # A collector of before took numbers that no sum can hold, and names that are none of ours any more.
            if name not in INFOS or (len(row) > 3 and out_of_range(INFOS[name], row[3])):
                continue
            if len(row) == 3:
                keyed, (live, at), series_record = row
                held = ProcessSeries(process, series_from_record(series_record), attributes, (live, at))
            else:
                keyed, held = _before(process, name, attributes, row, received)
            key_attributes = attributes if keyed else ()
            self._by_metric.setdefault(name, {})[process, key_attributes] = held
            self.weight += weigh(key_attributes)
        known = taken_up or self._taken_up_before(received)
        self.taken_up = {process: (live, at) for process, (live, at) in known.items()}

    def _taken_up_before(self, received: int) -> dict[str, list[int]]:
        """What an archive that does not say it had to go by."""
        begun: dict[str, list[int]] = {}
        for name, held in self.each():
            if name in LASTING:
                at = min(held.series.start or held.series.time, received)
                begun[held.process] = max(begun.get(held.process, [1, 0]), [1, at])
        return begun


def _before(process: str, name: str, attributes: Attributes, row: list[Any], received: int) -> tuple[bool, HeldSeries]:
    """A series as archives had it that knew but the senders' clocks."""
    start, time, base, value, ended, keyed = row
    series = series_before(INFOS[name].accumulates, start, time, base, value, ended)
    return keyed, ProcessSeries(process, series, attributes, (1, min(time, received)))
