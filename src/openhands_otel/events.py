"""What happens in an OpenHands process, as plain frozen events: the arguments of what ``subscribe`` calls.

The hooks on OpenHands make the events, everything else only reads them. The field ``at`` is in unix nanoseconds, money
is in US dollars, durations are in seconds.

Fields:
    at: When it happened, unix nanoseconds.
    origin: Whose call it is.
    conversation_id: Id of the conversation, as text; None outside of one.
    call: Number, unique in the process, of the logical LLM call that it belongs to (None outside of one); of a tool's
        events, of the tool call.
    tool: Name of the tool in a tool's events; elsewhere the number of the tool call that began it, if one did.
    run: Number of the run, unique in the process.
    agent: Name of the agent's class.
    parent_id: Id of the conversation whose sub-agent this one is, if it is one's.
    model: Name of the model, as the LLM has it.
    provider: Provider of the model, in the GenAI conventions' words (``openai``, ``anthropic``, ...).
    usage_id: The LLM's usage id in OpenHands.
    role: Who made the call.
    fallback: Whether it is a fallback for another LLM's failed call.
    operation: What kind of call it is.
    server: Host and port of the LLM's server, where its settings name it; None elsewhere.
    labels: Names and values that ``labels()`` had set, or OPENHANDS_OTEL_SEND lets be told, sorted by name.
    amount: US dollars.
    source: Who named the price.
    recorded: US dollars that OpenHands adds to its own total.
    priced: Whether the response's price is known.
    cache_savings: US dollars that cached input would have cost more without the cache; None where prices are unknown.
    free: Who said that it costs nothing, where that is its price.
    input: Tokens of the prompt, cached ones included.
    output: Tokens of the answer, reasoning included.
    cache_read: Those of the input that were read from the provider's cache.
    cache_write: Those of the input that were written to it.
    reasoning: Those of the output that are reasoning.
    context_window: Tokens that the model takes at most; 0 where that is unknown.
    response_id: The provider's id of the response.
    response_model: Name of the model that answered, as the provider has it; None where it does not say, or where
        nobody asked for the newest GenAI names (docs/metrics.md).
    input_modalities: Of the input, how many tokens were of which modality, as far as the provider says and the newest
        names are asked for; those that are missing are of unknown modality.
    output_modalities: The same of the output.
    seconds: How long it took; None where durations are suppressed.
    error: Class of the exception, or code of the error, that ended it; None where none did.
    response: What the provider says of its response; None without one.
    id: The provider's id of it.
    finish_reasons: Why the provider ended it, one for each choice.
    chunk_seconds: From each chunk of a streamed answer to the next; empty unless the newest GenAI names are asked for.
    attempt: Number of the attempt that begins, from 2 on.
    outcome: How it ended.
    status: State of the conversation then.
    own: OpenHands' own account of the conversation then; None where it cannot be read.
    total: US dollars.
    usages: Usage ids that are in it.
    reasons: Why it may differ from the sum of the events.
    sdk_version: Release of ``openhands-sdk``.
    restored_cost: US dollars that the conversation had spent by OpenHands' own account when it was opened.
    budget: US dollars that one run may spend; None without a limit.
    trace_id: Id of the trace that the run's span belongs to, 32 hexadecimal digits; None where there is none.

Since 0.1.0.
"""

from __future__ import annotations

from dataclasses import dataclass

from openhands_otel.semconv import CostSource, Modality, Operation, Reason, Role, RunOutcome, Status, ToolOutcome

# fmt: off
__all__ = [
    "NOBODY", "UPDATES", "CallRetried", "Condensed", "ConversationClosed", "ConversationOpened", "CostAdded", "Event",
    "FirstChunk", "LLMCallEnded", "LLMCallStarted", "LatencyRecorded", "MetricsMerged", "Origin", "OwnTotal",
    "ResponseMetadata", "ResponseRecorded", "RunEnded", "RunStarted", "TokensUsed", "ToolEnded", "ToolStarted",
]
# fmt: on


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose LLM call it is: resolved once, where the call starts, and shared by all of its events.

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
    labels: tuple[tuple[str, str], ...] = ()
    server: tuple[str, int] | None = None


