"""Attribute sets of histograms, and where their values go."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from opentelemetry.trace import SpanContext

from openhands_otel import semconv
from openhands_otel._internal.ledger.fleet import OVERFLOW_KEY, FleetKey, MoreAttributes
from openhands_otel._internal.metrics.points import SentAttributes, fleet_labels, spelled
from openhands_otel.semconv import Metric


class HistogramLabels(NamedTuple):
    """Attribute set of one histogram series, before it is spelled out."""

    fleet: FleetKey
    more: MoreAttributes = ()

    @property
    def spelled(self) -> SentAttributes:
        """As they leave the process."""
        return fleet_labels(self.fleet) + spelled(self.more)


OVERFLOW_LABELS = HistogramLabels(OVERFLOW_KEY)


class Histograms(Protocol):
    """Where values go; ``span`` is the one that a value came from, for an exemplar."""

    def record(self, metric: Metric, labels: HistogramLabels, amount: float, span: SpanContext | None) -> None: ...


def failed(error: str | None) -> MoreAttributes:
    """What says that something failed, and of what."""
    return ((semconv.ERROR_TYPE, error),) if error else ()
