"""Every name that leaves the process: metrics, attributes, units, buckets, and the values they may take.

Two vocabularies meet here. ``gen_ai.*`` follows the OpenTelemetry GenAI semantic conventions
(open-telemetry/semantic-conventions-genai, status Development: no package publishes its newest names yet, so they
stand here as strings), in two generations: ``GenAINames`` says which are sent. ``openhands.*`` is ours. Attributes on
fleet metrics come from small sets; ids stand only on conversation series and spans.

Since 0.1.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from openhands_otel._internal import prometheus

# fmt: off
__all__ = [
    "ACTIVE_CALLS", "ACTIVE_CONVERSATIONS", "ACTIVE_TOOLS", "AGENT_DURATION_BUCKETS", "AGENT_NAME", "AGENT_ROLES",
    "BEAT_HEADER", "BEAT_INTERVAL", "BOTH_GENAI", "BUDGET", "BUDGET_SCOPE", "CACHE_READ_TOKENS", "CACHE_SAVINGS",
    "CACHE_WRITE_TOKENS", "CALLS", "CALL_BUCKETS", "CONDENSATIONS", "CONTEXT_UTILIZATION", "CONVERSATION_ACTIVITY",
    "CONVERSATION_BUDGET", "CONVERSATION_CACHE_SAVINGS", "CONVERSATION_CALLS", "CONVERSATION_CONTEXT_LIMIT",
    "CONVERSATION_CONTEXT_TOKENS", "CONVERSATION_COST", "CONVERSATION_FIRST_CALL", "CONVERSATION_ID",
    "CONVERSATION_INFO", "CONVERSATION_LAST_CALL", "CONVERSATION_LLM_TIME", "CONVERSATION_LONGEST_CALL",
    "CONVERSATION_NOW", "CONVERSATION_OUTCOME", "CONVERSATION_PARENT_ID", "CONVERSATION_RESTORED_COST",
    "CONVERSATION_STATE", "CONVERSATION_STATUS", "CONVERSATION_TITLE", "CONVERSATION_TITLED",
    "CONVERSATION_TOKENS", "CONVERSATION_TOOL_CALLS", "CONVERSATION_TRACE_ID", "CONVERSATION_UNPRICED",
    "CONVERSATION_UNRECONCILED", "CORE_SCHEMA_URL", "COST",
    "COST_BY_CLIENT", "COST_BY_PROVIDER", "COST_SOURCE", "DEPLOYMENT_ENVIRONMENT", "DROPPED_CALLBACKS",
    "DURATION_BUCKETS", "ERROR_TYPE", "FAILED_EXPORTS", "FLUSHES", "FLUSH_TIME", "GENAI_SCHEMA_URL",
    "HEARTBEAT_INTERVAL", "HOOK_ERRORS", "HOOK_NAME", "INFERENCE_DURATION", "INFERENCE_TIME_TO_FIRST_CHUNK",
    "INPUT_TOKENS", "KEEP_ALIVE_HEADER", "LABEL_PREFIX", "LLM_ACTIVITY", "LLM_FALLBACK", "LLM_ROLE",
    "MESSAGES_LEFT_OUT", "METRIC_OVERFLOW", "MONEY_BUCKETS", "NEWEST_GENAI", "NEWEST_ONLY", "OPERATION_DURATION",
    "OPERATION_INPUT_TOKENS", "OPERATION_NAME", "OPERATION_OUTPUT_TOKENS", "OUTPUT_TOKENS", "OVERFLOW", "OVERFLOWS",
    "PINNED_INSTANCE_ID", "PROBE", "PROBE_ID", "PROVIDER_NAME", "REASONING_TOKENS", "RECONCILIATION_REASON", "RENAMED",
    "REPLAYED_HEADER", "REQUEST_MODEL", "RESPONSE_LATENCY", "RESPONSE_MODEL", "RETRIES", "RETRY_ATTEMPT", "RETRY_EVENT",
    "RUN_CALLS", "RUN_COST", "RUN_DURATION", "RUN_OUTCOME", "RUN_TOOL_CALLS", "SCOPE_CONVERSATIONS", "SCOPE_DOCTOR",
    "SCOPE_FLEET", "SCOPE_NAME", "SCOPE_PROCESS", "SCOPE_SPANS", "SDK_VERSION", "SECONDS", "SERVER_ADDRESS",
    "SERVER_PORT", "SERVICE_INSTANCE_ID", "SERVICE_NAME", "SERVICE_NAMESPACE", "SHARE_BUCKETS", "STABILITY_OPT_IN",
    "STREAM_PATIENCE", "STREAM_SILENCE_S", "STUCK_RUNS", "TIME_PER_OUTPUT_CHUNK", "TIME_TO_FIRST_CHUNK", "TODAY_ONLY",
    "TOKENS", "TOKEN_BUCKETS", "TOKEN_COUNTERS", "TOKEN_MODALITY", "TOKEN_TYPE", "TOKEN_USAGE", "TOOL_DURATION",
    "TOOL_NAME", "TOOL_OUTCOME", "UNKNOWN", "UNPRICED_CALLS", "USAGE_BY_MODALITY", "USAGE_CACHE_READ_TOKENS",
    "USAGE_CACHE_WRITE_TOKENS", "USAGE_COST", "USAGE_COST_AMOUNT", "USAGE_COST_CURRENCY", "USAGE_COST_SOURCE",
    "USAGE_ID", "USAGE_INPUT_TOKENS", "USAGE_OUTPUT_TOKENS", "USAGE_REASONING_TOKENS", "USD", "BudgetScope",
    "CostSource", "GenAINames", "Kind", "Metric", "Modality", "NoticeKind", "Operation", "Reason", "Role", "RunOutcome",
    "Status", "TokenType", "ToolOutcome", "Word", "prometheus_label",
]
# fmt: on

SCOPE_FLEET: Final = "openhands_otel"
SCOPE_SPANS: Final = "openhands_otel.spans"
SCOPE_CONVERSATIONS: Final = "openhands_otel.conversations"
SCOPE_PROCESS: Final = "openhands_otel.process"
SCOPE_DOCTOR: Final = "openhands_otel.doctor"
PROBE: Final = "openhands.doctor.probe"
"""The metric of a probe, which no total knows, and the attribute that tells it from any other."""
PROBE_ID: Final = "openhands.doctor.probe.id"
"""Scopes of their own: OTLP encoders keep only the last of two scopes with equal names."""


# ---------------------------------------------------------------- attributes

PROVIDER_NAME: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
OPERATION_NAME: Final = "gen_ai.operation.name"
AGENT_NAME: Final = "gen_ai.agent.name"
TOKEN_TYPE: Final = "gen_ai.token.type"
TOKEN_MODALITY: Final = "gen_ai.token.modality"
TOOL_NAME: Final = "gen_ai.tool.name"
RESPONSE_MODEL: Final = "gen_ai.response.model"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
ERROR_TYPE: Final = "error.type"

TOOL_OUTCOME: Final = "openhands.tool.outcome"
RUN_OUTCOME: Final = "openhands.run.outcome"
LLM_ROLE: Final = "openhands.llm.role"
LLM_FALLBACK: Final = "openhands.llm.fallback"
COST_SOURCE: Final = "openhands.cost.source"
BUDGET_SCOPE: Final = "openhands.budget.scope"
USAGE_ID: Final = "openhands.usage.id"
CONVERSATION_STATUS: Final = "openhands.conversation.status"
CONVERSATION_ACTIVITY: Final = "openhands.conversation.activity"
LLM_ACTIVITY: Final = "llm"
"""The activity of a conversation that waits for an LLM; any other is the name of a tool."""
CONVERSATION_PARENT_ID: Final = "openhands.conversation.parent.id"
CONVERSATION_TITLE: Final = "openhands.conversation.title"
CONVERSATION_TRACE_ID: Final = "openhands.conversation.trace.id"
SDK_VERSION: Final = "openhands.sdk.version"
RECONCILIATION_REASON: Final = "openhands.reconciliation.reason"
HOOK_NAME: Final = "openhands.otel.hook"
METRIC_OVERFLOW: Final = "otel.metric.overflow"
"""OpenTelemetry's own attribute (true) of the bucket that takes what a cap keeps out."""

USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
USAGE_CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
USAGE_CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
USAGE_REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
USAGE_BY_MODALITY: Final = "gen_ai.usage.{modality}.{direction}_tokens"
"""Tokens of one modality; ``direction`` is ``input`` or ``output``."""
USAGE_COST: Final = "gen_ai.usage.cost"
"""No convention has it. Back ends read this one; the three below are proposed (semantic-conventions-genai#443)."""
USAGE_COST_AMOUNT: Final = "gen_ai.usage.cost.amount"
USAGE_COST_CURRENCY: Final = "gen_ai.usage.cost.currency"
USAGE_COST_SOURCE: Final = "gen_ai.usage.cost.source"
COST_BY_PROVIDER: Final = "provider"
COST_BY_CLIENT: Final = "local"

MESSAGES_LEFT_OUT: Final = "openhands.messages.left_out"

RETRY_EVENT: Final = "openhands.llm.retry"
RETRY_ATTEMPT: Final = "openhands.llm.attempt"

STABILITY_OPT_IN: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"
"""OpenTelemetry's own variable: which generations of names are sent, of all that instruments a process."""
NEWEST_GENAI: Final = "gen_ai_latest_experimental"
"""The word in it that asks for the newest GenAI names."""
BOTH_GENAI: Final = "gen_ai_latest_experimental/dup"
"""The word that asks for both generations, as ``http/dup`` does of HTTP; it wins over the other."""
GENAI_SCHEMA_URL: Final = "https://opentelemetry.io/schemas/gen-ai/1.42.0"
"""Schema of the newest GenAI names; of scopes and spans that have them."""
CORE_SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
"""Schema of the general names that those are built on; of a Resource that says nothing else."""

