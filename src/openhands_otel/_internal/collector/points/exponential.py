"""Exponential histograms as ones with bounds.

Their bounds are exact powers of two's roots, so those of a coarser scale are among those of a finer one: what a change
of scale leaves is no more than other bounds to add up (``Distribution.plus``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from openhands_otel._internal.collector.points.values import BUCKET_LIMIT, Distribution

_SCALES: Final = range(-10, 21)
_TOO_LARGE_EXPONENT: Final = 1024


@dataclass(frozen=True, slots=True)
class Exponential:
    """One side of an exponential histogram: bucket ``i`` reaches from base**(offset + i) to base times as much."""

    offset: int
    counts: Sequence[int]


def from_exponential(
    count: int,
    total: float,
    scale: int,
    zeros: int,
    zero_threshold: float,
    positive: Exponential,
    negative: Exponential,
) -> Distribution | None:
    """An exponential histogram as one with bounds; None where it has too many buckets, or numbers that are none."""
    if len(positive.counts) + len(negative.counts) > BUCKET_LIMIT or scale not in _SCALES:
        return None
    if not 0 <= zero_threshold < math.inf:
        return None
    buckets: list[tuple[float, int]] = []
    # A value that lies on a bound is counted below it here; of negative ones an exponential histogram has it above.
    for index, held in enumerate(negative.counts, negative.offset):
        if held:
            buckets += [(-_power(index + 1, scale), 0), (-_power(index, scale), held)]
    if zeros:
        buckets += [(-zero_threshold, 0), (zero_threshold, zeros)]
    for index, held in enumerate(positive.counts, positive.offset):
        if held:
            buckets += [(_power(index, scale), 0), (_power(index + 1, scale), held)]
    merged: dict[float, int] = {}
    for bound, held in buckets:
        merged[bound] = merged.get(bound, 0) + held
    bounds = tuple(sorted(bound for bound in merged if math.isfinite(bound)))
    return Distribution(count, total, bounds, (*(merged[bound] for bound in bounds), merged.get(math.inf, 0)))


def _power(index: int, scale: int) -> float:
    exponent = math.ldexp(index, -scale)
    return 2.0**exponent if exponent < _TOO_LARGE_EXPONENT else math.inf
