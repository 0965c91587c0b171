"""The API's answers that are made of spans: calls, timeline, one span.

Whoever keeps a view of them open asks again with the ETag of the answer before (``If-None-Match``): while nothing
changed that costs one look into an index, and no body.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from openhands_otel._internal.asking.endpoints import JSON, PAGE_LIMIT
from openhands_otel._internal.collector.archive import span_questions
from openhands_otel._internal.collector.archive.listings import whole
from openhands_otel._internal.collector.serve.answers import COUNT_HEADER, as_json, problem
from openhands_otel._internal.collector.sight import Sight
from openhands_otel._internal.collector.spans.timeline import Now, rows_of
from openhands_otel._internal.collector.state.conversation import Conversation
from openhands_otel._internal.collector.state.conversations import Conversations
from openhands_otel._internal.money import ROUNDING
from openhands_otel._internal.spend.reading import BadQuestion
from openhands_otel.semconv import Status
from openhands_otel.stats import Calls, ConversationStats, Timeline, TimelineRow

_DRAWN: Final = 4
"""Timelines that are kept between the pages of one."""


@dataclass(frozen=True, slots=True)
class _Drawn:
    rows: tuple[TimelineRow, ...]
    left_out: int


class SpanAnswers:
    """Answers. ``trace_url`` leads to a trace elsewhere, with ``{trace_id}`` in it."""

    def __init__(self, trace_url: str | None) -> None:
        self._trace_url = trace_url
        self._drawn: dict[str, _Drawn] = {}
        """Timelines that were asked for last."""

    async def calls(self, request: Request, sight: Sight) -> Response:
        """A page of a conversation's calls."""
        name: str = request.path_params["conversation_id"]
        page = span_questions.read_call_page(request.query_params)
        stats = await sight.stats(name)
        held = await _version(sight, [name])
        spent = ConversationStats(conversation_id=name) if stats is None else stats
        tag = _tag(held, page, spent.accumulated_cost, spent.llm_calls)
        if request.headers.get("if-none-match") == tag:
            return _unchanged(tag)
        count, cost, calls = await sight.read(lambda connection: span_questions.calls(connection, name, page))
        if stats is None and count == 0:
            return _unknown(name)
        rest = spent.accumulated_cost - cost
        answer = Calls(
            conversation_id=name,
            calls=calls,
            count=count,
            calls_cost=cost,
            accumulated_cost=spent.accumulated_cost,
            llm_calls=spent.llm_calls,
            rest_cost=rest if abs(rest) > ROUNDING else 0.0,
        )
        return _tagged(answer.model_dump_json(), tag, count)

    async def timeline(self, request: Request, sight: Sight) -> Response:
        """A page of a conversation's timeline."""
        name: str = request.path_params["conversation_id"]
        limit = whole(request.query_params, "limit", 100, PAGE_LIMIT)
        offset = whole(request.query_params, "offset", 0, 10**9)
        wanted, now = _family(sight.conversations, name)
        held = await _version(sight, wanted)
        tag = _tag(held, now, limit, offset)
        if request.headers.get("if-none-match") == tag:
            return _unchanged(tag)
        if not held[0] and not now and await sight.stats(name) is None:
            return _unknown(name)
        key = _tag(sight.service, name, held, now)
        drawn = self._drawn.pop(key, None) or await _draw(sight, wanted, now)
        # Further pages of the same are asked for next.
        self._drawn[key] = drawn
        while len(self._drawn) > _DRAWN:
            self._drawn.pop(next(iter(self._drawn)))
        rows = drawn.rows
        answer = Timeline(
            conversation_id=name,
            rows=rows[offset : offset + limit],
            count=len(rows),
            left_out=drawn.left_out,
            begun=min((row.begun for row in rows), default=None),
            ended=_end(rows),
            server_unix_s=time.time(),
            trace_url=self._trace_url,
        )
        return _tagged(answer.model_dump_json(), tag, len(rows))

    async def span(self, request: Request, sight: Sight) -> Response:
        """One span, with what was said where that was captured."""
        trace, span = (request.query_params.get(name, "").lower() for name in ("trace", "span"))
        if not (trace and span):
            raise BadQuestion("trace and span must name one")
        found = await sight.read(lambda connection: span_questions.span_details(connection, trace, span))
        if found is None:
            return problem(404, "no such span is kept here")
        url = self._trace_url and self._trace_url.replace("{trace_id}", found.trace_id)
        answer = found.model_copy(update={"trace_url": url})
        return as_json(answer)


async def _draw(sight: Sight, wanted: list[str], now: dict[str, Now]) -> _Drawn:
    """Work of some tenths of a second for thousands of spans."""
    count, spans = await sight.read(lambda connection: span_questions.timeline(connection, wanted))
    rows = await asyncio.to_thread(rows_of, spans, wanted, now)
    return _Drawn(tuple(rows), count - len(spans))


def _family(conversations: Conversations, name: str) -> tuple[list[str], dict[str, Now]]:
    """A conversation and those under it; and what is known of these, and of those above."""
    held = conversations.by_id.get(name)
    if held is None:
        return [name], {}
    family = list(conversations.family(held))
    above = reversed(list(conversations.ancestors(held)))
    return [one.id for one in family], {one.id: _now(conversations, one) for one in (*above, *family)}


def _now(conversations: Conversations, conversation: Conversation) -> Now:
    stats = conversations.stats(conversation)
    run = conversation.runs.last
    lives = not (stats.closed or stats.stale or stats.gone or stats.ended)
    return Now(
        parent=stats.parent_id,
        agent=stats.agent,
        running=lives and stats.status == Status.RUNNING,
        run_begun=run.begun if run is not None and run.ended is None else None,
        activity=stats.activity,
        since=stats.activity_since,
    )


async def _version(sight: Sight, conversations: list[str]) -> tuple[int, int]:
    return await sight.read(lambda connection: span_questions.version(connection, conversations))


def _end(rows: Sequence[TimelineRow]) -> float | None:
    ends = [row.ended for row in rows]
    return None if None in ends else max((end for end in ends if end is not None), default=None)


def _tag(*parts: object) -> str:
    return f'"{hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()}"'


def _tagged(text: str, tag: str, count: int) -> Response:
    headers = {"cache-control": "no-cache", "etag": tag, COUNT_HEADER: str(count)}
    return Response(text, media_type=JSON, headers=headers)


def _unchanged(tag: str) -> Response:
    return Response(status_code=304, headers={"cache-control": "no-cache", "etag": tag})


def _unknown(name: str) -> Response:
    return problem(404, f"no conversation {name[:100]} is known here")
