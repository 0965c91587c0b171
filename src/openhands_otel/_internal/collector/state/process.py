"""One process, as the collector knows it: its newest series, its record, and what it adds to the totals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final

from openhands_otel import semconv
from openhands_otel._internal.collector.points.decode import Instance
from openhands_otel._internal.collector.points.limits import (
    weigh,
)
from openhands_otel._internal.collector.points.ranges import out_of_range
from openhands_otel._internal.collector.points.series import (
    Attributes,
    Counted,
    Exemplar,
    MetricInfo,
    Point,
    Series,
    series_before,
    series_from_record,
)
from openhands_otel._internal.collector.points.values import Distribution, PointValue, unplain
from openhands_otel._internal.collector.state.erased import Erased, Record
from openhands_otel._internal.collector.state.liveness import Pulse
from openhands_otel._internal.collector.state.placing import (
    FLEET_MEASURES,
    PROCESS_RECORDS,
    UNDATED,
    Cube,
    Place,
    RecordKey,
    Unbooked,
    place_of,
)
from openhands_otel._internal.collector.state.totals import CALLS_BEFORE, TOTAL_METRICS
from openhands_otel._internal.exact import Number
from openhands_otel._internal.spend.amounts import CALLS_FIELD, SECONDS_FIELD, Amount

MetricSeries = tuple[str, Attributes]

OWN_METRICS: Final = {
    metric.name: MetricInfo(metric.name, metric.kind, metric.unit, metric.description)
    for metric in vars(semconv).values()
    if isinstance(metric, semconv.Metric)
}


@dataclass(slots=True)
class Process:
    """One process and its newest fleet series."""

    instance: Instance
    seen: float
    """When something of it last arrived, unix seconds by the collector's clock."""
    series: dict[MetricSeries, Series] = field(default_factory=dict[MetricSeries, Series])
    counts_calls: bool = False
    """Whether it has a counter of its calls, so that nothing else may stand for them."""
    pulse: Pulse = field(default_factory=Pulse)
    own_series: int = 0
    """How many of its series totals are made of."""
    sharing: dict[str, int | float] = field(default_factory=dict[str, "int | float"])
    """Streams beyond the limit, which share a series (sharing.py)."""
    erased: Erased = field(default_factory=Erased)
    """Series that are forgotten and have not spoken since."""
    exemplars: dict[MetricSeries, Exemplar] = field(default_factory=dict[MetricSeries, Exemplar])
    """The newest of each series that has one."""
    own_weight: int = 0
    foreign_weight: int = 0
    """Bytes that all of this takes, about."""

    @property
    def key(self) -> RecordKey:
        """Of its record."""
        return PROCESS_RECORDS, self.instance.key

    def place(self, attributes: Attributes) -> Place:
        """Where the spend of one of its series belongs."""
        return place_of(Cube.FLEET, "", self.instance.resource, self.instance.service, attributes)

    def hold(self, name: str, attributes: Attributes, series: Series) -> None:
        """Take a series in."""
        self.series[name, attributes] = series
        if adds_up(name, attributes):
            self.own_series += 1
            self.own_weight += weigh(attributes)
        else:
            self.foreign_weight += weigh(attributes)

    def find(self, name: str, attributes: Attributes) -> Series | None:
        """One of its series, if it has told of that, or had before it was forgotten."""
        held = self.series.get((name, attributes))
        if held is None and (held := self.erased.take(name, attributes)) is not None:
            self.hold(name, attributes, held)
        return held

    def grows(self, points: Iterable[Point], now: int) -> bool:
        """Whether some points tell of more than is forgotten of it."""
        known = ((point, (point.metric.name, point.attributes)) for point in points if point.scope is None)
        return self.erased.grows(((point, names) for point, names in known if adds_up(*names)), now)

    def contributions(self) -> Iterator[tuple[str, Attributes, int | float]]:
        """What it adds to the totals."""
        for (name, attributes), held in self.series.items():
            if adds_up(name, attributes) and not (self.counts_calls and name == CALLS_BEFORE):
                yield name, attributes, held.total

    def book_undated(self, unbooked: Unbooked) -> None:
        """Book all that totals are made of, without a date."""
        for (name, attributes), held in self.series.items():
            if adds_up(name, attributes):
                self.count(unbooked.amount(self.key, UNDATED, self.place(attributes)), name, 0, held.total)
                if held.total:
                    unbooked.amount(self.key, UNDATED, self.place(attributes)).grow(
                        SECONDS_FIELD, 0.0, sum_of(held.value)
                    )

    def count(self, spent: Amount, name: str, low: Number, high: Number) -> None:
        """Add what one of its series went through to an amount; seconds apart."""
        if name in FLEET_MEASURES:
            spent.grow(FLEET_MEASURES[name], low, high)
        elif not self.counts_calls:
            spent.grow(CALLS_FIELD, low, high)

    def record(self) -> Record:
        """What must outlive this process of ours: the series that totals are made of."""
        return {
            "key": self.instance.key,
            "service": self.instance.service,
            "resource": self.instance.resource,
            "seen": self.seen,
            "pulse": self.pulse.record(),
            "series": [
                [name, attributes, held.record()]
                for (name, attributes), held in self.series.items()
                if adds_up(name, attributes)
            ],
            **({"sharing": self.sharing} if self.sharing else {}),
            **({"erased": erased} if (erased := self.erased.record()) else {}),
            **({"counts_calls": True} if erased and self.counts_calls else {}),
        }

    @classmethod
    def forgotten(cls, instance: Instance, record: Record) -> Process:
        """One that speaks again, by what stands for it."""
        process = cls(instance, 0.0, own_weight=weigh(instance.resource), sharing=dict(record.get("sharing", {})))
        process.erased = Erased.from_record(record)
        process.counts_calls = record.get("counts_calls", False)
        return process

    def forget(self, salt: str, matches: Callable[[Attributes, Series], bool]) -> None:
        """Forget series: of those that totals are made of a hash and what they had reached stays."""
        self.erased.salt = salt
        for (name, attributes), held in list(self.series.items()):
            if matches(attributes, held):
                del self.series[name, attributes]
                if isinstance(held, Counted):
                    self.erased.put(held, name, attributes)

    def remains(self) -> Record:
        """What stands for it once all of it is forgotten."""
        return {"counts_calls": self.counts_calls, "sharing": self.sharing, **self.erased.record()}

    @classmethod
    def from_record(cls, record: Record) -> Process:
        instance = Instance(record["key"], record["service"], _attributes(record["resource"]))
        process = cls(instance, record["seen"], sharing=dict(record.get("sharing", {})))
        process.erased = Erased.from_record(record.get("erased", {}))
        process.counts_calls = record.get("counts_calls", False)
        if "pulse" in record:
            process.pulse = Pulse.from_record(record["pulse"])
        for name, attributes, *held in record["series"]:
            if name not in TOTAL_METRICS:
                continue
            series = series_from_record(held[0]) if len(held) == 1 else _series_before(name, held)
            if series is not None:
                process.hold(name, _attributes(attributes), series)
                process.counts_calls |= name == semconv.CALLS.name
        return process


def adds_up(name: str, attributes: Attributes) -> bool:
    """Whether a series is part of the totals: one of ours, and not another's under a name of ours."""
    return name in TOTAL_METRICS and all(key != semconv.SCOPE_NAME for key, _ in attributes)


def sum_of(value: PointValue) -> float:
    """What a histogram adds up to; of a number there is none."""
    return value.sum if isinstance(value, Distribution) else 0.0


def _series_before(name: str, row: list[Any]) -> Series | None:
    """A series as archives of before have it; they took numbers that no sum can hold."""
    start, at, base, held, ended = row
    value = unplain(held)
    if out_of_range(OWN_METRICS[name], value) or not isfinite(base):
        return None
    return series_before(True, start, at, base, value, ended)


def _attributes(pairs: list[Any]) -> Attributes:
    return tuple((str(name), value) for name, value in pairs)