SCOPE_NAME: Final = "otel.scope.name"
"""OpenTelemetry's own attribute where a scope has to be told by one."""
REPLAYED_HEADER: Final = "openhands-otel-replayed"
"""Header of HTTP requests, key of gRPC metadata: ``1`` where points are told after the event (spool, import)."""
KEEP_ALIVE_HEADER: Final = "openhands-otel-keep-alive"
"""Of an event stream: how often, seconds, something comes whatever happens."""
STREAM_PATIENCE: Final = 4.0
"""After so many times what that header says without a word, a client takes the stream for dead."""
STREAM_SILENCE_S: Final = 45.0
"""The longest that a client waits for a word, whatever the header says, seconds; earlier collectors send none."""
BEAT_HEADER: Final = "openhands-otel-beat"
"""In a viewer's answers: how often, seconds, it would like to hear of a process that has an open conversation."""

SERVICE_NAME: Final = "service.name"
SERVICE_NAMESPACE: Final = "service.namespace"
SERVICE_INSTANCE_ID: Final = "service.instance.id"
DEPLOYMENT_ENVIRONMENT: Final = "deployment.environment.name"
LABEL_PREFIX: Final = "openhands.label."
"""Before the name of a label: on the Resource what holds for the process, on points and spans what holds for a call."""
PINNED_INSTANCE_ID: Final = "openhands.service.instance.id"
"""Where an instance id that was fixed from outside goes; ours is fresh for each process (PromQL totals need that)."""


# ---------------------------------------------------------------- values


class Word(StrEnum):
    """A value of an attribute, hashed as the string that it is: Enum's own hash is a Python function."""

    __hash__ = str.__hash__


class Role(Word):
    """Who made an LLM call (``openhands.llm.role``)."""

    AGENT = "agent"
    SUBAGENT = "subagent"
    CONDENSER = "condenser"
    HOOK = "hook"
    ASK_AGENT = "ask_agent"
    TITLE = "title"
    ACP = "acp"
    OTHER = "other"


AGENT_ROLES: Final = frozenset({Role.AGENT, Role.SUBAGENT, Role.ACP})
"""Roles of a conversation's own calls, whose context is the conversation's."""


class CostSource(Word):
    """Who named the price (``openhands.cost.source``)."""

    PROVIDER = "provider"
    CUSTOM = "custom"
    PRICE_TABLE = "price_table"
    ESTIMATED = "estimated"
    """The answer did not say what was used: litellm counted the tokens itself."""
    ACP_REPORTED = "acp_reported"
    ACP_ESTIMATED = "acp_estimated"


class NoticeKind(Word):
    """What a viewer tells people who are elsewhere."""

    BUDGET = "budget"
    BURNING = "burning"
    STUCK = "stuck"
    WAITING = "waiting"
    ERROR = "error"
    UNPRICED = "unpriced"


class BudgetScope(Word):
    """What may be spent by whom (``openhands.budget.scope``); the rules in ``deploy/prometheus`` compare."""

    DAY = "day"
    """One service, in 24 hours."""
    TEAM = "team"
    """All services of a namespace (``service.namespace``), in 30 days."""
    EXPERIMENT = "experiment"
    """One service, in 30 days."""


