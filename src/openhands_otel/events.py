"""What happens in an OpenHands process, as plain frozen events, and the bus that hands them out.

``capture/`` makes the events, everything else only reads them. Nothing here knows OpenHands or OpenTelemetry.
Times are unix nanoseconds, money is US dollars, durations are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from openhands_otel.semconv import CostSource, Operation, Reason, Role, RunOutcome, Status, ToolOutcome

# fmt: off
__all__ = [
    "NOBODY", "UPDATES", "CallRetried", "Condensed", "ConversationClosed", "ConversationOpened", "CostAdded", "Event",
    "FirstChunk", "LLMCallEnded", "LLMCallStarted", "LatencyRecorded", "MetricsMerged", "Origin", "OwnTotal",
    "ResponseMetadata", "ResponseRecorded", "RunEnded", "RunStarted", "TokensUsed", "ToolEnded", "ToolStarted",
]
# fmt: on


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose call it is, resolved once where an LLM call starts and shared by all its events.

    ``conversation_id`` is None for a call that belongs to no conversation (a profile check, say).
    """

    conversation_id: str | None = None
    role: Role = Role.OTHER
    model: str = "unknown"
    provider: str = "unknown"
    usage_id: str | None = None
    agent: str | None = None
    parent_id: str | None = None
    fallback: bool = False
    operation: Operation = Operation.CHAT


NOBODY = Origin()


@dataclass(frozen=True, slots=True)
class OwnTotal:
    """OpenHands' own total of a conversation, the usage ids in it, and what is known to make it differ from ours."""

    total: float
    usages: frozenset[str] = frozenset()
    reasons: frozenset[Reason] = frozenset()


@dataclass(frozen=True, slots=True)
class CostAdded:
    """``Metrics.add_cost`` was called.

    ``amount`` is what was spent by that. ``recorded`` is what OpenHands adds: the same, but for ACP agents, whose
    cumulative reports it misreads in some cases (``capture/acp.py``).
    """

    at: int
    origin: Origin
    amount: float
    source: CostSource
    recorded: float
    call: int | None = None
    """Number of the logical LLM call that spent it; None outside of one, here and in the events below."""


@dataclass(frozen=True, slots=True)
class TokensUsed:
    """``Metrics.add_token_usage`` was called.

    ``input`` holds cached tokens and ``output`` holds reasoning, whatever the caller's own habit (ACP reports cached
    tokens beside the input; here they are in it).
    """

    at: int
    origin: Origin
    input: int
    output: int
    cache_read: int
    cache_write: int
    reasoning: int
    context_window: int
    response_id: str
    call: int | None = None

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        """What was used of each type, in the order of ``semconv.TokenType``."""
        return self.input, self.output, self.cache_read, self.cache_write, self.reasoning


@dataclass(frozen=True, slots=True)
class LatencyRecorded:
    """``Metrics.add_response_latency`` was called: one response of a provider."""

    at: int
    origin: Origin
    seconds: float
    response_id: str
    call: int | None = None


@dataclass(frozen=True, slots=True)
class MetricsMerged:
    """``Metrics.merge`` was called. Announced, never counted: what it adds was counted when it was spent."""

    at: int
    origin: Origin
    amount: float


@dataclass(frozen=True, slots=True)
class ResponseRecorded:
    """OpenHands has finished recording one response; ``priced`` is False when nobody knows what it cost.

    ``cache_savings`` is what its cached input would have cost more without the cache, None where prices are unknown.
    ``free`` is who said that it costs nothing, where that is its price: no CostAdded tells of it.
    """

    at: int
    origin: Origin
    priced: bool
    cache_savings: float | None
    free: CostSource | None = None


@dataclass(frozen=True, slots=True)
class LLMCallStarted:
    """A logical LLM call (retries included) begins; ``tool`` is the tool call that makes it, if one does."""

    at: int
    origin: Origin
    call: int
    tool: int | None = None


@dataclass(frozen=True, slots=True)
class ResponseMetadata:
    """What a provider says of its response, beside the content."""

    id: str | None = None
    model: str | None = None
    finish_reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LLMCallEnded:
    """It ended; ``error`` is the name of an exception's class, or None.

    ``seconds`` is None where nobody wants durations (``suppress_instrumentation``).
    """

    at: int
    origin: Origin
    call: int
    error: str | None
    seconds: float | None = None
    response: ResponseMetadata | None = None


@dataclass(frozen=True, slots=True)
class FirstChunk:
    """The first chunk of a streamed answer came, ``seconds`` after the logical call began."""

    at: int
    origin: Origin
    seconds: float
    call: int | None = None


@dataclass(frozen=True, slots=True)
class CallRetried:
    """An LLM call is tried again, for the ``attempt``-th time in all."""

    at: int
    origin: Origin
    call: int | None = None
    attempt: int = 2


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A tool begins to work."""

    at: int
    conversation_id: str | None
    tool: str
    call: int
    agent: str | None = None


@dataclass(frozen=True, slots=True)
class ToolEnded:
    """It is done; ``error`` is the name of an exception's class, or None. A call that was rejected never started.

    ``seconds`` is None where nobody wants durations.
    """

    at: int
    conversation_id: str | None
    tool: str
    call: int
    error: str | None
    outcome: ToolOutcome = ToolOutcome.OK
    seconds: float | None = None
    agent: str | None = None


@dataclass(frozen=True, slots=True)
class ConversationOpened:
    """A conversation exists in this process from now on (made, resumed or forked)."""

    at: int
    conversation_id: str
    parent_id: str | None
    agent: str
    sdk_version: str
    restored_cost: float
    budget: float | None


@dataclass(frozen=True, slots=True)
class ConversationClosed:
    """It was closed, or its object died; ``own`` as in RunEnded."""

    at: int
    conversation_id: str
    own: OwnTotal | None = None


@dataclass(frozen=True, slots=True)
class RunStarted:
    """``run`` or ``arun`` begins. ``parent_id`` is set for a sub-agent's, ``tool`` is the tool call that started it.

    ``trace_id`` is what the ledger is told of the run's span, in hexadecimal digits; None where there is none.
    """

    at: int
    conversation_id: str
    run: int = 0
    agent: str | None = None
    parent_id: str | None = None
    tool: int | None = None
    trace_id: str | None = None


@dataclass(frozen=True, slots=True)
class RunEnded:
    """It ended with this state; ``own`` is OpenHands' own account then, None if it cannot be read.

    ``error`` is the code of the error that ended it; ``seconds`` is None where nobody wants durations.
    """

    at: int
    conversation_id: str
    status: Status
    own: OwnTotal | None
    outcome: RunOutcome = RunOutcome.FINISHED
    error: str | None = None
    seconds: float | None = None
    agent: str | None = None
    run: int = 0


@dataclass(frozen=True, slots=True)
class Condensed:
    """A conversation's history was condensed."""

    at: int
    conversation_id: str | None
    agent: str | None


Event = (
    CostAdded
    | TokensUsed
    | LatencyRecorded
    | MetricsMerged
    | ResponseRecorded
    | LLMCallStarted
    | LLMCallEnded
    | FirstChunk
    | CallRetried
    | ToolStarted
    | ToolEnded
    | ConversationOpened
    | ConversationClosed
    | RunStarted
    | RunEnded
    | Condensed
)

UPDATES: tuple[type[Event], ...] = (CostAdded, TokensUsed, LatencyRecorded, MetricsMerged)
"""What a subscriber hears unless it asks for more: one event for each change of a ``Metrics`` object."""
