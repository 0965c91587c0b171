"""What a value may be: far beyond anything true, and far within what sums, SQLite and JSON can hold.

A value out of its range is left out at the door, and the refusal names metric, value and limit. Of our own metrics the
unit decides. Metrics of others may be any finite number: they are shown as they are, and never added up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from openhands_otel import semconv
from openhands_otel._internal.collector.points.series import MetricInfo
from openhands_otel._internal.collector.points.values import Distribution, PointValue
from openhands_otel._internal.exact import COUNT_LIMIT, INT64_MAX, MONEY_LIMIT, SECONDS_LIMIT

_BY_UNIT: Final[dict[str, float]] = {semconv.USD: MONEY_LIMIT, semconv.SECONDS: SECONDS_LIMIT}
_OWN_LIMITS: Final[dict[str, float]] = {
    metric.name: _BY_UNIT.get(metric.unit, COUNT_LIMIT)
    for metric in vars(semconv).values()
    if isinstance(metric, semconv.Metric)
}
_SIGNED: Final = frozenset({semconv.CONVERSATION_UNRECONCILED.name})
"""Gauges of ours that may be under zero."""


def out_of_range(metric: MetricInfo, value: PointValue) -> str | None:
    """Why this value cannot be one of this metric's, in words that follow its name; None if it can."""
    if isinstance(value, Distribution):
        return _histogram(metric, value)
    return _number(value, *range_of(metric), metric.unit)


def range_of(metric: MetricInfo) -> tuple[float, float | None]:
    """The least that a number of this metric may be, and how far it may be from zero; None where that is not known."""
    limit = _OWN_LIMITS.get(metric.name)
    least = -math.inf
    if metric.kind == "counter" or (limit is not None and metric.kind == "gauge" and metric.name not in _SIGNED):
        least = 0
    return least, limit


def implausible_stamp(start: int, time: int) -> str | None:
    """Why these times (unix nanoseconds) cannot be; None if they can."""
    latest = max(start, time)
    return None if latest <= INT64_MAX else f"has the time {latest}, and nanoseconds end at {INT64_MAX}"


def bad_buckets(bounds: Sequence[float]) -> str | None:
    """Why these cannot be the bounds of a histogram; None if they can."""
    if not all(math.isfinite(bound) for bound in bounds):
        return "has a bucket bound that is no finite number"
    if any(low >= high for low, high in pairwise(bounds)):
        return "has bucket bounds that do not rise"
    return None


def _number(value: float, least: float, limit: float | None, unit: str) -> str | None:
    if not math.isfinite(value):
        return f"has the value {value}, which is no finite number"
    if value < least:
        return f"has the value {_text(value)}, and at least {least} is taken"
    if limit is not None and abs(value) > limit:
        named = "" if unit == "1" else " " + unit.strip("{}")
        return f"has the value {_text(value)}, and at most {limit:g}{named} is taken"
    return None


def _histogram(metric: MetricInfo, value: Distribution) -> str | None:
    limit = _OWN_LIMITS.get(metric.name)
    if limit is not None and value.count > COUNT_LIMIT:
        return f"has the count {value.count}, and at most {COUNT_LIMIT:g} is taken"
    if value.counts and sum(value.counts) != value.count:
        return f"has the count {value.count}, and {sum(value.counts)} in its buckets"
    if why := bad_buckets(value.bounds):
        return why
    why = _number(value.sum, -math.inf if limit is None else 0, limit, metric.unit)
    return None if why is None else why.replace("the value", "the sum", 1)


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