NOBODY = Origin()
"""Of a call about which nothing is known."""


@dataclass(frozen=True, slots=True)
class OwnTotal:
    """OpenHands' own total of a conversation, the usage ids in it, and what is known to make it differ from ours."""

    total: float
    usages: frozenset[str] = frozenset()
    reasons: frozenset[Reason] = frozenset()


@dataclass(frozen=True, slots=True)
class CostAdded:
    """``Metrics.add_cost`` was called.

    ``amount`` is what was spent, ``recorded`` what OpenHands adds to its own total. They differ only where OpenHands
    misreads the cumulative report of an ACP agent.
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

    ``input`` includes cached tokens and ``output`` includes reasoning, also where the caller counts them apart (as ACP
    agents do with cached tokens).
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
    response_model: str | None = None
    input_modalities: tuple[tuple[Modality, int], ...] = ()
    output_modalities: tuple[tuple[Modality, int], ...] = ()

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        """The five counts in the order of ``semconv.TokenType``."""
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
    """``Metrics.merge`` was called. It is announced and never counted: the cost was counted when it was added first."""

    at: int
    origin: Origin
    amount: float


@dataclass(frozen=True, slots=True)
class ResponseRecorded:
    """OpenHands has finished recording one response; ``priced`` is False where no price is known for it.

    ``cache_savings`` is how much more its input would have cost without the cache; None where prices are unknown.
    ``free`` is set where its price is zero, and names the source of that price: no CostAdded comes for it.
    """

    at: int
    origin: Origin
    priced: bool
    cache_savings: float | None
    free: CostSource | None = None


@dataclass(frozen=True, slots=True)
class LLMCallStarted:
    """A logical LLM call (retries included) begins; ``tool`` is the number of the tool call that makes it, if any."""

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
    """A logical LLM call has ended; ``error`` is the name of an exception's class, or None.

    ``seconds`` is None under ``suppress_instrumentation``.
    """

    at: int
    origin: Origin
    call: int
    error: str | None
    seconds: float | None = None
    response: ResponseMetadata | None = None
    chunk_seconds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class FirstChunk:
    """The first chunk of a streamed answer came, ``seconds`` after the logical call began."""

    at: int
    origin: Origin
    seconds: float
    call: int | None = None
    response_model: str | None = None


@dataclass(frozen=True, slots=True)
class CallRetried:
    """An LLM call is tried again, for the ``attempt``-th time in all."""

    at: int
    origin: Origin
    call: int | None = None
    attempt: int = 2


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A tool starts."""

    at: int
    conversation_id: str | None
    tool: str
    call: int
    agent: str | None = None
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ToolEnded:
    """A tool has ended, or its call was rejected, in which case it never started.

    ``error`` is the name of an exception's class, or None; ``seconds`` is None under ``suppress_instrumentation``.
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
    """A conversation was closed, or its object was collected; ``own`` as in RunEnded."""

    at: int
    conversation_id: str
    own: OwnTotal | None = None


@dataclass(frozen=True, slots=True)
class RunStarted:
    """``run`` or ``arun`` begins. ``parent_id`` is set for a sub-agent's, ``tool`` is the tool call that started it.

    ``trace_id`` is the trace of the run's span in hexadecimal digits; None where there is no span.
    """

    at: int
    conversation_id: str
    run: int = 0
    agent: str | None = None
    parent_id: str | None = None
    tool: int | None = None
    trace_id: str | None = None
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RunEnded:
    """A run has ended; ``own`` is OpenHands' own total at that moment, None if it cannot be read.

    ``error`` is the code of the error that ended it; ``seconds`` is None under ``suppress_instrumentation``.
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
"""The events that a subscriber gets by default: one for each change of a ``Metrics`` object."""
