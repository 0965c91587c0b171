"""What the API answers: each path with its parameters and the shape of its answer, in one table.

Routes refuse parameters by it, and ``/api/v1/openapi.json`` is made of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from pydantic import TypeAdapter

from openhands_otel._internal.collector.archive.listings import FILTERS, MOST
from openhands_otel._internal.spend.handover import Handover
from openhands_otel._internal.version import __version__
from openhands_otel.semconv import RunOutcome
from openhands_otel.stats import (
    Breakdown,
    Budget,
    Calls,
    ChangesUpdate,
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
    Update,
)

COUNT_HEADER: Final = "x-total-count"
"""Of a page: how many there are in all."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a query."""

    name: str
    about: str
    kind: str = "string"
    repeated: bool = False
    among: tuple[str, ...] = ()
    required: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path; ``answer`` is the type of what it answers, or its media type where that is no JSON."""

    path: str
    about: str
    answer: Any
    parameters: tuple[Parameter, ...] = ()
    paged: bool = False
    in_path: Parameter | None = None
    method: str = "GET"
    body: Any = None
    """The type of what is sent, if anything is."""
    lenient: bool = False
    """Whether parameters that it does not know are ignored."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of its parameters."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def repeated(self) -> frozenset[str]:
        """Names of those that may be given several times."""
        return frozenset(parameter.name for parameter in self.parameters if parameter.repeated)


_LIMIT: Final = Parameter("limit", f"How many to answer, at most {MOST} (100).", "integer")
_OFFSET: Final = Parameter("offset", "How many to leave out before (0).", "integer")
_SINCE: Final = Parameter("since", "Begin of the period: unix seconds.", "number")
_UNTIL: Final = Parameter("until", "End of the period: unix seconds.", "number")
_OUTCOME: Final = Parameter("outcome", "Only those whose last run ended so.", among=tuple(map(str, RunOutcome)))

STATE: Final = Endpoint("/api/v1/state", "Everything that the collector holds in memory.", State)
CONVERSATIONS: Final = Endpoint(
    "/api/v1/conversations",
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
    "/api/v1/conversations/{conversation_id}",
    "One conversation, one that has left memory too.",
    ConversationStats,
    in_path=_CONVERSATION_ID,
)
RUNS: Final = Endpoint(
    "/api/v1/runs",
    "Runs of conversations, newest first.",
    tuple[ConversationRun, ...],
    (Parameter("conversation", "Only those of this conversation."), _OUTCOME, _LIMIT, _OFFSET),
    paged=True,
)
CALLS: Final = Endpoint(
    "/api/v1/conversations/{conversation_id}/calls",
    "LLM calls of a conversation, as far as their spans are kept, newest first; and what they leave of its cost.",
    Calls,
    (Parameter("sort", "A field of a call or its tokens; - before it: the largest first (-begun)."), _LIMIT, _OFFSET),
    paged=True,
    in_path=_CONVERSATION_ID,
)
TIMELINE: Final = Endpoint(
    "/api/v1/conversations/{conversation_id}/timeline",
    "What a conversation did and does: runs, calls, tools, sub-agents below them.",
    Timeline,
    (_LIMIT, _OFFSET),
    paged=True,
    in_path=_CONVERSATION_ID,
)
SPAN: Final = Endpoint(
    "/api/v1/span",
    "One span with all that is kept of it: its content too, where that was captured.",
    SpanDetails,
    (Parameter("trace", "Id of its trace.", required=True), Parameter("span", "Its id.", required=True)),
)
TOTALS: Final = Endpoint("/api/v1/totals", "All that was ever spent, and whose it is.", Breakdown)
GLANCE: Final = Endpoint("/api/v1/glance", "One line about now: spent today, by the hour, who waits.", Glance)
HISTORY: Final = Endpoint(
    "/api/v1/history",
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
    "/api/v1/spend",
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
    "/api/v1/latency", "How long LLM calls of a period took, as far as their spans are kept.", Latency, _PERIOD
)
BUDGETS: Final = Endpoint(
    "/api/v1/budgets",
    "How the viewer's budgets (OPENHANDS_OTEL_VIEWER_BUDGETS) stand now, in the order of the setting.",
    tuple[Budget, ...],
)
PRESENCE: Final = Endpoint(
    "/api/v1/presence", "When instrumented processes held which conversations.", tuple[Presence, ...]
)
IMPORT: Final = Endpoint(
    "/api/v1/import",
    "Take in what was read from OpenHands' own files; what was taken in before of a conversation is replaced.",
    dict[str, int],
    method="POST",
    body=Handover,
)
EVENTS: Final = Endpoint(
    "/api/v1/events",
    "Server-sent events: everything first, then each change. Each event's data is an Update, or a ChangesUpdate.",
    "text/event-stream",
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
)
METRICS: Final = Endpoint("/metrics", "All series, for Prometheus: text or OpenMetrics.", "text/plain", lenient=True)
HEALTH: Final = Endpoint("/healthz", "200 while everything works; else 503, and what does not.", dict[str, str])
OPENAPI: Final = Endpoint("/api/v1/openapi.json", "This document.", dict[str, Any])

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


@cache
def openapi() -> dict[str, Any]:
    """The description of the API, as OpenAPI 3.1 has it."""
    shared: dict[str, Any] = {}
    paths = {each.path: {each.method.lower(): _operation(each, shared)} for each in ENDPOINTS}
    shared["Update"] = _schema(Update, shared)
    shared["ChangesUpdate"] = _schema(ChangesUpdate, shared)
    shared["Problem"] = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "openhands-otel viewer", "version": __version__},
        "paths": paths,
        "components": {"schemas": shared, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
    }


def _schema(
    of: Any, shared: dict[str, Any], mode: Literal["serialization", "validation"] = "serialization"
) -> dict[str, Any]:
    """Of a type; the models in it go to ``shared``."""
    schema = TypeAdapter(of).json_schema(ref_template="#/components/schemas/{model}", mode=mode)
    shared |= schema.pop("$defs", {})
    return schema


def _operation(endpoint: Endpoint, shared: dict[str, Any]) -> dict[str, Any]:
    media_type = endpoint.answer if isinstance(endpoint.answer, str) else "application/json"
    schema = {"type": "string"} if isinstance(endpoint.answer, str) else _schema(endpoint.answer, shared)
    good: dict[str, Any] = {"description": "What was asked for.", "content": {media_type: {"schema": schema}}}
    if endpoint.paged:
        good["headers"] = {COUNT_HEADER: {"schema": {"type": "integer"}, "description": "How many there are in all."}}
    body = endpoint.body and {"application/json": {"schema": _schema(endpoint.body, shared, "validation")}}
    problem = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        "summary": endpoint.about,
        "parameters": [
            *([_described(endpoint.in_path, "path")] if endpoint.in_path is not None else []),
            *(_described(parameter, "query") for parameter in endpoint.parameters),
        ],
        **({"requestBody": {"required": True, "content": body}} if body else {}),
        "responses": {"200": good, "default": {"description": "Why not, in one line.", "content": problem}},
    }


def _described(parameter: Parameter, place: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": parameter.kind}
    if parameter.among:
        schema["enum"] = list(parameter.among)
    if parameter.repeated:
        schema = {"type": "array", "items": schema}
    return {
        "name": parameter.name,
        "in": place,
        "required": place == "path" or parameter.required,
        "description": parameter.about,
        "schema": schema,
    }
