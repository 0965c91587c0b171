"""What people ask of spans: the calls of a conversation, whatever belongs to its timeline, and one span as a whole."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from openhands_otel._internal.asking.endpoints import PAGE_LIMIT
from openhands_otel._internal.collector.archive.listings import whole
from openhands_otel._internal.collector.spans.span import SpanKind
from openhands_otel._internal.collector.spans.timeline import TimelineSpan
from openhands_otel._internal.spend.reading import BadQuestion
from openhands_otel._internal.terminal_text import printable
from openhands_otel.stats import Call, SpanDetails, SpanEvent, TokenUsage

TIMELINE_SPANS: Final = 20_000
"""Spans of one timeline; the newest are left out beyond them."""

_SORTED_BY: Final = {
    "begun": "started",
    "seconds": "ended - started",
    **{
        name: f"json_extract(facts, '$.{fact}')"
        for name, fact in (
            ("cost", "cost"),
            ("first_chunk_seconds", "first_chunk_s"),
            ("role", "role"),
            ("model", "model"),
            ("prompt_tokens", "prompt_tokens"),
            ("completion_tokens", "completion_tokens"),
            ("retries", "retries"),
            ("finish_reason", "finish_reason"),
            ("error_type", "error_type"),
        )
    },
}
_TOKENS: Final = tuple(TokenUsage.model_fields)
_IS_CALL: Final = (
    f"(kind = '{SpanKind.CALL}' OR (kind = '{SpanKind.RUN}' AND json_extract(facts, '$.cost') IS NOT NULL))"
)


@dataclass(frozen=True, slots=True)
class CallPage:
    """What is asked of the calls of a conversation."""

    sort: str
    limit: int
    offset: int


def read_call_page(given: Mapping[str, str]) -> CallPage:
    """Read the parameters. Raises BadQuestion."""
    sort = given.get("sort", "-begun")
    if sort.removeprefix("-") not in _SORTED_BY:
        raise BadQuestion(f"sort takes no {printable(sort, 100)} (it takes: {', '.join(sorted(_SORTED_BY))}; - before)")
    return CallPage(sort, whole(given, "limit", 100, PAGE_LIMIT), whole(given, "offset", 0, 10**9))


def calls(connection: sqlite3.Connection, conversation: str, page: CallPage) -> tuple[int, float, tuple[Call, ...]]:
    """How many there are, what all of them cost, and the page's."""
    where = f"conversation = ? AND {_IS_CALL}"
    costs = connection.execute(f"SELECT json_extract(facts, '$.cost') FROM spans WHERE {where}", (conversation,))
    known = [cost or 0.0 for (cost,) in costs]
    by = _SORTED_BY[page.sort.removeprefix("-")]
    order = f"({by}) IS NULL, {by} {'DESC' if page.sort.startswith('-') else 'ASC'}, id"
    rows = connection.execute(
        f"SELECT trace, span, kind, started, ended, facts FROM spans WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?",
        (conversation, page.limit, page.offset),
    )
    return len(known), math.fsum(known), tuple(_call(*row) for row in rows)


def _call(trace: str, span: str, kind: str, started: int, ended: int, facts: str) -> Call:
    known: dict[str, Any] = json.loads(facts)
    tokens = {name: known[name] for name in _TOKENS if name in known}
    return Call(
        trace_id=trace,
        span_id=span,
        begun=started / 1e9,
        seconds=(ended - started) / 1e9,
        is_run=kind == SpanKind.RUN,
        role=known.get("role"),
        agent=known.get("agent"),
        model=known.get("model"),
        provider=known.get("provider"),
        usage_id=known.get("usage_id"),
        cost=known.get("cost"),
        tokens=TokenUsage(**tokens),
        first_chunk_seconds=known.get("first_chunk_s"),
        retries=known.get("retries", 0),
        finish_reason=known.get("finish_reason"),
        error_type=known.get("error_type"),
        has_content=known.get("has_content", False),
        # Of an ACP agent's run that is nothing: many name a cost alone.
        cost_without_tokens=kind != SpanKind.RUN and bool(known.get("cost")) and not any(tokens.values()),
    )


def version(connection: sqlite3.Connection, conversations: Sequence[str]) -> tuple[int, int]:
    """Something that changes with what a timeline of these conversations is made of."""
    query = f"SELECT count(*), total(id) FROM spans WHERE trace IN ({_traces(conversations)})"
    count, ids = connection.execute(query, tuple(conversations)).fetchone()
    return count, int(ids)


def timeline(connection: sqlite3.Connection, conversations: Sequence[str]) -> tuple[int, list[TimelineSpan]]:
    """All spans of the traces that these conversations have a span in: how many there are, and the oldest of them."""
    where = f"trace IN ({_traces(conversations)})"
    values = tuple(conversations)
    (count,) = connection.execute(f"SELECT count(*) FROM spans WHERE {where}", values).fetchone()
    rows = connection.execute(
        "SELECT trace, span, parent, conversation, service, kind, name, started, ended, facts FROM spans"
        f" WHERE {where} ORDER BY started, id LIMIT ?",
        (*values, TIMELINE_SPANS),
    )
    return count, [
        TimelineSpan(trace, span, parent, conversation, service, kind, name, started / 1e9, ended / 1e9, facts)
        for trace, span, parent, conversation, service, kind, name, started, ended, facts in rows
    ]


def span_details(connection: sqlite3.Connection, trace: str, span: str) -> SpanDetails | None:
    """One span as a whole, if it is here."""
    row = connection.execute(
        "SELECT parent, name, service, started, ended, details FROM spans WHERE trace = ? AND span = ?", (trace, span)
    ).fetchone()
    if row is None:
        return None
    parent, name, service, started, ended, text = row
    details: dict[str, Any] = json.loads(text)
    return SpanDetails(
        trace_id=trace,
        span_id=span,
        parent_id=parent or None,
        name=name,
        service=service,
        begun_unix_nano=started,
        ended_unix_nano=ended,
        scope=details.get("scope", ""),
        status_message=details.get("status_message", ""),
        attributes=details.get("attributes", {}),
        events=tuple(SpanEvent(**event) for event in details.get("events", ())),
        resource=details.get("resource", {}),
        left_out=details.get("left_out", 0),
    )


def _traces(conversations: Sequence[str]) -> str:
    return f"SELECT trace FROM spans WHERE conversation IN ({', '.join('?' * len(conversations))})"
