"""Combines what several processes report of one fact into one value, as ``Combine`` in ``facts.py`` says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from openhands_otel import semconv
from openhands_otel._internal.combining.told import ProcessSeries, ToldSeries, ToldStream
from openhands_otel._internal.facts import FACTS, Combine, Fact, Format

FactValue = str | int | float | None
_Told = ToldSeries[Any]


def combined(series: _Told) -> dict[str, Any]:
    """Fields of ``ConversationStats``, for each row of the table that has one."""
    found = dict(_UNTOLD)
    for name in series.metrics:
        for field, combine, fact in _BY_METRIC.get(name, ()):
            found[field] = combine(series, fact)
    return found


def _number(fact: Fact, number: float) -> int | float:
    return int(number) if fact.format is Format.COUNT else float(number)


def _said(fact: Fact, held: ProcessSeries[ToldStream] | None) -> FactValue:
    if held is None:
        return None
    return _number(fact, held.series.total) if fact.attribute is None else held.named(fact.attribute)


def _sum(series: _Told, fact: Fact) -> FactValue:
    values = series.totals(fact.metric)
    return sum(values) if fact.format is Format.COUNT else math.fsum(values)


def _speaker(series: _Told, fact: Fact) -> FactValue:
    state = fact.metric is semconv.CONVERSATION_STATE
    return _said(fact, series.state if state else series.spoken(fact.metric))


def _result(series: _Told, fact: Fact) -> FactValue:
    held = series.newest(fact.metric)
    return _said(fact, held) if held is not None and held.series.total == 1 else None


def _opening(series: _Told, fact: Fact) -> FactValue:
    # Later processes restored what earlier ones spent as well: the first restored least, and nothing if it began.
    opened = {held.process for held in series.of(semconv.CONVERSATION_INFO) if held.named(semconv.SDK_VERSION)}
    told = {held.process: _number(fact, held.series.total) for held in series.of(fact.metric)}
    return min((told.get(process, 0.0) for process in opened or told), default=0.0)


_COMBINE: Final[dict[Combine, Callable[[_Told, Fact], FactValue]]] = {
    Combine.SUM: _sum,
    Combine.EARLIEST: lambda series, fact: min(series.totals(fact.metric), default=None),
    Combine.LARGEST: lambda series, fact: max(series.totals(fact.metric), default=None),
    Combine.NEWEST: lambda series, fact: _said(fact, series.newest(fact.metric)),
    Combine.CURRENT: lambda series, fact: _said(fact, series.current(fact.metric)),
    Combine.SPEAKER: _speaker,
    Combine.RESULT: _result,
    Combine.OPENING: _opening,
}

_BY_METRIC: Final[dict[str, list[tuple[str, Callable[[_Told, Fact], FactValue], Fact]]]] = {}
"""Fields with how they are combined, by the metric that tells of them."""
for _fact in FACTS:
    if _fact.field is not None:
        _BY_METRIC.setdefault(_fact.metric.name, []).append((_fact.field, _COMBINE[_fact.combine], _fact))
_UNTOLD: Final = {
    field: combine(ToldSeries[Any](), fact) for facts in _BY_METRIC.values() for field, combine, fact in facts
}
"""Of a conversation of which nothing is told."""
