"""Values of points: numbers and histograms, and how several of them are combined into one."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final, cast

BUCKET_LIMIT: Final = 512
"""Bounds of a distribution; one that is made of several has no more either."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram's value; ``bounds`` are upper bounds, ``counts`` has one more for what lies above (or is empty)."""

    count: int
    sum: float
    bounds: tuple[float, ...]
    counts: tuple[int, ...]

    def plus(self, other: Distribution) -> Distribution:
        """Both together, with every bound at which both can be counted exactly."""
        count, total = self.count + other.count, self.sum + other.sum
        if not self.counts or not other.counts:
            whole = self if not other.count else other if not self.count else None
            return Distribution(count, total, *((), ()) if whole is None else (whole.bounds, whole.counts))
        if self.bounds == other.bounds:
            added = tuple(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True))
            return Distribution(count, total, self.bounds, added)
        merged: dict[float, int] = {}
        for bound in sorted({*self.bounds, *other.bounds}):
            mine, theirs = self._up_to(bound), other._up_to(bound)
            if mine is not None and theirs is not None:
                merged[bound] = mine + theirs
        bounds = tuple(merged)[:BUCKET_LIMIT]
        cumulative = [*(merged[bound] for bound in bounds), sum(self.counts) + sum(other.counts)]
        return Distribution(count, total, bounds, _apart(cumulative))

    def _up_to(self, bound: float) -> int | None:
        """How many values are not above ``bound``; None where a bucket with something in it lies on both sides."""
        index = bisect_left(self.bounds, bound)
        below = sum(self.counts[:index])
        if index < len(self.bounds) and self.bounds[index] == bound:
            return below + self.counts[index]
        return None if self.counts[index] else below


def _apart(cumulative: Iterable[int]) -> tuple[int, ...]:
    counts: list[int] = []
    before = 0
    for reached in cumulative:
        counts.append(reached - before)
        before = reached
    return tuple(counts)


PointValue = int | float | Distribution


def amount(value: PointValue) -> int | float:
    """What a value adds to a total: a histogram counts its observations."""
    return value.count if isinstance(value, Distribution) else value


def combined(parts: Sequence[PointValue]) -> PointValue:
    """All of them together; they are of one kind."""
    if isinstance(parts[0], Distribution):
        return reduce(Distribution.plus, cast(Sequence[Distribution], parts))
    numbers = cast(Sequence[int | float], parts)
    return sum(numbers) if all(isinstance(number, int) for number in numbers) else math.fsum(numbers)


def plain(value: PointValue) -> Any:
    """As JSON has it."""
    if isinstance(value, Distribution):
        return [value.count, value.sum, value.bounds, value.counts]
    return value


def unplain(value: Any) -> PointValue:
    """The opposite of ``plain``."""
    if isinstance(value, list):
        count, total, bounds, counts = cast(list[Any], value)
        return Distribution(count, total, tuple(bounds), tuple(counts))
    return value
