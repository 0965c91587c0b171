"""The facts of a conversation, a row for each: what carries it, how processes combine, where it shows.

The sender, the collector, the exposition, the page (as ``/assets/facts.js``), ``watch`` and docs/metrics.md follow this
table or are held to it by tests/test_facts.py. A new fact takes a hook, an event and an account that tell of it, a
metric in ``semconv``, a field of ``ConversationStats``, and a row here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from openhands_otel import semconv
from openhands_otel.semconv import Metric, Reason, RunOutcome, Status


class Combine(StrEnum):
    """How what several processes say of one conversation becomes one value."""

    SUM = "the sum"
    NEWEST = "what was heard last"
    LARGEST = "the largest"
    EARLIEST = "the earliest"
    CURRENT = "what was heard last, of series that have not ended if there are any"
    SPEAKER = "what the process says that took it up last"
    RESULT = "what was heard last; nothing once another run has begun"
    OPENING = "the least that a process which opened it says"


class Format(StrEnum):
    """How a value reads."""

    TEXT = "text"
    COUNT = "count"
    MONEY = "money"
    SECONDS = "seconds"
    MOMENT = "moment"
    """Unix seconds."""
    DIFFERENCE = "difference"
    """Money that OpenHands' own total is short of, or over by, and why."""


@dataclass(frozen=True, slots=True)
class WatchColumn:
    """A column of ``watch``, in terminals of at least ``from_width`` columns."""

    title: str
    from_width: int


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact."""

    field: str | None
    """Of ``ConversationStats``, with the field in it after a dot; None for what only ``/metrics`` has."""
    metric: Metric
    combine: Combine
    format: Format = Format.TEXT
    attribute: str | None = None
    """The attribute that says it; None where the value does."""
    by: tuple[str, ...] = ()
    """Attributes that it is broken down by."""
    account: str | None = None
    """The ledger's ``Account`` field that is sent as the value, where that is all there is to it."""
    column: WatchColumn | None = None
    """Of ``watch``, after those that it always has; it stays away while no conversation has something to say there."""
    remark: str = ""
    """On the card's last lines, if there is something to say: ``{}`` is the value, ``{s}`` an s unless that is 1."""
    quiet: bool = False
    """Whether the remark is there to be looked up, and nothing to worry about."""

    @property
    def slot(self) -> bool:
        """Whether a process has one series of it at a time, whatever the attributes: what it says gives way."""
        return self.attribute is not None and self.metric is not semconv.CONVERSATION_UNRECONCILED

    @property
    def lasting(self) -> bool:
        """Whether its series end only with the conversation."""
        return self.combine is Combine.SUM or self.metric is semconv.CONVERSATION_INFO


_USE: Final = (semconv.LLM_ROLE, semconv.REQUEST_MODEL, semconv.PROVIDER_NAME, semconv.USAGE_ID)

