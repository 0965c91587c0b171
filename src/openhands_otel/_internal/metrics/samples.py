"""What each event is a value of: histogram, attribute set and amount."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from opentelemetry.trace import SpanContext

from openhands_otel import semconv
from openhands_otel._internal.exact import SECONDS_LIMIT
from openhands_otel._internal.ledger.account import RunRecord
from openhands_otel._internal.ledger.intake import Sample
from openhands_otel._internal.ledger.ledger import OVERFLOW_KEY, FleetKey, FleetKeys, agent_key
from openhands_otel._internal.metrics.attributes import Attributes, fleet_attributes, sendable
from openhands_otel.events import CostAdded, FirstChunk, LatencyRecorded, LLMCallEnded, TokensUsed, ToolEnded
from openhands_otel.semconv import Metric, Role, TokenType

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
        return fleet_attributes(self.fleet) | {name: sendable(text) for name, text in self.more}


OVERFLOW = Labels(OVERFLOW_KEY)
_TOKEN_TYPE = {kind: ((semconv.TOKEN_TYPE, kind.value),) for kind in (TokenType.INPUT, TokenType.OUTPUT)}


class Histograms(Protocol):
    """Where values go; ``span`` is the one that a value came from, for an exemplar."""

    def record(self, metric: Metric, labels: Labels, amount: float, span: SpanContext | None) -> None: ...


class Sampler:
    """Records everything that events are values of. Used by one thread at a time."""

    def __init__(self, histograms: Histograms) -> None:
        self._record = histograms.record
        self._keys = FleetKeys()

    def record(self, sample: Sample, span: SpanContext | None) -> None:
        """Record what ``sample`` is a value of; ``span`` is the one that it came from."""
        match sample:
            case TokensUsed():
                self._tokens(sample, span)
            case LatencyRecorded():
                # It comes from outside, and a sum that is no number would have the series refused from then on.
                if 0 <= sample.seconds <= SECONDS_LIMIT:
                    self._record(semconv.RESPONSE_LATENCY, Labels(self._keys.of(sample.origin)), sample.seconds, span)
            case LLMCallEnded():
                if sample.seconds is not None:
                    labels = Labels(self._keys.of(sample.origin), _failed(sample.error))
                    self._record(semconv.OPERATION_DURATION, labels, sample.seconds, span)
            case FirstChunk():
                self._record(semconv.TIME_TO_FIRST_CHUNK, Labels(self._keys.of(sample.origin)), sample.seconds, span)
            case ToolEnded():
                self._tool(sample, span)
            case RunRecord():
                self._run(sample, span)
            case CostAdded():
                # Of counters alone; an exemplar may come of it.
                pass

    def _tokens(self, used: TokensUsed, span: SpanContext | None) -> None:
        key = self._keys.of(used.origin)
        self._record(semconv.TOKEN_USAGE, Labels(key, _TOKEN_TYPE[TokenType.INPUT]), used.input, span)
        self._record(semconv.TOKEN_USAGE, Labels(key, _TOKEN_TYPE[TokenType.OUTPUT]), used.output, span)
        if used.context_window and used.origin.role in AGENT_ROLES:
            self._record(
                semconv.CONTEXT_UTILIZATION, Labels(key), (used.input + used.output) / used.context_window, span
            )

    def _tool(self, ended: ToolEnded, span: SpanContext | None) -> None:
        if ended.seconds is None:
            return
        named = ((semconv.TOOL_NAME, ended.tool), (semconv.TOOL_OUTCOME, ended.outcome.value))
        labels = Labels(agent_key(ended.agent), (*named, *_failed(ended.error)))
        self._record(semconv.TOOL_DURATION, labels, ended.seconds, span)

    def _run(self, run: RunRecord, span: SpanContext | None) -> None:
        ended = run.ended
        if ended.seconds is None:
            return
        labels = Labels(agent_key(ended.agent), ((semconv.RUN_OUTCOME, ended.outcome.value), *_failed(ended.error)))
        self._record(semconv.RUN_DURATION, labels, ended.seconds, span)
        self._record(semconv.RUN_CALLS, labels, run.calls, span)
        self._record(semconv.RUN_TOOL_CALLS, labels, run.tool_calls, span)
        self._record(semconv.RUN_COST, labels, run.cost, span)


def _failed(error: str | None) -> tuple[tuple[str, str], ...]:
    return ((semconv.ERROR_TYPE, error),) if error else ()
