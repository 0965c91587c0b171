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
from openhands_otel.telemetry.self_observation import Read, SelfObservation

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
    """Instruments on one Meter, fed from one intake."""

    def __init__(self, meter: Meter, intake: Intake, observation: SelfObservation, series_limit: int) -> None:
        self._intake = intake
        self._histogram_keys: set[tuple[str, FleetKey]] = set()
        self._series_limit = series_limit
        self._observation = observation
        for metric in FLEET_METRICS:
            meter.create_observable_counter(metric.name, [self._totals_of(metric)], metric.unit, metric.description)
        for metric, read in observation.counters().items():
            meter.create_observable_counter(metric.name, [_observing(read)], metric.unit, metric.description)
        self._tokens = _histogram(meter, semconv.TOKEN_USAGE)
        self._latency = _histogram(meter, semconv.RESPONSE_LATENCY)

    def record_histograms(self) -> None:
        """Record what was taken in since the last time. For the flusher's thread only."""
        waiting = self._intake.to_record
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
                self._observation.overflowed += 1
                key = OVERFLOW_KEY
            else:
                self._histogram_keys.add((metric.name, key))
        return fleet_attributes(key)

    def _totals_of(self, metric: Metric) -> Observe:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            with self._intake.lock:
                self._intake.drain()
                totals = list(self._intake.ledger.fleet[metric.name].items())
            exact_ints = metric.unit != semconv.USD
            return [Observation(round(total) if exact_ints else total, fleet_attributes(key)) for key, total in totals]

        return observe


def _histogram(meter: Meter, metric: Metric) -> Histogram:
    return meter.create_histogram(
        metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.buckets
    )


def _observing(read: Read) -> Observe:
    def observe(options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, attributes) for value, attributes in read()]

    return observe
