"""Exemplars of the fleet's counters: the newest call by which a series grew, and the span of that call.

Counters are observable here, and the SDK would give the exemplar of one the total as its value, where a reader expects
what the call cost. Those of histograms stand in ``histograms.py``. All live from one collection to the next, so there
is at most one for each series that changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.trace import SpanContext

from openhands_otel import semconv
from openhands_otel._internal.ledger.intake import Sample
from openhands_otel._internal.ledger.ledger import FleetKey, fleet_key
from openhands_otel._internal.metrics.attributes import fleet_attributes
from openhands_otel.events import CostAdded, TokensUsed
from openhands_otel.semconv import Metric, TokenType

Key = tuple[str, frozenset[tuple[str, Any]]]
"""Name and attributes of a series."""


class CounterExemplars:
    """Used by the flusher's thread alone."""

    def __init__(self) -> None:
        self._newest: dict[Key, Exemplar] = {}

    def note(self, sample: Sample, span: SpanContext) -> None:
        """Counters grew by ``sample``."""
        if not isinstance(sample, CostAdded | TokensUsed):
            return
        for metric, key, amount in _added(sample):
            exemplar = Exemplar({}, amount, sample.at, span.span_id, span.trace_id)
            self._newest[metric.name, frozenset(fleet_attributes(key).items())] = exemplar

    def take(self) -> Mapping[Key, Exemplar]:
        """What was noted since this was last called."""
        newest, self._newest = self._newest, {}
        return newest


def _added(sample: CostAdded | TokensUsed) -> Iterator[tuple[Metric, FleetKey, float]]:
    if isinstance(sample, CostAdded):
        yield semconv.COST, fleet_key(sample.origin, sample.source), sample.amount
        return
    key = fleet_key(sample.origin)
    for kind, count in zip(TokenType, sample.counts, strict=True):
        if count:
            yield semconv.TOKEN_COUNTERS[kind], key, count
