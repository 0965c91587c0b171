"""Attribute sets of histograms, and where their values go."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from opentelemetry.trace import SpanContext

from openhands_otel import semconv
from openhands_otel._internal.ledger.fleet import OVERFLOW_KEY, Detail, FleetKey
from openhands_otel._internal.metrics.points import Labels as Spelled
from openhands_otel._internal.metrics.points import fleet_labels, spelled
from openhands_otel.semconv import Metric


class Labels(NamedTuple):
    """Attribute set of one histogram series, before it is spelled out."""

    fleet: FleetKey
    more: Detail = ()

    @property
    def spelled(self) -> Spelled:
        """As they leave the process."""
        return fleet_labels(self.fleet) + spelled(self.more)


OVERFLOW_LABELS = Labels(OVERFLOW_KEY)


class Histograms(Protocol):
    """Where values go; ``span`` is the one that a value came from, for an exemplar."""

    def record(self, metric: Metric, labels: Labels, amount: float, span: SpanContext | None) -> None: ...


def failed(error: str | None) -> Detail:
    """What says that something failed, and of what."""
    return ((semconv.ERROR_TYPE, error),) if error else ()
