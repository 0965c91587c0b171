"""What viewers see, as pydantic models: shared by the collector's API and by its clients, so neither guesses.

Fields that mean what OpenHands' own ``MetricsSnapshot`` and ``TokenUsage`` mean carry their names. Money is US dollars,
``*_unix_nano`` are unix nanoseconds.

Fields:
    conversation_id: Id of the conversation, as OpenHands has it; of a history None where it is of everything.
    accumulated_cost: US dollars spent.
    accumulated_token_usage: Tokens used.
    prompt_tokens: Input, cached tokens included.
    completion_tokens: Output, reasoning included.
    cache_read_tokens: Those of the prompt that were read from a cache.
    cache_write_tokens: Those of the prompt that were written to a cache.
    reasoning_tokens: Those of the completion that are reasoning.
    context_window: Tokens that the agent's model takes at most; 0 where that is unknown.
    per_turn_token: Tokens of the agent's last turn, prompt and completion.
    llm_calls: Responses of LLMs.
    unpriced_calls: Those of them with tokens for which no price was known.
    role: Who made the calls: a value of semconv.Role.
    model: Name of the model.
    provider: Provider of the model; None where that is unknown.
    usage_id: The LLM's usage id in OpenHands; None where it has none.
    parent_id: Id of the conversation whose sub-agent this one is; None if it is no sub-agent's.
    agent: Name of the agent's class.
    sdk_version: Release of ``openhands-sdk``.
    service: ``service.name`` of the process.
    descendants: Conversations under it.
    max_budget_per_task: US dollars that one run may spend; None without a limit.
    costs: Its cost by role, model and usage id, dearest first.
    status: Its state: a value of semconv.Status.
    closed: Whether it was closed.
    started_unix_nano: When it, or the collector, began.
    received_unix_nano: When the change arrived at the collector.
    first_unix_nano: When that first happened.
    last_unix_nano: When that last happened.
    server_unix_nano: The collector's clock.
    per_minute: US dollars a minute.
    per_hour: US dollars an hour.
    window_s: Over how many seconds that was measured.
    cache_savings: US dollars that cached input would have cost more without the cache.
    burn: How fast money goes now.
    conversations_running: Conversations that run now.
    conversations_open: Conversations that are not closed and whose process is there.
    conversations_seen: Conversations ever seen.
    processes_live: Processes that are there now.
    name: Whose part it is.
    by_model: By the model's name.
    by_role: By who made the call.
    by_provider: By the model's provider.
    by_agent: By the agent's class.
    by_service: By ``service.name``.
    reason: Why, in words.
    points: Data points; of a history, the values of each bucket.
    requests: Requests.
    refused_requests: Requests that were refused as a whole.
    refused_points: Points that were refused.
    spans: Spans that came.
    log_records: Log records, which are counted and not kept.
    viewers: Streams that are open now.
    database: Path of the database; None where everything is in memory.
    history_error: Why there is no history, where there is none.
    totals: Everything spent.
    conversations: All conversations in memory, latest change first.
    conversation: Its whole state.
    receiver: What the collector did.
    state: Everything that the collector holds.
    version: Release of the collector.
    trace_id: Id of its trace, hexadecimal.
    span_id: Id of its span, hexadecimal.
    tokens: What it used.
    retries: Attempts after the first.
    cost: US dollars; None where no span names any.
    error_type: The class or code of the error that it ended in.
    calls: The page's.
    rows: The page's.
    depth: How far below the top it stands.
    unix_nano: When it happened.
    begun_unix_nano: When it began.
    ended_unix_nano: When it ended.
    status_message: What its maker says of how it ended.
    attributes: By name, whatever they are.
    events: What happened within it.
    resource: Which process it is of.
    unix_s: Begin of the bucket, unix seconds.
    bucket_s: Length of a bucket, seconds.

Since 0.1.0.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, JsonValue

# fmt: off
__all__ = [
    "Breakdown", "Budget", "BurnRate", "Call", "Calls", "ChangesUpdate", "ConversationRun", "ConversationStats",
    "ConversationUpdate", "CostShare", "Glance", "History", "HistoryPoint", "Latency", "ModelCalls", "Presence",
    "ReceiverStats", "Refusal", "RemovedUpdate", "Share", "SnapshotUpdate", "SpanDetails", "SpanEvent", "Spend",
    "SpendGroup", "State", "Timeline", "TimelineRow", "TokenUsage", "Totals", "TotalsUpdate", "Update",
    "UsageMetrics",
]
# fmt: on


class _Model(BaseModel, frozen=True, extra="ignore", protected_namespaces=()):
    """Unknown fields are ignored, so an older client reads a newer collector."""


class TokenUsage(_Model, frozen=True):
    """Tokens by kind. Cache reads and writes are part of the prompt, reasoning is part of the completion."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    context_window: int = 0
    per_turn_token: int = 0


