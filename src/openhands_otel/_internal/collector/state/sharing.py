"""Series of a process beyond what is held of each: they share one, whose sum is right all the same.

Of each there is a number for its name and the largest value that came, so that a retry or a late point counts once.
"""

from __future__ import annotations

import hashlib
from typing import Final

from openhands_otel._internal.collector.points.series import Attributes, Point
from openhands_otel._internal.collector.points.values import Distribution, PointValue, amount
from openhands_otel.semconv import METRIC_OVERFLOW

SHARED: Final[Attributes] = ((METRIC_OVERFLOW, True),)
"""Attributes of the series that is shared, as the OpenTelemetry SDKs name theirs."""


def key_of(point: Point) -> str:
    """Sixteen digits for a stream: metric, attributes and start."""
    text = repr((point.metric.name, point.attributes, point.start))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def growth(known: dict[str, int | float], key: str, value: PointValue) -> int | float:
    """How much of ``value`` is new; it is known from then on."""
    before, now = known.get(key, 0), amount(value)
    if now <= before and key in known:
        return 0
    known[key] = now
    return now - before


def raised(value: PointValue | None, by: int | float, like: PointValue) -> PointValue:
    """The shared series' next value, a distribution where its metric has those."""
    reached = by if value is None else amount(value) + by
    return Distribution(int(reached), 0.0, (), ()) if isinstance(like, Distribution) else reached