class TokenType(Word):
    """Kind of token. Cache reads and writes are part of input, reasoning is part of output: never add them up."""

    INPUT = "input"
    OUTPUT = "output"
    CACHE_READ = "cache_read"
    CACHE_WRITE = "cache_write"
    REASONING = "reasoning"


class Modality(Word):
    """What tokens stand for (``gen_ai.token.modality``), as far as the provider says."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    UNKNOWN = "unknown"


class GenAINames(Word):
    """Which generation of GenAI names is sent (``OTEL_SEMCONV_STABILITY_OPT_IN``)."""

    TODAY = "today"
    """Those that other instrumentations send today."""
    NEWEST = "newest"
    """Those of the unreleased conventions, instead."""
    BOTH = "both"

    @property
    def has_today(self) -> bool:
        """Whether today's names are sent."""
        return self is not GenAINames.NEWEST

    @property
    def has_newest(self) -> bool:
        """Whether the newest names are sent."""
        return self is not GenAINames.TODAY


class Operation(Word):
    """``gen_ai.operation.name``."""

    CHAT = "chat"
    INVOKE_AGENT = "invoke_agent"


class Status(Word):
    """State of a conversation (``openhands.conversation.status``): OpenHands' execution states and ``closed``."""

    IDLE = "idle"
    RUNNING = "running"
    PAUSED = "paused"
    WAITING = "waiting_for_confirmation"
    FINISHED = "finished"
    ERROR = "error"
    STUCK = "stuck"
    DELETING = "deleting"
    CLOSED = "closed"


class ToolOutcome(Word):
    """How a tool call ended (``openhands.tool.outcome``)."""

    OK = "ok"
    TOOL_ERROR = "tool_error"
    """The tool ran and said that it failed."""
    EXCEPTION = "exception"
    REJECTED = "rejected"
    """The user or a hook did not let it run."""
    CANCELLED = "cancelled"


class RunOutcome(Word):
    """How a run ended (``openhands.run.outcome``); the error's code is ``error.type``. That of its last run stays with
    a conversation for good, whatever becomes of its status.
    """

    FINISHED = "finished"
    ERROR = "error"
    STUCK = "stuck"
    PAUSED = "paused"
    WAITING = "waiting"
    BUDGET = "budget"
    ITERATIONS = "iterations"


class Reason(Word):
    """Why OpenHands' own total of a conversation differs from ours (``openhands.reconciliation.reason``)."""

    SUBAGENTS = "subagents"
    """It takes in what sub-agents spent, whose conversations have it too."""
    HOOKS = "hooks"
    """It takes in what agent hooks spent, whose conversations have it too."""
    METER_TWICE = "meter_twice"
    """One meter, or a copy of it, stands under two usage ids (ask_agent, condensers made by model_copy)."""
    SHARED_METER = "shared_meter"
    """Another conversation uses the same LLM, so each shows the sum of both."""
    STALE_METER = "stale_meter"
    """The LLM writes to another meter than the one in the stats (resumed conversations before 1.17)."""
    UNREGISTERED_LLM = "unregistered_llm"
    """An LLM spent that is not in the stats (a title's own, a rebuilt condenser, a failed fallback)."""
    ACP_REPORT = "acp_report"
    """A cumulative report of an ACP agent was misread."""
    ACP_UNPRICED = "acp_unpriced"
    """An ACP agent names no cost, and OpenHands did not ask what its model costs."""
    UNKNOWN = "unknown"


UNKNOWN: Final = "unknown"
OVERFLOW: Final = "other"
"""Value of an attribute whose set is full."""


# ---------------------------------------------------------------- metrics

USD: Final = "USD"
TOKENS: Final = "{token}"
SECONDS: Final = "s"

TOKEN_BUCKETS: Final = tuple(float(4**n) for n in range(14))
"""1 to 67,108,864 by fours, as the GenAI conventions have it."""
DURATION_BUCKETS: Final = tuple(round(0.01 * 2**n, 2) for n in range(14))
"""10 ms to 82 s by doubling, as the GenAI conventions have it."""