class CostShare(_Model, frozen=True):
    """Part of a conversation's cost: one role, model and usage id."""

    role: str
    model: str
    usage_id: str | None = None
    accumulated_cost: float = 0.0


class ModelCalls(_Model, frozen=True):
    """Part of a conversation's calls: those to one model at one provider, whether or not a price is known."""

    model: str
    provider: str | None = None
    llm_calls: int = 0
    unpriced_calls: int = 0


class UsageMetrics(_Model, frozen=True):
    """What one usage id spent, named as OpenHands names it."""

    model_name: str = Field(default="unknown", description="The model that most was spent on.")
    accumulated_cost: float = 0.0
    accumulated_token_usage: TokenUsage = TokenUsage()


class ConversationStats(_Model, frozen=True):
    """One conversation, over all processes that worked on it; its size does not grow with the calls made."""

    conversation_id: str
    name: str | None = Field(
        default=None,
        description="What a person knows it by: its label 'name', else its title, else its automation, ACP server or "
        "service and when it began.",
    )
    title: str | None = Field(default=None, description="Where its process allows content.")
    labels: dict[str, str] = Field(
        default_factory=dict[str, str], description="Those of its processes and, over them, those of its calls."
    )
    parent_id: str | None = None
    agent: str | None = None
    sdk_version: str | None = None
    service: str | None = None
    processes: int = Field(default=1, description="Processes that worked on it and were seen here.")
    model_name: str = Field(
        default="unknown", description="The model that most was spent on; where nothing was, that is called most."
    )
    provider_name: str | None = Field(default=None, description="Whose model that is.")
    accumulated_cost: float = Field(default=0.0, description="Its own spend, without sub-agents' conversations.")
    tree_cost: float = Field(default=0.0, description="Its own spend and that of every conversation under it.")
    descendants: int = 0
    restored_cost: float = Field(default=0.0, description="What it had spent before the first process seen here.")
    max_budget_per_task: float | None = None
    unreconciled_cost: float | None = Field(default=None, description="Our total less OpenHands' own.")
    unreconciled_reasons: tuple[str, ...] = Field(default=(), description="Why they differ: values of semconv.Reason.")
    accumulated_token_usage: TokenUsage = TokenUsage()
    llm_calls: int = 0
    tool_calls: int = Field(default=0, description="Tools that it called.")
    unpriced_calls: int = Field(default=0, description="Calls with tokens for which no price was known.")
    cache_savings: float = 0.0
    llm_seconds: float = Field(default=0.0, description="How long its LLM calls took, all added up.")
    longest_call_seconds: float | None = Field(default=None, description="How long the slowest of them took.")
    first_call_unix_s: float | None = Field(default=None, description="When its first LLM call began, unix seconds.")
    last_call_unix_s: float | None = Field(default=None, description="When its last LLM call began, unix seconds.")
    calls_by_model: tuple[ModelCalls, ...] = Field(default=(), description="Most calls first; they sum to llm_calls.")
    costs: tuple[CostShare, ...] = ()
    usage_to_metrics: dict[str, UsageMetrics] = Field(
        default_factory=dict[str, UsageMetrics], description="The same by usage id, as OpenHands' own stats have it."
    )
    status: str | None = None
    outcome: str | None = Field(
        default=None, description="How its last run ended (semconv.RunOutcome), closed or not; none while another runs."
    )
    error_type: str | None = Field(default=None, description="The class or code of the error that ended it.")
    activity: str | None = Field(default=None, description="What runs now: 'llm', a tool's name, or nothing.")
    activity_since: float | None = Field(default=None, description="Since when, unix seconds.")
    closed: bool = False
    stale: bool = Field(default=False, description="Not closed, yet its process is silent, or gone.")
    gone: bool = Field(default=False, description="Its process died: the connection broke, without a farewell.")
    ended: bool = Field(default=False, description="Its process ended, and said so, without closing it.")
    started_unix_nano: int = 0
    updated_unix_nano: int = Field(default=0, description="The sender's time of the last change.")
    received_unix_nano: int = Field(default=0, description="When the last change arrived at the collector.")


class BurnRate(_Model, frozen=True):
    """How fast money goes, over the last minutes."""

    per_minute: float = 0.0
    per_hour: float = 0.0
    window_s: float = 0.0


