"""The values of one histogram series, counted in buckets: fixed ones, or exponential ones that grow with what comes.

The flusher records 2,000 calls a second of a busy server; an instrument of the SDK takes eight times as long for a
value.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from typing import Any, Self

MOST_BUCKETS, FINEST_SCALE = 160, 20
"""What the SDK's exponential histograms begin with, too."""


class BucketCounts:
    """What both kinds have in common. Nothing that is recorded here can be below 0."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self._least, self._greatest = math.inf, -math.inf

    def add(self, amount: float) -> None:
        """Take one value."""
        self.count += 1
        self.total += amount
        if amount < self._least:
            self._least = amount
        if amount > self._greatest:
            self._greatest = amount
        self._put(amount)

    def _put(self, amount: float) -> None:
        """Count it in its bucket."""
        raise NotImplementedError

    def write(self, point: Any) -> None:
        """Put it into a point of OTLP."""
        point.count = self.count
        point.sum = self.total
        if self._least <= self._greatest:
            point.min, point.max = self._least, self._greatest

    def empty(self) -> Self:
        """One of the same kind without a value."""
        raise NotImplementedError

    def copy(self) -> Self:
        """As it is now."""
        copy = self.less(self.empty())
        copy._least, copy._greatest = self._least, self._greatest
        return copy

    def less(self, before: Any) -> Self:
        """What it has grown by since ``before``, one of its kind. The least and the greatest of it nobody knows."""
        rest = self.empty()
        rest.count, rest.total = self.count - before.count, self.total - before.total
        return rest


class ExplicitBuckets(BucketCounts):
    """Buckets with fixed upper bounds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        super().__init__()
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)

    def _put(self, amount: float) -> None:
        self._counts[bisect_left(self._bounds, amount)] += 1

    def write(self, point: Any) -> None:
        super().write(point)
        point.explicit_bounds.extend(self._bounds)
        point.bucket_counts.extend(self._counts)

    def empty(self) -> Self:
        return type(self)(self._bounds)

    def less(self, before: Any) -> Self:
        rest = super().less(before)
        rest._counts = [now - then for now, then in zip(self._counts, before._counts, strict=True)]
        return rest


class ExponentialBuckets(BucketCounts):
    """Bucket ``i`` takes what is above ``2 ** (i * 2 ** -scale)``, up to the same of ``i + 1``.

    The scale becomes coarser, and never finer, so that no more than ``MOST_BUCKETS`` are needed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = FINEST_SCALE
        self._zeros = 0
        self._counts: Counter[int] = Counter()

    def _put(self, amount: float) -> None:
        if amount <= 0:
            self._zeros += 1
            return
        index = self._index(amount)
        is_known = index in self._counts
        self._counts[index] += 1
        if is_known:
            return
        low, high = min(self._counts), max(self._counts)
        coarser = 0
        while (high >> coarser) - (low >> coarser) >= MOST_BUCKETS:
            coarser += 1
        if coarser:
            self._counts = self._coarser(coarser)
            self.scale -= coarser

    def write(self, point: Any) -> None:
        super().write(point)
        point.scale, point.zero_count = self.scale, self._zeros
        if self._counts:
            low, high = min(self._counts), max(self._counts)
            point.positive.offset = low
            point.positive.bucket_counts.extend(self._counts[index] for index in range(low, high + 1))

    def empty(self) -> Self:
        empty = type(self)()
        empty.scale = self.scale
        return empty

    def less(self, before: Any) -> Self:
        rest = super().less(before)
        rest._zeros = self._zeros - before._zeros
        rest._counts = self._counts - before._coarser(before.scale - self.scale)
        return rest

    def _index(self, amount: float) -> int:
        mantissa, exponent = math.frexp(amount)
        below = exponent - 1 - (mantissa == 0.5)
        """Of the power of two below; a power itself lies in the bucket that ends with it."""
        if self.scale <= 0:
            return below >> -self.scale
        if mantissa == 0.5:
            return (below + 1 << self.scale) - 1
        # The logarithm of what is nearly a power of two may be rounded to it.
        first = exponent - 1 << self.scale
        return min(first + int(math.log2(2 * mantissa) * (1 << self.scale)), first + (1 << self.scale) - 1)

    def _coarser(self, steps: int) -> Counter[int]:
        merged: Counter[int] = Counter()
        for index, count in self._counts.items():
            merged[index >> steps] += count
        return merged