FACTS: Final = (
    Fact("status", semconv.CONVERSATION_STATE, Combine.SPEAKER, attribute=semconv.CONVERSATION_STATUS),
    Fact("outcome", semconv.CONVERSATION_OUTCOME, Combine.RESULT, attribute=semconv.RUN_OUTCOME),
    Fact(
        "error_type",
        semconv.CONVERSATION_OUTCOME,
        Combine.RESULT,
        attribute=semconv.ERROR_TYPE,
        column=WatchColumn("error", 120),
        remark="the last run ended with {}",
    ),
    Fact(
        "accumulated_cost",
        semconv.CONVERSATION_COST,
        Combine.SUM,
        Format.MONEY,
        by=(*_USE, semconv.COST_SOURCE),
    ),
    Fact(
        "accumulated_token_usage",
        semconv.CONVERSATION_TOKENS,
        Combine.SUM,
        Format.COUNT,
        by=(*_USE, semconv.TOKEN_TYPE),
    ),
    Fact("llm_calls", semconv.CONVERSATION_CALLS, Combine.SUM, Format.COUNT, by=_USE),
    Fact(
        "tool_calls",
        semconv.CONVERSATION_TOOL_CALLS,
        Combine.SUM,
        Format.COUNT,
        account="tool_calls",
        remark="{} tool call{s}",
        quiet=True,
    ),
    Fact(
        "unpriced_calls",
        semconv.CONVERSATION_UNPRICED,
        Combine.SUM,
        Format.COUNT,
        by=_USE,
        remark="{} call{s} without a known price",
    ),
    Fact(
        "cache_savings",
        semconv.CONVERSATION_CACHE_SAVINGS,
        Combine.SUM,
        Format.MONEY,
        by=_USE,
        remark="{} saved by caches",
        quiet=True,
    ),
    Fact(
        "llm_seconds",
        semconv.CONVERSATION_LLM_TIME,
        Combine.SUM,
        Format.SECONDS,
        by=_USE,
        remark="{} in LLM calls",
        quiet=True,
    ),
    Fact(
        "longest_call_seconds",
        semconv.CONVERSATION_LONGEST_CALL,
        Combine.LARGEST,
        Format.SECONDS,
        account="longest_call_seconds",
        column=WatchColumn("slowest", 140),
        remark="the slowest took {}",
        quiet=True,
    ),
    Fact(
        "first_call_unix_s",
        semconv.CONVERSATION_FIRST_CALL,
        Combine.EARLIEST,
        Format.MOMENT,
        account="first_call_unix_s",
        remark="first call {}",
        quiet=True,
    ),
    Fact(
        "last_call_unix_s",
        semconv.CONVERSATION_LAST_CALL,
        Combine.LARGEST,
        Format.MOMENT,
        account="last_call_unix_s",
        column=WatchColumn("last call", 150),
        remark="last call {}",
        quiet=True,
    ),
    Fact(
        "restored_cost",
        semconv.CONVERSATION_RESTORED_COST,
        Combine.OPENING,
        Format.MONEY,
        account="spent_before",
        remark="{} more was spent before this process",
    ),
    Fact(
        "accumulated_token_usage.per_turn_token",
        semconv.CONVERSATION_CONTEXT_TOKENS,
        Combine.NEWEST,
        Format.COUNT,
        account="context_tokens",
    ),
    Fact(
        "accumulated_token_usage.context_window",
        semconv.CONVERSATION_CONTEXT_LIMIT,
        Combine.NEWEST,
        Format.COUNT,
        account="context_limit",
    ),
    Fact(
        "unreconciled_cost",
        semconv.CONVERSATION_UNRECONCILED,
        Combine.CURRENT,
        Format.DIFFERENCE,
        remark="OpenHands itself says {}",
    ),
    Fact(
        "unreconciled_reasons",
        semconv.CONVERSATION_UNRECONCILED,
        Combine.CURRENT,
        attribute=semconv.RECONCILIATION_REASON,
    ),
    Fact(
        "max_budget_per_task",
        semconv.CONVERSATION_BUDGET,
        Combine.NEWEST,
        Format.MONEY,
        account="budget",
        remark="budget {} a run",
    ),
    Fact("activity", semconv.CONVERSATION_NOW, Combine.SPEAKER, attribute=semconv.CONVERSATION_ACTIVITY),
    Fact("activity_since", semconv.CONVERSATION_NOW, Combine.SPEAKER),
    Fact("title", semconv.CONVERSATION_TITLED, Combine.CURRENT, attribute=semconv.CONVERSATION_TITLE),
    Fact("parent_id", semconv.CONVERSATION_INFO, Combine.CURRENT, attribute=semconv.CONVERSATION_PARENT_ID),
    Fact("agent", semconv.CONVERSATION_INFO, Combine.CURRENT, attribute=semconv.AGENT_NAME),
    Fact("sdk_version", semconv.CONVERSATION_INFO, Combine.CURRENT, attribute=semconv.SDK_VERSION),
    Fact(None, semconv.CONVERSATION_INFO, Combine.CURRENT, attribute=semconv.CONVERSATION_TRACE_ID),
)

CONVERSATION_METRICS: Final = tuple(dict.fromkeys(fact.metric for fact in FACTS))
"""The series of one conversation."""


class Tone(StrEnum):
    """What a word asks of its reader."""

    RUN = "run"
    REST = "rest"
    WAIT = "wait"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class ValueWord:
    """How a value reads on the page, and in ``watch`` where that has less room."""

    text: str
    tone: Tone = Tone.REST
    brief: str = ""

    @property
    def in_terminal(self) -> str:
        return self.brief or self.text