class Totals(_Model, frozen=True):
    """Everything spent, over all processes ever seen, in conversations or not. Constant in size."""

    accumulated_cost: float = 0.0
    accumulated_token_usage: TokenUsage = TokenUsage()
    llm_calls: int = 0
    unpriced_calls: int = 0
    cache_savings: float = 0.0
    burn: BurnRate = BurnRate()
    conversations_running: int = 0
    conversations_open: int = 0
    conversations_seen: int = 0
    processes_live: int = 0
    received_unix_nano: int = Field(default=0, description="When something last arrived, heartbeats included.")


class Share(_Model, frozen=True):
    """Part of the totals: what one model, role, provider, agent or service took."""

    name: str
    accumulated_cost: float = 0.0
    accumulated_token_usage: TokenUsage = TokenUsage()
    llm_calls: int = 0
    unpriced_calls: int = 0


class Breakdown(_Model, frozen=True):
    """The totals, and whose they are; each list adds up to the totals, dearest first."""

    totals: Totals
    by_model: tuple[Share, ...] = ()
    by_role: tuple[Share, ...] = ()
    by_provider: tuple[Share, ...] = ()
    by_agent: tuple[Share, ...] = ()
    by_service: tuple[Share, ...] = ()


class Refusal(_Model, frozen=True):
    """Points or requests that were not taken: whose, why, how many."""

    service: str | None = None
    instance: str | None = Field(default=None, description="Instance id; for a whole request the sender's address.")
    reason: str
    points: int = 0
    requests: int = 0
    first_unix_nano: int = 0
    last_unix_nano: int = 0


class ReceiverStats(_Model, frozen=True):
    """What the collector did since it started."""

    started_unix_nano: int = 0
    requests: int = 0
    refused_requests: int = 0
    points: int = 0
    refused_points: int = 0
    spans: int = 0
    log_records: int = 0
    viewers: int = 0
    database: str | None = None
    shared_points: int = Field(default=0, description="Points of series that share one, as their process has too many.")
    history_error: str | None = None
    problems: tuple[str, ...] = Field(default=(), description="What does not work now, a line for each.")
    refusals: tuple[Refusal, ...] = Field(default=(), description="What was not taken, latest first.")
    assumed_restarts: int = Field(
        default=0, description="Counters that fell under no start time: taken for restarts, over all that is known."
    )


class State(_Model, frozen=True):
    """Everything the collector holds now; conversations with the latest change first."""

    totals: Totals
    conversations: tuple[ConversationStats, ...] = ()
    receiver: ReceiverStats = ReceiverStats()
    version: str = ""
    server_unix_nano: int = 0


class HistoryPoint(_Model, frozen=True):
    """Accumulated values at the end of one bucket of time."""

    unix_s: float
    accumulated_cost: float
    prompt_tokens: int = 0
    completion_tokens: int = 0
    llm_calls: int = 0


class History(_Model, frozen=True):
    """A time series of accumulated values, oldest first; of one conversation, or of everything."""

    conversation_id: str | None = None
    bucket_s: float
    before: HistoryPoint | None = Field(default=None, description="The last known values before the first bucket.")
    points: tuple[HistoryPoint, ...] = ()


class SpendGroup(_Model, frozen=True):
    """What one group of a report spent."""

    keys: dict[str, str] = Field(
        default_factory=dict[str, str], description="What the group stands for, a value for each name in Spend.by."
    )
    accumulated_cost: float = 0.0
    read_cost: float = Field(
        default=0.0, description="That part of it that was read from OpenHands' own files: a lower bound."
    )
    cache_savings: float = 0.0
    accumulated_token_usage: TokenUsage = TokenUsage()
    llm_calls: int = 0
    unpriced_calls: int = 0
    llm_seconds: float = Field(default=0.0, description="How long its LLM calls took, all added up.")
    outcome: str | None = Field(default=None, description="Of a group that is one conversation or run: how it ended.")
    name: str | None = Field(default=None, description="Of such a group: what people know its conversation by.")
    tool_calls: int | None = Field(
        default=None, description="Of conversations or runs, grouped by them alone: tools that were called there."
    )
    remainder: bool = Field(default=False, description="Whether it stands for all groups that are not shown.")


class Spend(_Model, frozen=True):
    """What was spent in a period, by what was asked for; the groups add up to the total."""

    format_version: int = Field(default=1, description="Of this shape; it grows only when a field changes its meaning.")
    timezone: str = Field(default="UTC", description="Whose days and hours the groups are.")
    since: float | None = Field(default=None, description="Begin of the period, unix seconds; None: from the first.")
    until: float | None = Field(default=None, description="End of the period, unix seconds; None: to the last.")
    by: tuple[str, ...] = Field(default=(), description="Names that it is grouped by: units of time, facts, labels.")
    groups: tuple[SpendGroup, ...] = Field(default=(), description="Time first, then dearest first.")
    total: SpendGroup = Field(default=SpendGroup(), description="All of it, whatever is shown.")
    remarks: tuple[str, ...] = Field(default=(), description="What a reader has to know of these figures, a line each.")


