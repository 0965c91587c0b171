"""What each event is a value of: histogram, attribute set and amount."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from opentelemetry.trace import SpanContext

from openhands_otel import semconv
from openhands_otel.account import RunRecord
from openhands_otel.events import CostAdded, FirstChunk, LatencyRecorded, LLMCallEnded, TokensUsed, ToolEnded
from openhands_otel.ledger import OVERFLOW_KEY, FleetKey, agent_key, fleet_key
from openhands_otel.semconv import Metric, Role, TokenType
from openhands_otel.telemetry.attributes import Attributes, fleet_attributes
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
AGENT_ROLES = (Role.AGENT, Role.SUBAGENT, Role.ACP)


class Labels(NamedTuple):
    """Attribute set of one histogram series, before it is spelled out."""

    fleet: FleetKey
    more: tuple[tuple[str, str], ...] = ()

    def attributes(self) -> Attributes:
        """As they leave the process."""
        return {**fleet_attributes(self.fleet), **dict(self.more)}


OVERFLOW = Labels(OVERFLOW_KEY)
_TOKEN_TYPE = {kind: ((semconv.TOKEN_TYPE, kind.value),) for kind in (TokenType.INPUT, TokenType.OUTPUT)}


class Histograms(Protocol):
    """Where values go; ``span`` is the one that a value came from, for an exemplar."""

    def record(self, metric: Metric, labels: Labels, amount: float, span: SpanContext | None) -> None: ...


def record(sample: Sample, span: SpanContext | None, histograms: Histograms) -> None:
    """Record everything that ``sample`` is a value of."""
    match sample:
        case TokensUsed():
            _tokens(sample, span, histograms)
        case LatencyRecorded():
            histograms.record(semconv.RESPONSE_LATENCY, Labels(fleet_key(sample.origin)), sample.seconds, span)
        case LLMCallEnded():
            if sample.seconds is not None:
                labels = Labels(fleet_key(sample.origin), _failed(sample.error))
                histograms.record(semconv.OPERATION_DURATION, labels, sample.seconds, span)
        case FirstChunk():
            histograms.record(semconv.TIME_TO_FIRST_CHUNK, Labels(fleet_key(sample.origin)), sample.seconds, span)
        case ToolEnded():
            _tool(sample, span, histograms)
        case RunRecord():
            _run(sample, span, histograms)
        case CostAdded():
            # Of counters alone; an exemplar may come of it.
            pass


def _tokens(used: TokensUsed, span: SpanContext | None, histograms: Histograms) -> None:
    key = fleet_key(used.origin)
    histograms.record(semconv.TOKEN_USAGE, Labels(key, _TOKEN_TYPE[TokenType.INPUT]), used.input, span)
    histograms.record(semconv.TOKEN_USAGE, Labels(key, _TOKEN_TYPE[TokenType.OUTPUT]), used.output, span)
    if used.context_window and used.origin.role in AGENT_ROLES:
        share = (used.input + used.output) / used.context_window
        histograms.record(semconv.CONTEXT_UTILIZATION, Labels(key), share, span)


def _tool(ended: ToolEnded, span: SpanContext | None, histograms: Histograms) -> None:
    if ended.seconds is None:
        return
    named = ((semconv.TOOL_NAME, ended.tool), (semconv.TOOL_OUTCOME, ended.outcome.value))
    labels = Labels(agent_key(ended.agent), (*named, *_failed(ended.error)))
    histograms.record(semconv.TOOL_DURATION, labels, ended.seconds, span)


def _run(run: RunRecord, span: SpanContext | None, histograms: Histograms) -> None:
    ended = run.ended
    if ended.seconds is None:
        return
    labels = Labels(agent_key(ended.agent), ((semconv.RUN_OUTCOME, ended.outcome.value), *_failed(ended.error)))
    histograms.record(semconv.RUN_DURATION, labels, ended.seconds, span)
    histograms.record(semconv.RUN_CALLS, labels, run.calls, span)
    histograms.record(semconv.RUN_TOOL_CALLS, labels, run.tool_calls, span)
    histograms.record(semconv.RUN_COST, labels, run.cost, span)


def _failed(error: str | None) -> tuple[tuple[str, str], ...]:
    return ((semconv.ERROR_TYPE, error),) if error else ()