AGENT_DURATION_BUCKETS: Final = tuple(round(0.1 * 2**n, 1) for n in range(13))
"""0.1 to 410 s by doubling, as the GenAI conventions have it for agents."""
CALL_BUCKETS: Final = tuple(float(2**n) for n in range(8))
MONEY_BUCKETS: Final = tuple(round(0.001 * 10 ** (n / 2), 4) for n in range(11))
"""0.1 cent to 100 dollars, two a decade."""
SHARE_BUCKETS: Final = tuple(round(0.1 * n, 1) for n in range(1, 11))

Kind = Literal["counter", "histogram", "gauge", "updowncounter"]


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric: name, kind, unit, help text and (histograms) bucket bounds. Each exists once and equals itself."""

    name: str
    """As it is sent."""
    kind: Kind
    """Kind of instrument."""
    unit: str
    """UCUM, and ``USD``."""
    description: str
    """Help text."""
    buckets: tuple[float, ...] | None = None
    """Upper bounds of a histogram's buckets, in the unit."""

    @property
    def prometheus_name(self) -> str:
        """Its name in Prometheus; of a histogram what ``_bucket``, ``_sum`` and ``_count`` are put behind."""
        return prometheus.metric_name(self.name, self.kind, self.unit)


def prometheus_label(attribute: str) -> str:
    """An attribute's name as a label of Prometheus.

    Args:
        attribute: A name as it stands here, such as ``REQUEST_MODEL``.

    Returns:
        For example ``gen_ai_request_model``.
    """
    return prometheus.label_name(attribute)


# Fleet: small attribute sets, no ids. From Metrics.add_cost, add_token_usage, add_response_latency.
COST: Final = Metric("openhands.llm.cost", "counter", USD, "What LLM calls cost.")
INPUT_TOKENS: Final = Metric(
    "gen_ai.client.inference.usage.input_tokens", "counter", TOKENS, "Input tokens, cached ones included."
)
OUTPUT_TOKENS: Final = Metric(
    "gen_ai.client.inference.usage.output_tokens", "counter", TOKENS, "Output tokens, reasoning included."
)
CACHE_READ_TOKENS: Final = Metric(
    "gen_ai.client.inference.usage.cache_read.input_tokens", "counter", TOKENS, "Input tokens read from a cache."
)
CACHE_WRITE_TOKENS: Final = Metric(
    "gen_ai.client.inference.usage.cache_write.input_tokens", "counter", TOKENS, "Input tokens written to a cache."
)
REASONING_TOKENS: Final = Metric(
    "gen_ai.client.inference.usage.reasoning.output_tokens", "counter", TOKENS, "Output tokens spent on reasoning."
)
CALLS: Final = Metric("openhands.llm.calls", "counter", "{call}", "LLM responses.")
TOKEN_USAGE: Final = Metric(
    "gen_ai.client.token.usage", "histogram", TOKENS, "Tokens of one call, by type.", TOKEN_BUCKETS
)
RESPONSE_LATENCY: Final = Metric(
    "openhands.llm.response.latency", "histogram", SECONDS, "Latency as OpenHands records it.", DURATION_BUCKETS
)
UNPRICED_CALLS: Final = Metric(
    "openhands.llm.unpriced_calls", "counter", "{call}", "Calls with tokens for which no price was known."
)
CACHE_SAVINGS: Final = Metric(
    "openhands.llm.cache_savings", "counter", USD, "Cached input at its full price, less what it cost."
)

TOKEN_COUNTERS: Final = {
    TokenType.INPUT: INPUT_TOKENS,
    TokenType.OUTPUT: OUTPUT_TOKENS,
    TokenType.CACHE_READ: CACHE_READ_TOKENS,
    TokenType.CACHE_WRITE: CACHE_WRITE_TOKENS,
    TokenType.REASONING: REASONING_TOKENS,
}