class ConversationRun(_Model, frozen=True):
    """One run of a conversation, as the collector heard of it."""

    conversation_id: str
    number: int = Field(description="Counted from 1 for each conversation.")
    begun: float = Field(description="Unix seconds.")
    ended: float | None = Field(default=None, description="Unix seconds; None while it goes on.")
    outcome: str | None = Field(default=None, description="How it ended: a value of semconv.RunOutcome.")
    error_type: str | None = Field(default=None, description="The class or code of the error that ended it.")
    accumulated_cost: float = 0.0
    llm_calls: int = 0
    tool_calls: int = Field(default=0, description="Tools that were called in it.")


class Call(_Model, frozen=True):
    """One LLM call as its span tells it; or the run of an ACP agent, whose calls nobody sees."""

    trace_id: str
    span_id: str
    begun: float = Field(description="Unix seconds, by its process's clock.")
    seconds: float = Field(description="How long it took, retries included.")
    is_run: bool = Field(default=False, description="Whether it is a run, whose calls are not told one by one.")
    role: str | None = None
    agent: str | None = None
    model: str | None = None
    provider: str | None = None
    usage_id: str | None = None
    cost: float | None = Field(default=None, description="US dollars; None where its span names none.")
    tokens: TokenUsage = TokenUsage()
    first_chunk_seconds: float | None = Field(default=None, description="Until the first chunk of a streamed answer.")
    retries: int = 0
    finish_reason: str | None = Field(default=None, description="Why the model stopped.")
    error_type: str | None = Field(default=None, description="The class or code of the error that it ended in.")
    has_content: bool = Field(default=False, description="Whether its span holds what was said.")
    cost_without_tokens: bool = Field(
        default=False, description="Whether its cost was recorded and its tokens were lost: doctor knows a cause."
    )


class Calls(_Model, frozen=True):
    """A page of a conversation's calls. All of them and the rest that no span tells of add up to its cost."""

    conversation_id: str
    calls: tuple[Call, ...] = ()
    count: int = Field(default=0, description="How many there are on all pages.")
    calls_cost: float = Field(default=0.0, description="What all of them cost.")
    accumulated_cost: float = Field(default=0.0, description="What it spent by its metrics, sub-agents left out.")
    llm_calls: int = Field(default=0, description="Its responses by its metrics.")
    rest_cost: float = Field(
        default=0.0, description="The difference: of calls whose spans are not here (any more), or not yet."
    )


class TimelineRow(_Model, frozen=True):
    """A line of a timeline: a span, or what runs or is missing in the place of one."""

    id: str = Field(description="Names the row within this timeline.")
    depth: int = 0
    below: int = Field(default=0, description="How many of the rows that follow stand below it.")
    kind: str = Field(description="run, call, tool, or other: a span of another instrumentation.")
    name: str
    state: str = Field(description="ended, running, or missing: its parts are here and it is not (yet).")
    begun: float = Field(description="Unix seconds.")
    ended: float | None = Field(default=None, description="Unix seconds; None while it runs.")
    trace_id: str | None = None
    span_id: str | None = None
    conversation_id: str | None = None
    service: str | None = None
    agent: str | None = None
    model: str | None = None
    role: str | None = None
    cost: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    outcome: str | None = Field(default=None, description="How a run or a tool call ended.")
    error_type: str | None = None
    has_content: bool = Field(default=False, description="Whether it holds what was said.")


class Timeline(_Model, frozen=True):
    """A page of what a conversation did, each row followed by those below it."""

    conversation_id: str
    rows: tuple[TimelineRow, ...] = ()
    count: int = Field(default=0, description="How many rows there are on all pages.")
    left_out: int = Field(default=0, description="Spans that are kept and not shown, since there are too many.")
    begun: float | None = Field(default=None, description="When the first of all rows began, unix seconds.")
    ended: float | None = Field(default=None, description="When the last ended, unix seconds; None while one runs.")
    server_unix_s: float = Field(default=0.0, description="The viewer's clock.")
    trace_url: str | None = Field(default=None, description="Where a trace can be seen: {trace_id} stands for its id.")


class SpanEvent(_Model, frozen=True):
    """Something that happened within a span."""

    unix_nano: int
    name: str
    attributes: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])


