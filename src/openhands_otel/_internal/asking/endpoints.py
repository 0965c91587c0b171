"""What the viewer's API answers: each path with its parameters and the type of its answer, in one table.

The viewer refuses parameters by it and makes ``/api/v1/openapi.json`` of it; clients read answers by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from pydantic import TypeAdapter

from openhands_otel._internal import api_paths
from openhands_otel._internal.spend.handover import Handover
from openhands_otel.semconv import RunOutcome
from openhands_otel.stats import (
    Breakdown,
    Budget,
    Calls,
    ConversationRun,
    ConversationStats,
    Glance,
    History,
    Latency,
    Presence,
    SpanDetails,
    Spend,
    State,
    Timeline,
)

JSON: Final = "application/json"
PAGE_LIMIT: Final = 1_000
"""Rows of one page."""
FILTERS: Final = {
    "outcome": "outcome",
    "state": "status",
    "service": "service",
    "agent": "agent",
    "model": "model_name",
    "provider": "provider_name",
    "parent": "parent_id",
}
"""Parameters of a list of conversations, and the field of a conversation that each has to equal."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a query."""

    name: str
    about: str
    kind: str = "string"
    repeated: bool = False
    among: tuple[str, ...] = ()
    required: bool = False


@dataclass(frozen=True, eq=False)
class Endpoint[T]:
    """One path, and ``answer``, the type of what it answers."""

    path: str
    about: str
    answer: type[T]
    parameters: tuple[Parameter, ...] = ()
    paged: bool = False
    in_path: Parameter | None = None
    method: str = "GET"
    body: Any = None
    """The type of what is sent, if anything is."""
    lenient: bool = False
    """Whether parameters that it does not know are ignored."""
    media_type: str = JSON

    @cached_property
    def reader(self) -> TypeAdapter[T]:
        """Makes an object of an answer."""
        return TypeAdapter(self.answer)

    @property
    def names(self) -> tuple[str, ...]:
        """Of its parameters."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def repeated(self) -> frozenset[str]:
        """Names of those that may be given several times."""
        return frozenset(parameter.name for parameter in self.parameters if parameter.repeated)


_LIMIT: Final = Parameter("limit", f"How many to answer, at most {PAGE_LIMIT} (100).", "integer")
_OFFSET: Final = Parameter("offset", "How many to leave out before (0).", "integer")
_SINCE: Final = Parameter("since", "Begin of the period: unix seconds.", "number")
_UNTIL: Final = Parameter("until", "End of the period: unix seconds.", "number")
_OUTCOME: Final = Parameter("outcome", "Only those whose last run ended so.", among=tuple(map(str, RunOutcome)))

STATE: Final = Endpoint(api_paths.STATE, "Everything that the collector holds in memory.", State)
CONVERSATIONS: Final = Endpoint(
    api_paths.CONVERSATIONS,
    "Conversations. With no parameter, or outcome alone: all in memory, latest change first. With others: a page of all"
    " that are known, those that left memory included.",
    tuple[ConversationStats, ...],
    (
        _OUTCOME,
        *(Parameter(name, f"Only those with this {field}.") for name, field in FILTERS.items() if name != "outcome"),
        Parameter("search", "Words that each occur in its id, name, service, agent, model, provider, error or labels."),
        Parameter("where", "A condition such as team=payments or role!=title, as spend takes it.", repeated=True),
        Parameter("past", "Only those that have left memory: what the stream does not tell.", among=("yes", "no")),
        Parameter("sort", "A field of the answer; - before it: the largest first (-received_unix_nano)."),
        _LIMIT,
        _OFFSET,
    ),
    paged=True,
)
_CONVERSATION_ID: Final = Parameter("conversation_id", "Its id.")
CONVERSATION: Final = Endpoint(
    api_paths.CONVERSATION,
    "One conversation, one that has left memory too.",
    ConversationStats,
    in_path=_CONVERSATION_ID,
)
RUNS: Final = Endpoint(
    api_paths.RUNS,
    "Runs of conversations, newest first.",
    tuple[ConversationRun, ...],
    (Parameter("conversation", "Only those of this conversation."), _OUTCOME, _LIMIT, _OFFSET),
    paged=True,
)
CALLS: Final = Endpoint(
    api_paths.CALLS,
    "LLM calls of a conversation, as far as their spans are kept, newest first; and what they leave of its cost.",
    Calls,
    (Parameter("sort", "A field of a call or its tokens; - before it: the largest first (-begun)."), _LIMIT, _OFFSET),
    paged=True,
    in_path=_CONVERSATION_ID,
)
TIMELINE: Final = Endpoint(
    api_paths.TIMELINE,
    "What a conversation did and does: runs, calls, tools, sub-agents below them.",
    Timeline,
    (_LIMIT, _OFFSET),
    paged=True,
    in_path=_CONVERSATION_ID,
)
SPAN: Final = Endpoint(
    api_paths.SPAN,
    "One span with all that is kept of it: its content too, where that was captured.",
    SpanDetails,
    (Parameter("trace", "Id of its trace.", required=True), Parameter("span", "Its id.", required=True)),
)
TOTALS: Final = Endpoint(api_paths.TOTALS, "All that was ever spent, and whose it is.", Breakdown)
GLANCE: Final = Endpoint(api_paths.GLANCE, "One line about now: spent today, by the hour, who waits.", Glance)
HISTORY: Final = Endpoint(
    api_paths.HISTORY,
    "Accumulated values over time, of one conversation or of everything.",
    History,
    (
        Parameter("conversation", "Its id; everything unless given."),
        _SINCE,
        _UNTIL,
        Parameter("bucket_s", "Length of a bucket, seconds.", "number"),
    ),
)
_TIMES: Final = "unix seconds, 2026-11-20, 2026-11-20T14:00, 2026-11, today, yesterday or 7d"
_PERIOD: Final = (
    Parameter("since", f"Begin of the period: {_TIMES}."),
    Parameter("until", f"End of the period: {_TIMES}; a day, week or month is included."),
    Parameter("last", "Instead of since: 12h, 30d, 2w, 3m, all."),
    Parameter("timezone", "Whose hours and days, as in Europe/Berlin; the viewer's unless given."),
    Parameter("where", "A condition such as model=gpt-5* or team!=payments.", repeated=True),
)
SPEND: Final = Endpoint(
    api_paths.SPEND,
    "What was spent in a period, by anything; the groups add up to the total.",
    Spend,
    (
        Parameter(
            "by",
            "hour, day, week, month, conversation, run, model, provider, role, agent, service, namespace, usage_id,"
            " cost_source or a label; several with commas between them are nested.",
            repeated=True,
        ),
        *_PERIOD,
        Parameter("top", "How many groups within each; the others become one.", "integer"),
    ),
)
LATENCY: Final = Endpoint(
    api_paths.LATENCY, "How long LLM calls of a period took, as far as their spans are kept.", Latency, _PERIOD
)
BUDGETS: Final = Endpoint(
    api_paths.BUDGETS,
    "How the viewer's budgets (OPENHANDS_OTEL_VIEWER_BUDGETS) stand now, in the order of the setting.",
    tuple[Budget, ...],
)
PRESENCE: Final = Endpoint(
    api_paths.PRESENCE, "When instrumented processes held which conversations.", tuple[Presence, ...]
)
IMPORT: Final = Endpoint(
    api_paths.IMPORT,
    "Take in what was read from OpenHands' own files; what was taken in before of a conversation is replaced.",
    dict[str, int],
    method="POST",
    body=Handover,
)
EVENTS: Final = Endpoint(
    api_paths.EVENTS,
    "Server-sent events: everything first, then each change. Each event's data is an Update, or a ChangesUpdate.",
    str,
    (
        Parameter(
            "told",
            "rows (unless given): of a conversation that changed its whole state. changes: the fields that changed, of"
            " many conversations at once, four times a second; of costs, usage_to_metrics and calls_by_model only when"
            " there are other parts.",
            among=("rows", "changes"),
        ),
        Parameter("whole", "With changes: the id of a conversation of which the whole state is told all the same."),
    ),
    media_type="text/event-stream",
)
METRICS: Final = Endpoint(
    api_paths.METRICS, "All series, for Prometheus: text or OpenMetrics.", str, lenient=True, media_type="text/plain"
)
HEALTH: Final = Endpoint(api_paths.HEALTH, "200 while everything works; else 503, and what does not.", dict[str, str])
OPENAPI: Final = Endpoint(api_paths.OPENAPI, "This document.", dict[str, Any])

ENDPOINTS: Final = (
    STATE,
    CONVERSATIONS,
    CALLS,
    TIMELINE,
    CONVERSATION,
    RUNS,
    SPAN,
    TOTALS,
    GLANCE,
    HISTORY,
    SPEND,
    LATENCY,
    BUDGETS,
    PRESENCE,
    IMPORT,
    EVENTS,
    METRICS,
    HEALTH,
    OPENAPI,
)