OPERATION_DURATION: Final = Metric(
    "gen_ai.client.operation.duration", "histogram", SECONDS, "One LLM call, its retries included.", DURATION_BUCKETS
)
TIME_TO_FIRST_CHUNK: Final = Metric(
    "gen_ai.client.operation.time_to_first_chunk",
    "histogram",
    SECONDS,
    "Until the first chunk of a streamed answer, retries included.",
    DURATION_BUCKETS,
)
# The newest generation's names of these. The token counters above have one name in both.
OPERATION_INPUT_TOKENS: Final = Metric(
    "gen_ai.client.inference.operation.input_tokens",
    "histogram",
    TOKENS,
    "Input tokens of one LLM call, its retries included; 0 where none were reported.",
    TOKEN_BUCKETS,
)
OPERATION_OUTPUT_TOKENS: Final = Metric(
    "gen_ai.client.inference.operation.output_tokens",
    "histogram",
    TOKENS,
    "Output tokens of one LLM call, its retries included; 0 where none were reported.",
    TOKEN_BUCKETS,
)
INFERENCE_DURATION: Final = Metric(
    "gen_ai.client.inference.duration", "histogram", SECONDS, "One LLM call, its retries included.", DURATION_BUCKETS
)
INFERENCE_TIME_TO_FIRST_CHUNK: Final = Metric(
    "gen_ai.client.inference.time_to_first_chunk",
    "histogram",
    SECONDS,
    "Until the first chunk of a streamed answer, retries included.",
    DURATION_BUCKETS,
)
TIME_PER_OUTPUT_CHUNK: Final = Metric(
    "gen_ai.client.inference.time_per_output_chunk",
    "histogram",
    SECONDS,
    "From one chunk of a streamed answer to the next.",
    DURATION_BUCKETS,
)
TODAY_ONLY: Final = frozenset((TOKEN_USAGE, OPERATION_DURATION, TIME_TO_FIRST_CHUNK))
"""Metrics that are not sent where the newest names are sent instead."""
NEWEST_ONLY: Final = frozenset(
    (
        OPERATION_INPUT_TOKENS,
        OPERATION_OUTPUT_TOKENS,
        INFERENCE_DURATION,
        INFERENCE_TIME_TO_FIRST_CHUNK,
        TIME_PER_OUTPUT_CHUNK,
    )
)
"""Metrics that are sent only where the newest names are."""
RENAMED: Final = {
    OPERATION_DURATION: INFERENCE_DURATION,
    TIME_TO_FIRST_CHUNK: INFERENCE_TIME_TO_FIRST_CHUNK,
}
"""Metrics of today, and what each of them is called in the newest generation."""
RETRIES: Final = Metric("openhands.llm.retries", "counter", "{retry}", "Attempts after the first of an LLM call.")
TOOL_DURATION: Final = Metric(
    "gen_ai.execute_tool.duration", "histogram", SECONDS, "One tool call; 0 where it did not run.", DURATION_BUCKETS
)
RUN_DURATION: Final = Metric(
    "gen_ai.invoke_agent.duration", "histogram", SECONDS, "One run of an agent.", AGENT_DURATION_BUCKETS
)
RUN_CALLS: Final = Metric(
    "gen_ai.invoke_agent.inference_calls", "histogram", "{inference_call}", "LLM responses of one run.", CALL_BUCKETS
)
RUN_TOOL_CALLS: Final = Metric(
    "gen_ai.invoke_agent.tool_calls", "histogram", "{tool_call}", "Tool calls of one run.", CALL_BUCKETS
)
RUN_COST: Final = Metric("openhands.run.cost", "histogram", USD, "Cost of one run.", MONEY_BUCKETS)
CONTEXT_UTILIZATION: Final = Metric(
    "openhands.context.utilization", "histogram", "1", "Tokens of a turn, of the model's context window.", SHARE_BUCKETS
)
CONDENSATIONS: Final = Metric("openhands.condensations", "counter", "{condensation}", "Histories condensed.")
STUCK_RUNS: Final = Metric("openhands.stuck_runs", "counter", "{run}", "Runs that were stopped as stuck.")
ACTIVE_CONVERSATIONS: Final = Metric(
    "openhands.conversation.active", "updowncounter", "{conversation}", "Conversations that run now."
)
ACTIVE_CALLS: Final = Metric("openhands.llm.active_calls", "updowncounter", "{call}", "LLM calls under way.")
ACTIVE_TOOLS: Final = Metric("openhands.tool.active_calls", "updowncounter", "{call}", "Tool calls under way.")
BUDGET: Final = Metric("openhands.budget.limit", "gauge", USD, "What may be spent, as the settings say.")

