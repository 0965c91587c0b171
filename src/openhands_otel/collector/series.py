"""One series and the rule by which points change it; sums that stay exact however often they change.

A cumulative point may arrive twice, late or out of order. The rule makes all of that harmless: only a point that is
newer than what is held counts, and a stream that starts anew (newer start time, or a counter that fell) adds to what
the ended stream had reached.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

AttributeValue = str | bool | int | float
Attributes = tuple[tuple[str, AttributeValue], ...]
"""Sorted by name, so equal sets are equal keys."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A cumulative histogram's value; ``bounds`` are upper bounds, ``counts`` has one more for what lies above."""

    count: int
    sum: float
    bounds: tuple[float, ...]
    counts: tuple[int, ...]


Value = int | float | Distribution


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What a metric is, as its sender describes it."""

    name: str
    kind: str
    unit: str
    description: str

    @property
    def accumulates(self) -> bool:
        return self.kind in {"counter", "histogram"}


@dataclass(frozen=True, slots=True)
class Point:
    """One data point; ``value`` is None where it ends the series (NoRecordedValue)."""

    metric: MetricInfo
    attributes: Attributes
    start: int
    time: int
    value: Value | None


def amount(value: Value) -> int | float:
    """What a value adds to a total: a histogram counts its observations."""
    return value.count if isinstance(value, Distribution) else value


class Series:
    """The newest value of one series of one process."""

    __slots__ = ("base", "ended", "start", "time", "value")

    def __init__(self, start: int, time: int, value: Value, base: int | float = 0, ended: bool = False) -> None:
        self.start = start
        self.time = time
        self.value = value
        self.base = base
        """What earlier streams under the same name had reached."""
        self.ended = ended

    @property
    def total(self) -> int | float:
        return self.base + amount(self.value)

    def apply(self, point: Point) -> bool:
        """Take ``point`` if it is news; False leaves everything as it was."""
        if point.metric.accumulates and point.start < self.start:
            return False
        if point.value is None:
            return self._end(point.time)
        if point.time < self.time or (point.time == self.time and not self._outranks(point)):
            return False
        began_anew = point.metric.accumulates and (point.start > self.start or amount(point.value) < amount(self.value))
        if began_anew:
            self.base += amount(self.value)
        changed = self.ended or began_anew or point.value != self.value
        self.start, self.time, self.value, self.ended = point.start, point.time, point.value, False
        return changed

    def _end(self, time: int) -> bool:
        if self.ended or time < self.time:
            return False
        self.time = time
        self.ended = True
        return True

    def _outranks(self, point: Point) -> bool:
        # Clocks are coarse: two values may carry one time. A counter only rises, so there the larger is the newer.
        if self.ended or point.value is None:
            return False
        return not point.metric.accumulates or amount(point.value) > amount(self.value)


class ExactSum:
    """A sum of floats without rounding: Shewchuk's non-overlapping partials, which take back what was added."""

    __slots__ = ("_partials",)

    def __init__(self, partials: Iterable[float] = ()) -> None:
        self._partials: list[float] = list(partials)

    def add(self, number: float) -> None:
        kept = 0
        for other in self._partials:
            large, small = (number, other) if abs(number) >= abs(other) else (other, number)
            high = large + small
            low = small - (high - large)
            if low:
                self._partials[kept] = low
                kept += 1
            number = high
        self._partials[kept:] = [number]

    @property
    def value(self) -> float:
        return math.fsum(self._partials)

    @property
    def partials(self) -> list[float]:
        return list(self._partials)
