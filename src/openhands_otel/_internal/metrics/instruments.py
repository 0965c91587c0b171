"""The fleet's instruments: counters and gauges that read the ledger, histograms that the flusher records.

Money and tokens are observable counters: they say what the ledger says, need no lock on the agent's thread, and start
from zero in a forked child, where synchronous ones would go on from the parent's totals. Attributes come from small
sets; what the ledger's cap keeps out stands under ``otel.metric.overflow``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from openhands_otel import semconv
from openhands_otel._internal.ledger.intake import Intake
from openhands_otel._internal.ledger.ledger import FLEET_METRICS, FleetKey, Ledger
from openhands_otel._internal.metrics.attributes import fleet_attributes
from openhands_otel._internal.metrics.exemplars import CounterExemplars
from openhands_otel._internal.metrics.histograms import InstrumentHistograms
from openhands_otel._internal.metrics.samples import Histograms, Sampler
from openhands_otel._internal.metrics.self_observation import METRICS as SELF_OBSERVATION
from openhands_otel._internal.metrics.self_observation import SelfObservation
from openhands_otel.semconv import BudgetScope, Metric

Observe = Callable[[CallbackOptions], Iterable[Observation]]


class FleetInstruments:
    """Instruments on one Meter, fed by the pipelines of this process that use it, one after the other."""

    def __init__(
        self,
        meter: Meter,
        series_limit: int,
        budgets: Mapping[BudgetScope, float],
        histograms: Histograms | None = None,
        exemplars: CounterExemplars | None = None,
    ) -> None:
        self._intakes: tuple[Intake, ...] = ()
        self._observation: SelfObservation | None = None
        for metric in FLEET_METRICS:
            meter.create_observable_counter(metric.name, [self._totals_of(metric)], metric.unit, metric.description)
        for metric in SELF_OBSERVATION:
            meter.create_observable_counter(metric.name, [self._about(metric)], metric.unit, metric.description)
        for metric, count in _RUNNING.items():
            meter.create_observable_up_down_counter(
                metric.name, [self._running(count)], metric.unit, metric.description
            )
        if budgets:
            limits = [Observation(limit, {semconv.BUDGET_SCOPE: scope.value}) for scope, limit in budgets.items()]
            meter.create_observable_gauge(
                semconv.BUDGET.name, [lambda options: limits], semconv.BUDGET.unit, semconv.BUDGET.description
            )
        self._exemplars = exemplars
        self._sampler = Sampler(histograms or InstrumentHistograms(meter, series_limit, self._overflowed))

    def feed(self, intake: Intake, observation: SelfObservation, start_over: bool = False) -> None:
        """Say from now on what ``intake`` holds, on top of what was said before (unless ``start_over``)."""
        self._intakes = (intake,) if start_over else (*self._intakes, intake)
        self._observation = observation

    def record_histograms(self) -> None:
        """Record what was taken in since the last time. For the flusher's thread only."""
        waiting = self._intakes[-1].to_record
        while waiting:
            sample, span = waiting.popleft()
            self._sampler.record(sample, span)
            if span is not None and self._exemplars is not None:
                self._exemplars.note(sample, span)

    def _overflowed(self) -> None:
        if self._observation is not None:
            self._observation.overflowed += 1

    def _totals_of(self, metric: Metric) -> Observe:
        exact_ints = metric.unit != semconv.USD

        def observe(options: CallbackOptions) -> Iterable[Observation]:
            totals: dict[FleetKey, float] = {}
            for intake in self._intakes:
                with intake.lock:
                    intake.drain()
                    for key, total in intake.ledger.fleet[metric.name].items():
                        totals[key] = totals.get(key, 0) + total
            return [
                Observation(round(total) if exact_ints else total, fleet_attributes(key))
                for key, total in totals.items()
            ]

        return observe

    def _about(self, metric: Metric) -> Observe:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            if self._observation is None:
                return []
            return [Observation(value, attributes) for value, attributes in self._observation.read(metric)]

        return observe

    def _running(self, count: Callable[[Ledger], int]) -> Observe:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            running = 0
            for intake in self._intakes:
                with intake.lock:
                    intake.drain()
                    running += count(intake.ledger)
            return [Observation(running)]

        return observe


_RUNNING: dict[Metric, Callable[[Ledger], int]] = {
    semconv.ACTIVE_CONVERSATIONS: lambda ledger: len(ledger.runs_running),
    semconv.ACTIVE_CALLS: lambda ledger: len(ledger.calls_running),
    semconv.ACTIVE_TOOLS: lambda ledger: len(ledger.tools_running),
}
