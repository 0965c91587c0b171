"""The fleet's instruments on meter providers of applications, made once for each provider.

Money and tokens are observable counters: they say what the ledger says, need no lock on the agent's thread, and start
from 0 in a forked child, where synchronous ones would go on from the parent's totals.

A provider gives no instrument back: asked for one of a known name it answers with the first one and forgets the new
callbacks. So the instruments stay, and a pipeline that comes later (after ``uninstrument``, in a forked child) feeds
the ones that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from weakref import WeakKeyDictionary

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

from openhands_otel import semconv
from openhands_otel._internal import fork_gate
from openhands_otel._internal.ledger.intake import Intake
from openhands_otel._internal.metrics.histogram_labels import HistogramLabels
from openhands_otel._internal.metrics.readings import READ_METRICS, FleetReadings
from openhands_otel._internal.metrics.samples import CappedSeries, Sampler, histograms_of
from openhands_otel._internal.metrics.self_observation import SelfObservation
from openhands_otel._internal.version import __version__
from openhands_otel.semconv import BudgetScope, GenAINames, Metric


class FleetInstruments:
    """Instruments on one provider, fed by the pipelines of this process that use it, one after the other."""

    def __init__(
        self, provider: MeterProvider, series_limit: int, budgets: Mapping[BudgetScope, float], names: GenAINames
    ) -> None:
        schema_url = semconv.GENAI_SCHEMA_URL if names.has_newest else None
        meter = provider.get_meter(semconv.SCOPE_FLEET, __version__, schema_url)
        make = {
            "counter": meter.create_observable_counter,
            "updowncounter": meter.create_observable_up_down_counter,
            "gauge": meter.create_observable_gauge,
        }
        self._readings = FleetReadings(budgets)
        self._observation: SelfObservation | None = None
        for metric in READ_METRICS:
            if metric is not semconv.BUDGET or budgets:
                make[metric.kind](metric.name, [self._observer(metric)], metric.unit, metric.description)
        self._histograms = {
            metric: meter.create_histogram(
                metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.buckets
            )
            for metric in histograms_of(names)
        }
        self._known = CappedSeries(series_limit, self._overflowed, lambda metric, labels: dict(labels.spelled))
        self.sampler = Sampler(self, names=names)

    def feed(self, intake: Intake, observation: SelfObservation, start_over: bool = False) -> None:
        """See ``FleetReadings.feed``."""
        self._observation = observation
        self._readings.feed(intake, observation, start_over)

    def record(self, metric: Metric, labels: HistogramLabels, amount: float, span: SpanContext | None) -> None:
        """Take one value of a histogram. For the flusher's thread only."""
        attributes = self._known.find(metric, labels)
        context = None if span is None else set_span_in_context(NonRecordingSpan(span), Context())
        with fork_gate.recordings.closed():
            self._histograms[metric].record(amount, attributes, context)

    def _overflowed(self) -> None:
        if self._observation is not None:
            self._observation.overflowed += 1

    def _observer(self, metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda options: [Observation(value, dict(labels)) for labels, value in self._readings.of(metric)]


_instruments: WeakKeyDictionary[MeterProvider, FleetInstruments] = WeakKeyDictionary()


def guest_instruments(
    provider: MeterProvider, series_limit: int, budgets: Mapping[BudgetScope, float], names: GenAINames
) -> FleetInstruments:
    """The instruments on ``provider``."""
    found = _instruments.get(provider)
    if found is None:
        found = _instruments[provider] = FleetInstruments(provider, series_limit, budgets, names)
    return found
