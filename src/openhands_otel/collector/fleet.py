"""What each process says of itself as a whole: its newest series, and what they add to the totals."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final

from openhands_otel import semconv
from openhands_otel.collector.decode import Instance
from openhands_otel.collector.ranges import out_of_range
from openhands_otel.collector.refusals import Refusals
from openhands_otel.collector.series import Attributes, Distribution, MetricInfo, Point, Series, Value
from openhands_otel.collector.totals import TOTAL_METRICS, BurnMeter, Group, TotalSums

SERIES_LIMIT: Final = 100_000
"""Series of all processes held at once; more are refused, those that carry money last."""
SILENT_AFTER_S: Final = 3600.0
"""A process without a word for so long (60 heartbeats) leaves memory; its record stays in the archive."""
LIVE_FOR_S: Final = 150.0
"""A process counts as live for two and a half heartbeats."""

SeriesKey = tuple[str, Attributes]
Record = dict[str, Any]
"""What the archive keeps, plain enough for JSON."""

_OWN_METRICS: Final = {
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
    series: dict[SeriesKey, Series] = field(default_factory=dict[SeriesKey, Series])

    def record(self) -> Record:
        """What must outlive this process of ours: the series that totals are made of."""
        kept = [
            [name, attributes, held.start, held.time, held.base, _plain(held.value), held.ended]
            for (name, attributes), held in self.series.items()
            if name in TOTAL_METRICS
        ]
        return {
            "key": self.instance.key,
            "service": self.instance.service,
            "resource": self.instance.resource,
            "seen": self.seen,
            "series": kept,
        }

    @classmethod
    def from_record(cls, record: Record) -> Process:
        instance = Instance(record["key"], record["service"], _attributes(record["resource"]))
        process = cls(instance, record["seen"])
        for name, attributes, start, at, base, value, ended in record["series"]:
            series = Series(start, at, _unplain(value), base, ended)
            # A collector of before took numbers that no sum can hold.
            if name in _OWN_METRICS and not out_of_range(_OWN_METRICS[name], series.value) and isfinite(series.total):
                process.series[name, _attributes(attributes)] = series
        return process


class Fleet:
    """All processes in memory, and the totals over all that ever were."""

    def __init__(self) -> None:
        self.processes: dict[str, Process] = {}
        self.metrics: dict[str, MetricInfo] = dict(_OWN_METRICS)
        self.sums = TotalSums()
        self.burn = BurnMeter(time.time())
        self.dirty: set[str] = set()
        self._series_count = 0

    def apply(self, instance: Instance, points: list[Point], now: float, refusals: Refusals) -> bool:
        """Take the points of one process; True when a total changed."""
        process = self.processes.get(instance.key)
        if process is None:
            process = self.processes[instance.key] = Process(instance, now)
        process.seen = now
        totals_changed = False
        for point in points:
            if self._apply(process, point, now, refusals) and point.metric.name in TOTAL_METRICS:
                totals_changed = True
        if totals_changed:
            self.dirty.add(instance.key)
        return totals_changed

    def _apply(self, process: Process, point: Point, now: float, refusals: Refusals) -> bool:
        name = point.metric.name
        known = self.metrics.setdefault(name, point.metric)
        if known.kind != point.metric.kind:
            refusals.add(f"{name} is a {point.metric.kind} here and a {known.kind} elsewhere")
            return False
        held = process.series.get((name, point.attributes))
        before = held.total if held else 0
        if held is None:
            held = self._new_series(process, point, refusals)
            if held is None:
                return False
        elif not held.apply(point):
            return False
        if name in TOTAL_METRICS and held.total != before:
            self.sums.replace(process.instance.service, name, point.attributes, before, held.total)
            if name == semconv.COST.name and (before or BurnMeter.is_recent(point.start, now)):
                self.burn.add(held.total - before, now)
        return True

    def _new_series(self, process: Process, point: Point, refusals: Refusals) -> Series | None:
        if point.value is None:
            return None
        if self._series_count >= SERIES_LIMIT and point.metric.name not in TOTAL_METRICS:
            refusals.add(f"{SERIES_LIMIT} series are held already")
            return None
        self._series_count += 1
        held = process.series[point.metric.name, point.attributes] = Series(point.start, point.time, point.value)
        return held

    def live_processes(self, now: float) -> int:
        return sum(process.seen > now - LIVE_FOR_S for process in self.processes.values())

    def silent(self, now: float, limit: int) -> list[str]:
        """Processes that may leave memory: the long silent ones, and of too many the longest silent."""
        by_age = sorted(self.processes.values(), key=lambda process: process.seen)
        surplus = len(by_age) - limit
        return [
            process.instance.key
            for index, process in enumerate(by_age)
            if process.seen < now - SILENT_AFTER_S or (index < surplus and process.seen < now - LIVE_FOR_S)
        ]

    def admit(self, process: Process) -> None:
        """Take a process back into memory; the totals have it already."""
        self._series_count += len(process.series)
        self.processes[process.instance.key] = process

    def drop(self, key: str) -> Process:
        """Out of memory, not out of the totals."""
        process = self.processes.pop(key)
        self._series_count -= len(process.series)
        self.dirty.discard(key)
        return process

    def absent_totals(self) -> list[tuple[Group, list[float]]]:
        """The sums of all processes that are not in memory."""
        rest = self.sums.copy()
        for process in self.processes.values():
            for (name, attributes), held in process.series.items():
                if name in TOTAL_METRICS:
                    rest.replace(process.instance.service, name, attributes, held.total, 0.0)
        return [(group, partials) for group, partials in rest.groups() if any(partials)]


def _plain(value: Value) -> Any:
    if isinstance(value, Distribution):
        return [value.count, value.sum, value.bounds, value.counts]
    return value


def _unplain(value: Any) -> Value:
    if isinstance(value, list):
        count, total, bounds, counts = value  # pyright: ignore[reportUnknownVariableType]
        return Distribution(count, total, tuple(bounds), tuple(counts))  # pyright: ignore[reportUnknownArgumentType]
    return value


def _attributes(pairs: list[Any]) -> Attributes:
    return tuple((str(name), value) for name, value in pairs)