OUTCOMES: Final[Mapping[str, ValueWord]] = {
    RunOutcome.FINISHED: ValueWord("finished"),
    RunOutcome.ERROR: ValueWord("failed", Tone.BAD, "error"),
    RunOutcome.STUCK: ValueWord("stuck", Tone.BAD),
    RunOutcome.BUDGET: ValueWord("over budget", Tone.WAIT),
    RunOutcome.ITERATIONS: ValueWord("out of turns", Tone.WAIT),
    RunOutcome.PAUSED: ValueWord("paused"),
    RunOutcome.WAITING: ValueWord("waiting for you", brief="waits for you"),
}
FAILURES: Final[frozenset[str]] = frozenset({RunOutcome.ERROR, RunOutcome.STUCK})
"""Outcomes that count as failed."""
WAIT_FOR_A_PERSON: Final = FAILURES | {RunOutcome.WAITING}
"""How a run ended that goes on only when a person does something: confirms, or looks what is wrong."""

STATES: Final[Mapping[str, ValueWord]] = {
    Status.RUNNING: ValueWord("running", Tone.RUN),
    Status.ERROR: ValueWord("error", Tone.BAD),
    Status.STUCK: ValueWord("stuck", Tone.BAD),
    Status.PAUSED: ValueWord("paused", Tone.WAIT),
    Status.WAITING: ValueWord("waiting for you", Tone.WAIT, "waits for you"),
    "silent": ValueWord("no word from its process", Tone.WAIT, "silent"),
    "gone": ValueWord("its process is gone", Tone.BAD, "gone"),
    "ended": ValueWord("its process ended", brief="ended"),
}
"""Of the states of a conversation, and of what may become of its process; others are their own words."""

NEEDS: Final[Mapping[str, Tone]] = {
    "waiting": Tone.WAIT,
    "stuck": Tone.BAD,
    "failed": Tone.BAD,
    "gone": Tone.BAD,
    "silent": Tone.WAIT,
    "budget": Tone.WAIT,
}
"""Why a person must look at a conversation, most urgent first."""
NEED_OF_OUTCOME: Final[Mapping[str, str]] = {
    RunOutcome.WAITING: "waiting",
    RunOutcome.STUCK: "stuck",
    RunOutcome.ERROR: "failed",
    RunOutcome.BUDGET: "budget",
    RunOutcome.ITERATIONS: "budget",
}
NEED_OF_STATUS: Final[Mapping[str, str]] = {
    Status.WAITING: "waiting",
    Status.STUCK: "stuck",
    Status.ERROR: "failed",
}
"""Of a conversation of which no outcome is known."""


@dataclass(frozen=True, slots=True)
class ConditionSource:
    """Where a conversation tells of what a condition asks."""

    own: tuple[str, ...] = ()
    """Fields of its own."""
    parts: tuple[tuple[str, str], ...] = ()
    """Fields of the parts of its spend: (list, field)."""


TOLD_BY: Final[Mapping[str, ConditionSource]] = {
    "model": ConditionSource(("model_name",), (("costs", "model"), ("calls_by_model", "model"))),
    "provider": ConditionSource(("provider_name",), (("calls_by_model", "provider"),)),
    "role": ConditionSource(parts=(("costs", "role"),)),
    "usage_id": ConditionSource(parts=(("costs", "usage_id"),)),
    "service": ConditionSource(("service",)),
    "agent": ConditionSource(("agent",)),
    "conversation": ConditionSource(("conversation_id",)),
}
"""By what is asked; all else that is asked are labels."""

DIMENSIONS: Final = ("model", "service", "role", "provider", "agent")
"""What page and terminal group spend by, before labels and conversations."""
TITLES: Final[Mapping[str, str]] = {"user": "person", "host": "machine"}
"""What a fact or label is called to people, where that differs from its name."""

REASONS: Final[Mapping[str, str]] = {
    Reason.SUBAGENTS: "it takes in its sub-agents",
    Reason.HOOKS: "it takes in agent hooks",
    Reason.METER_TWICE: "it has one meter under two names",
    Reason.SHARED_METER: "another conversation uses the same LLM",
    Reason.STALE_METER: "its LLM writes to another meter",
    Reason.UNREGISTERED_LLM: "it leaves an LLM out",
    Reason.ACP_REPORT: "it misreads the agent's reports",
    Reason.ACP_UNPRICED: "it does not price the agent's tokens",
    Reason.UNKNOWN: "for no known reason",
}
"""Why OpenHands' own total differs, in a clause after what it says."""