class SpanDetails(_Model, frozen=True):
    """All that is kept of one span: its content too, where it was captured."""

    trace_id: str
    span_id: str
    parent_id: str | None = None
    name: str
    service: str
    scope: str = Field(default="", description="What made it.")
    begun_unix_nano: int
    ended_unix_nano: int
    status_message: str = ""
    attributes: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    events: tuple[SpanEvent, ...] = ()
    resource: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    left_out: int = Field(default=0, description="Attributes, events and links that had no room.")
    trace_url: str | None = Field(default=None, description="Where its trace can be seen.")


class Glance(_Model, frozen=True):
    """What is to be known at a glance: the answer to ``openhands-otel status``."""

    cost_today: float = Field(description="US dollars spent today, of the viewer's time zone.")
    cost_per_hour: float = Field(description="How fast money goes now, US dollars an hour.")
    cost_total: float = Field(description="US dollars ever spent.")
    running: int = Field(description="Conversations that run now.")
    needs_you: int = Field(description="Open conversations that go on only when a person does something.")
    unix_s: float = Field(description="The viewer's clock.")


class Presence(_Model, frozen=True):
    """A stretch of time in which an instrumented process held a conversation: what it spent then is counted."""

    conversation_id: str
    since: float = Field(description="Unix seconds.")
    until: float = Field(description="Unix seconds.")
    read: bool = Field(default=False, description="Whether no process told of it: OpenHands' own files were imported.")


class Budget(_Model, frozen=True):
    """How one of the viewer's budgets stands; all amounts are US dollars.

    Custom prices in another currency are not converted: what the SDK calls a cost is taken for dollars.
    """

    name: str = Field(description="What it is called: 'day', or 'month team=payments'.")
    period: str = Field(description="'day', 'week' or 'month' of the calendar, in the viewer's zone.")
    where: str | None = Field(default=None, description="What it is for, as a condition; None for everything.")
    amount: float = Field(description="What may be spent in the period.")
    spent: float = Field(default=0.0, description="What has been.")
    since: float = Field(description="Begin of the period, unix seconds.")
    until: float = Field(description="Its end, unix seconds.")
    per_hour: float = Field(default=0.0, description="How fast money goes, over the last window_s seconds.")
    window_s: float = Field(default=0.0, description="What the rate, and all that is foreseen, is taken from.")
    projected: float = Field(default=0.0, description="What will have been spent by the end at that rate.")
    exhausted: bool = Field(default=False, description="Whether it is spent.")
    exhausted_unix_s: float | None = Field(
        default=None, description="When it will be spent at that rate; None if not within the period, or already."
    )


class Latency(_Model, frozen=True):
    """How long LLM calls of a period took, as far as their spans are kept: retries and failed calls included."""

    since: float | None = Field(default=None, description="Begin of the period, unix seconds; None for all.")
    until: float | None = Field(default=None, description="Its end, unix seconds; None for now.")
    calls: int = Field(default=0, description="Calls whose spans are kept; spend counts the others too.")
    p50: float | None = Field(default=None, description="Seconds that half of them took at most; None of no call.")
    p95: float | None = Field(default=None, description="Seconds that 95 % of them took at most.")
    longest: float | None = Field(default=None, description="Seconds that the longest took.")


class SnapshotUpdate(_Model, frozen=True):
    """The first update of a stream: everything."""

    type: Literal["snapshot"] = "snapshot"
    state: State


class ConversationUpdate(_Model, frozen=True):
    """A conversation changed: its whole state."""

    type: Literal["conversation"] = "conversation"
    received_unix_nano: int
    conversation: ConversationStats


class TotalsUpdate(_Model, frozen=True):
    """The totals changed."""

    type: Literal["totals"] = "totals"
    received_unix_nano: int
    totals: Totals
    receiver: ReceiverStats | None = Field(default=None, description="Only where there are problems or refusals.")


class RemovedUpdate(_Model, frozen=True):
    """An old conversation left the collector's memory; its money stays in the totals and it can still be asked for."""

    type: Literal["removed"] = "removed"
    conversation_id: str


class ChangesUpdate(_Model, frozen=True):
    """Fields of conversations that changed; only told to those who asked for changes."""

    type: Literal["changes"] = "changes"
    conversations: tuple[dict[str, Any], ...] = Field(
        description="Of each its conversation_id, and fields of ConversationStats with what they are now."
    )


Update = Annotated[
    SnapshotUpdate | ConversationUpdate | TotalsUpdate | RemovedUpdate,
    Field(discriminator="type"),
]
