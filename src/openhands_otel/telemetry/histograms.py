"""The fleet's histograms: what each event is a value of, and with which attributes.

They are synchronous instruments, recorded by the flusher alone. A cap bounds the attribute sets of each, as the ledger
does for the counters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from opentelemetry.metrics import Histogram, Meter

from openhands_otel import semconv
from openhands_otel.account import RunRecord
from openhands_otel.events import FirstChunk, LatencyRecorded, LLMCallEnded, Origin, TokensUsed, ToolEnded
from openhands_otel.ledger import fleet_key
from openhands_otel.semconv import Metric, Role, TokenType
from openhands_otel.telemetry.attributes import OVERFLOW, Attributes, fleet_attributes
from openhands_otel.telemetry.intake import Sample

METRICS = (
    semconv.TOKEN_USAGE,
    semconv.RESPONSE_LATENCY,
    semconv.OPERATION_DURATION,
    semconv.TIME_TO_FIRST_CHUNK,
    semconv.TOOL_DURATION,
    semconv.RUN_DURATION,
    semconv.RUN_CALLS,
    semconv.RUN_TOOL_CALLS,
    semconv.RUN_COST,
    semconv.CONTEXT_UTILIZATION,
)


@dataclass(frozen=True, slots=True)
class Value:
    """One value of one histogram."""

    metric: Metric
    amount: float
    attributes: Attributes


class FleetHistograms:
    """The histograms on one Meter."""

    def __init__(self, meter: Meter, series_limit: int, on_overflow: Callable[[], None]) -> None:
        self._histograms: dict[str, Histogram] = {metric.name: _create(meter, metric) for metric in METRICS}
        self._known: dict[str, set[frozenset[tuple[str, str | bool]]]] = {metric.name: set() for metric in METRICS}
        self._series_limit = series_limit
        self._on_overflow = on_overflow

    def record(self, sample: Sample) -> None:
        """Record what ``sample`` is a value of."""
        for value in _values_of(sample):
            self._histograms[value.metric.name].record(value.amount, self._within_cap(value))

    def _within_cap(self, value: Value) -> Attributes:
        known = self._known[value.metric.name]
        key = frozenset(value.attributes.items())
        if key not in known:
            if len(known) >= self._series_limit:
                self._on_overflow()
                return OVERFLOW
            known.add(key)
        return value.attributes


def _values_of(sample: Sample) -> Iterator[Value]:
    match sample:
        case TokensUsed():
            yield from _tokens(sample)
        case LatencyRecorded():
            yield Value(semconv.RESPONSE_LATENCY, sample.seconds, _of(sample.origin))
        case LLMCallEnded():
            if sample.seconds is not None:
                failed: Attributes = {semconv.ERROR_TYPE: sample.error} if sample.error else {}
                yield Value(semconv.OPERATION_DURATION, sample.seconds, _of(sample.origin) | failed)
        case FirstChunk():
            yield Value(semconv.TIME_TO_FIRST_CHUNK, sample.seconds, _of(sample.origin))
        case ToolEnded():
            yield from _tool(sample)
        case RunRecord():
            yield from _run(sample)


def _tokens(used: TokensUsed) -> Iterator[Value]:
    attributes = _of(used.origin)
    for kind, count in ((TokenType.INPUT, used.input), (TokenType.OUTPUT, used.output)):
        yield Value(semconv.TOKEN_USAGE, count, attributes | {semconv.TOKEN_TYPE: kind.value})
    if used.context_window and used.origin.role in (Role.AGENT, Role.SUBAGENT, Role.ACP):
        yield Value(semconv.CONTEXT_UTILIZATION, (used.input + used.output) / used.context_window, attributes)


def _tool(ended: ToolEnded) -> Iterator[Value]:
    if ended.seconds is None:
        return
    attributes: Attributes = {semconv.TOOL_NAME: ended.tool, semconv.TOOL_OUTCOME: ended.outcome.value}
    if ended.agent:
        attributes[semconv.AGENT_NAME] = ended.agent
    if ended.error:
        attributes[semconv.ERROR_TYPE] = ended.error
    yield Value(semconv.TOOL_DURATION, ended.seconds, attributes)


def _run(run: RunRecord) -> Iterator[Value]:
    if run.ended.seconds is None:
        return
    attributes: Attributes = {semconv.RUN_OUTCOME: run.ended.outcome.value}
    if run.ended.agent:
        attributes[semconv.AGENT_NAME] = run.ended.agent
    if run.ended.error:
        attributes[semconv.ERROR_TYPE] = run.ended.error
    yield Value(semconv.RUN_DURATION, run.ended.seconds, attributes)
    yield Value(semconv.RUN_CALLS, run.calls, attributes)
    yield Value(semconv.RUN_TOOL_CALLS, run.tool_calls, attributes)
    yield Value(semconv.RUN_COST, run.cost, attributes)


def _of(origin: Origin) -> Attributes:
    return fleet_attributes(fleet_key(origin))


def _create(meter: Meter, metric: Metric) -> Histogram:
    return meter.create_histogram(
        metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.buckets
    )
