"""What each fleet metric that is no histogram stands at: read from the ledger, from the plugin itself, from settings.

Nothing is kept here, so there is one truth, and a forked child starts from 0. Attributes come from small sets; what the
ledger's cap keeps out stands under ``otel.metric.overflow``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from openhands_otel import semconv
from openhands_otel._internal.exact import Number
from openhands_otel._internal.ledger.intake import Intake
from openhands_otel._internal.ledger.ledger import FLEET_METRICS, Ledger
from openhands_otel._internal.metrics.points import SentAttributes, SentSeries, fleet_labels
from openhands_otel._internal.metrics.self_observation import SELF_OBSERVATION, SelfObservation
from openhands_otel.semconv import BudgetScope, Metric

_RUNNING: dict[Metric, Callable[[Ledger], int]] = {
    semconv.ACTIVE_CONVERSATIONS: lambda ledger: len(ledger.runs_running),
    semconv.ACTIVE_CALLS: lambda ledger: len(ledger.calls_running),
    semconv.ACTIVE_TOOLS: lambda ledger: len(ledger.tools_running),
}
READ_METRICS = (*FLEET_METRICS, *SELF_OBSERVATION, *_RUNNING, semconv.BUDGET)


class FleetReadings:
    """Reads the pipelines that it is fed by, one after the other in this process."""

    def __init__(self, budgets: Mapping[BudgetScope, float], for_flusher: bool = False) -> None:
        self._budgets = budgets
        self._for_flusher = for_flusher
        """Whether it is the flusher that reads, which may stop where it does."""
        self._intakes: tuple[Intake, ...] = ()
        self._observation: SelfObservation | None = None

    def feed(self, intake: Intake, observation: SelfObservation, start_over: bool = False) -> None:
        """Say from now on what ``intake`` holds, on top of what was said before (unless ``start_over``)."""
        self._intakes = (intake,) if start_over else (*self._intakes, intake)
        self._observation = observation

    def read(self) -> Iterator[tuple[SentSeries, Number]]:
        """All of them."""
        for metric in READ_METRICS:
            for labels, value in self.of(metric):
                yield (metric, labels), value

    def of(self, metric: Metric) -> list[tuple[SentAttributes, Number]]:
        """Attributes and values of one metric."""
        if metric is semconv.BUDGET:
            return [(((semconv.BUDGET_SCOPE, scope.value),), limit) for scope, limit in self._budgets.items()]
        if metric in SELF_OBSERVATION:
            return self._observation.read(metric) if self._observation is not None else []
        if metric in _RUNNING:
            return [((), sum(_RUNNING[metric](ledger) for ledger in self._ledgers()))]
        totals: dict[SentAttributes, Number] = {}
        for ledger in self._ledgers():
            for key, total in ledger.fleet[metric.name].items():
                labels = fleet_labels(key)
                totals[labels] = totals.get(labels, 0) + (total if metric.unit == semconv.USD else round(total))
        return list(totals.items())

    def _ledgers(self) -> Iterator[Ledger]:
        for intake in self._intakes:
            with intake.lock:
                intake.drain(self._for_flusher)
                yield intake.ledger