# About this plugin itself.
HOOK_ERRORS: Final = Metric("openhands.otel.hook_errors", "counter", "{error}", "Errors inside our hooks.")
OVERFLOWS: Final = Metric(
    "openhands.otel.overflow", "counter", "{update}", "Updates that fell into an overflow bucket."
)
FAILED_EXPORTS: Final = Metric("openhands.otel.failed_exports", "counter", "{export}", "Exports that failed.")
DROPPED_CALLBACKS: Final = Metric(
    "openhands.otel.dropped_callbacks", "counter", "{event}", "Events a background subscriber was too slow for."
)
FLUSH_TIME: Final = Metric("openhands.otel.flush.time", "counter", SECONDS, "CPU time spent on flushes.")
FLUSHES: Final = Metric("openhands.otel.flushes", "counter", "{flush}", "Flushes made.")
HEARTBEAT_INTERVAL: Final = Metric(
    "openhands.otel.heartbeat.interval", "gauge", SECONDS, "How often a process repeats all that it has said."
)
BEAT_INTERVAL: Final = Metric(
    "openhands.otel.beat.interval",
    "gauge",
    SECONDS,
    "How often a process is heard of while it has an open conversation; only where a viewer answers it directly.",
)
# One series per conversation (gen_ai.conversation.id), built from the ledger.
CONVERSATION_COST: Final = Metric(
    "openhands.conversation.cost", "counter", USD, "Cost of a conversation in this process, by role, model, usage id."
)
CONVERSATION_TOKENS: Final = Metric(
    "openhands.conversation.tokens",
    "counter",
    TOKENS,
    "Tokens of a conversation in this process, by token type, usage id.",
)
CONVERSATION_CALLS: Final = Metric(
    "openhands.conversation.llm_calls",
    "counter",
    "{call}",
    "LLM responses of a conversation in this process, by model, provider.",
)
CONVERSATION_TOOL_CALLS: Final = Metric(
    "openhands.conversation.tool_calls", "counter", "{call}", "Tools that a conversation has called in this process."
)
CONVERSATION_UNPRICED: Final = Metric(
    "openhands.conversation.unpriced_calls",
    "counter",
    "{call}",
    "Calls of a conversation for which no price was known, by model, provider.",
)
CONVERSATION_CACHE_SAVINGS: Final = Metric(
    "openhands.conversation.cache_savings",
    "counter",
    USD,
    "Cached input of a conversation at its full price, less what it cost, in this process.",
)
CONVERSATION_LLM_TIME: Final = Metric(
    "openhands.conversation.llm_time",
    "counter",
    SECONDS,
    "How long a conversation's LLM responses took, in this process.",
)
CONVERSATION_LONGEST_CALL: Final = Metric(
    "openhands.conversation.longest_llm_call", "gauge", SECONDS, "How long the slowest of them took."
)
CONVERSATION_FIRST_CALL: Final = Metric(
    "openhands.conversation.first_llm_call", "gauge", SECONDS, "When its first LLM call here began (unix seconds)."
)
CONVERSATION_LAST_CALL: Final = Metric(
    "openhands.conversation.last_llm_call", "gauge", SECONDS, "When its last LLM call here began (unix seconds)."
)
CONVERSATION_RESTORED_COST: Final = Metric(
    "openhands.conversation.restored_cost", "gauge", USD, "What a conversation had spent before this process."
)
CONVERSATION_CONTEXT_TOKENS: Final = Metric(
    "openhands.conversation.context.tokens", "gauge", TOKENS, "Tokens of the agent's last turn."
)
CONVERSATION_CONTEXT_LIMIT: Final = Metric(
    "openhands.conversation.context.limit", "gauge", TOKENS, "Context window of the agent's model."
)
CONVERSATION_BUDGET: Final = Metric(
    "openhands.conversation.budget.limit", "gauge", USD, "Spending limit of a run of this conversation."
)
CONVERSATION_STATE: Final = Metric(
    "openhands.conversation.status", "gauge", "1", "1 for the state that the conversation is in."
)
CONVERSATION_OUTCOME: Final = Metric(
    "openhands.conversation.outcome", "gauge", "1", "1 for how the last run ended; 0 once another has begun."
)
CONVERSATION_NOW: Final = Metric(
    "openhands.conversation.activity", "gauge", SECONDS, "What runs now (attribute); since when (unix seconds)."
)
CONVERSATION_INFO: Final = Metric(
    "openhands.conversation.info", "gauge", "1", "Always 1; parent id, agent, SDK version and trace id as attributes."
)
CONVERSATION_TITLED: Final = Metric(
    "openhands.conversation.title", "gauge", "1", "1 for a conversation's title; where content is allowed."
)
CONVERSATION_UNRECONCILED: Final = Metric(
    "openhands.conversation.unreconciled_cost", "gauge", USD, "Our total of a conversation less OpenHands' own."
)
