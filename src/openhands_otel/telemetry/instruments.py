"""The fleet's instruments: counters that read the ledger, histograms that the flusher records.

Money and tokens are observable counters: they say what the ledger says, need no lock on the agent's thread, and start
from zero in a forked child, where synchronous ones would go on from the parent's totals. Attributes come from small
sets; what the ledger's cap keeps out stands under ``otel.metric.overflow``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

from openhands_otel import semconv
from openhands_otel.events import LatencyRecorded, Origin, TokensUsed
from openhands_otel.ledger import FLEET_METRICS, OVERFLOW_KEY, FleetKey
from openhands_otel.semconv import Metric, TokenType
from openhands_otel.telemetry.intake import Intake
from openhands_otel.telemetry.self_observation import METRICS as SELF_OBSERVATION
from openhands_otel.telemetry.self_observation import SelfObservation

Attributes = dict[str, str | bool]
Observe = Callable[[CallbackOptions], Iterable[Observation]]


def fleet_attributes(key: FleetKey) -> Attributes:
    """Attributes of one fleet series."""
    if key == OVERFLOW_KEY:
        return {semconv.METRIC_OVERFLOW: True}
    attributes: Attributes = {
        semconv.OPERATION_NAME: key.operation.value,
        semconv.PROVIDER_NAME: key.provider,
        semconv.REQUEST_MODEL: key.model,
        semconv.LLM_ROLE: key.role.value,
    }
    if key.agent:
        attributes[semconv.AGENT_NAME] = key.agent
    if key.fallback:
        attributes[semconv.LLM_FALLBACK] = True
    if key.source is not None:
        attributes[semconv.COST_SOURCE] = key.source.value
    return attributes


class FleetInstruments:
    """Instruments on one Meter, fed by the pipelines of this process that use it, one after the other."""

    def __init__(self, meter: Meter, series_limit: int) -> None:
        self._intakes: tuple[Intake, ...] = ()
        self._observation: SelfObservation | None = None
        self._histogram_keys: set[tuple[str, FleetKey]] = set()
        self._series_limit = series_limit
        for metric in FLEET_METRICS:
            meter.create_observable_counter(metric.name, [self._totals_of(metric)], metric.unit, metric.description)
        for metric in SELF_OBSERVATION:
            meter.create_observable_counter(metric.name, [self._about(metric)], metric.unit, metric.description)
        self._tokens = _histogram(meter, semconv.TOKEN_USAGE)
        self._latency = _histogram(meter, semconv.RESPONSE_LATENCY)

    def feed(self, intake: Intake, observation: SelfObservation, start_over: bool = False) -> None:
        """Say from now on what ``intake`` holds, on top of what was said before (unless ``start_over``)."""
        self._intakes = (intake,) if start_over else (*self._intakes, intake)
        self._observation = observation

    def record_histograms(self) -> None:
        """Record what was taken in since the last time. For the flusher's thread only."""
        waiting = self._intakes[-1].to_record
        while waiting:
            event = waiting.popleft()
            if isinstance(event, TokensUsed):
                attributes = self._attributes(semconv.TOKEN_USAGE, event.origin)
                for kind, count in ((TokenType.INPUT, event.input), (TokenType.OUTPUT, event.output)):
                    self._tokens.record(count, attributes | {semconv.TOKEN_TYPE: kind.value})
            else:
                self._record_latency(event)

    def _record_latency(self, event: LatencyRecorded) -> None:
        self._latency.record(event.seconds, self._attributes(semconv.RESPONSE_LATENCY, event.origin))

    def _attributes(self, metric: Metric, origin: Origin) -> Attributes:
        key = FleetKey(origin.provider, origin.model, origin.operation, origin.agent, origin.role, origin.fallback)
        if (metric.name, key) not in self._histogram_keys:
            if len(self._histogram_keys) >= self._series_limit:
                if self._observation is not None:
                    self._observation.overflowed += 1
                key = OVERFLOW_KEY
            else:
                self._histogram_keys.add((metric.name, key))
        return fleet_attributes(key)

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


def _histogram(meter: Meter, metric: Metric) -> Histogram:
    return meter.create_histogram(
        metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.buckets
    )
