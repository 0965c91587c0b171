"""The JSON API and the event stream that viewers read."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Any, Final

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from openhands_otel._internal.asking import endpoints
from openhands_otel._internal.asking.endpoints import JSON
from openhands_otel._internal.collector.access import visitor_of
from openhands_otel._internal.collector.archive.latency import latency
from openhands_otel._internal.collector.archive.listings import conversations, read_page, runs
from openhands_otel._internal.collector.archive.questions import answer
from openhands_otel._internal.collector.archive.samples import EVERYTHING, history
from openhands_otel._internal.collector.archive.spend import READ, presence
from openhands_otel._internal.collector.budgets import budgets, limits_of
from openhands_otel._internal.collector.serve.answers import as_json, json_list, problem
from openhands_otel._internal.collector.serve.exposition import Exposition
from openhands_otel._internal.collector.serve.openapi import openapi
from openhands_otel._internal.collector.serve.span_answers import SpanAnswers
from openhands_otel._internal.collector.sight import Sight
from openhands_otel._internal.collector.state.stream import KEEP_ALIVE_S, StreamSubscription
from openhands_otel._internal.collector.store import Store
from openhands_otel._internal.collector.supervision import FORESEEN
from openhands_otel._internal.spend.budgets import Limit
from openhands_otel._internal.spend.handover import IMPORT_LIMIT, Handover
from openhands_otel._internal.spend.questions import SpendQuestion
from openhands_otel._internal.spend.reading import BadQuestion, history_window, read_question
from openhands_otel._internal.spend.zones import zone_of
from openhands_otel._internal.terminal_text import printable
from openhands_otel._internal.version import __version__
from openhands_otel.semconv import KEEP_ALIVE_HEADER, RunOutcome
from openhands_otel.stats import ConversationStats

Handler = Callable[[Request, Sight], Awaitable[Response]]
"""Answers a question to somebody who may see so much. What it tells is the sight's, never the store's."""

_TODAY: Final = {"since": ["today"], "until": ["today"]}
_PIECE: Final = 64 * 1024


class Api:
    """Answers from one store."""

    def __init__(
        self,
        store: Store,
        timezone: str | None = None,
        trace_url: str | None = None,
        limits: tuple[Limit, ...] = (),
    ) -> None:
        self._store = store
        self._limits = limits
        self._spans = SpanAnswers(trace_url)
        self._timezone = timezone
        """IANA name of the zone whose days are meant where none is asked for; None for this machine's."""

    def routes(self) -> list[Route]:
        answers = {
            endpoints.STATE: self._state,
            endpoints.CONVERSATIONS: self._conversations,
            endpoints.CALLS: self._spans.calls,
            endpoints.TIMELINE: self._spans.timeline,
            endpoints.CONVERSATION: self._conversation,
            endpoints.RUNS: self._runs,
            endpoints.SPAN: self._spans.span,
            endpoints.TOTALS: self._totals,
            endpoints.GLANCE: self._glance,
            endpoints.HISTORY: self._history,
            endpoints.SPEND: self._spend,
            endpoints.LATENCY: self._latency,
            endpoints.BUDGETS: self._budgets,
            endpoints.PRESENCE: self._presence,
            endpoints.IMPORT: self._import,
            endpoints.EVENTS: self._events,
            endpoints.OPENAPI: self._openapi,
            endpoints.METRICS: self._metrics,
        }
        return [
            *(
                Route(each.path.replace("_id}", "_id:path}"), self._asked(answer, each), methods=[each.method])
                for each, answer in answers.items()
            ),
            Route(endpoints.HEALTH.path, self._health),
        ]

    def _asked(self, answer: Handler, endpoint: endpoints.Endpoint[Any]) -> Callable[[Request], Awaitable[Response]]:
        """Hand a question on with what may be seen by who asks.

        What is asked in words that do not exist is refused: ignored, one's own question would get everybody's answer.
        """

        async def checked(request: Request) -> Response:
            names = [name for name, _ in request.query_params.multi_items()]
            for name in () if endpoint.lenient else names:
                if name not in endpoint.names:
                    takes = ", ".join(endpoint.names) or "none"
                    return problem(400, f"there is no parameter {printable(name, 100)} here (there is: {takes})")
                if names.count(name) > 1 and name not in endpoint.repeated:
                    return problem(400, f"{name} is given {names.count(name)} times")
            try:
                return await answer(request, self._store.sight(visitor_of(request).grant.service))
            except BadQuestion as error:
                return problem(400, str(error))
            except FORESEEN as error:
                return problem(503, f"the history cannot be read: {error}")

        return checked

    async def _openapi(self, _: Request, __: Sight) -> Response:
        return JSONResponse(openapi())

    async def _state(self, _: Request, sight: Sight) -> Response:
        return as_json(sight.state())

    async def _conversations(self, request: Request, sight: Sight) -> Response:
        wanted = request.query_params.get("outcome")
        if wanted is not None and wanted not in set(RunOutcome):
            return problem(400, f"there is no outcome {printable(wanted, 100)} (there is: {', '.join(RunOutcome)})")
        if not request.query_params.keys() <= {"outcome"}:
            return await self._page(request, sight)
        found = (stats for stats in sight.all_stats() if wanted in (None, stats.outcome))
        return json_list(found)

    async def _page(self, request: Request, sight: Sight) -> Response:
        page = read_page(request.query_params, request.query_params.getlist("where"), tuple(sight.conversations.by_id))
        await self._store.save_all()
        count, found = await sight.read(lambda connection: conversations(connection, page))
        if sight.service is not None:
            found = [_in_sight(text, sight) for text in found]
        return json_list(found, count)

    async def _runs(self, request: Request, sight: Sight) -> Response:
        given = dict(request.query_params)
        await self._store.save_all()
        count, found = await sight.read(lambda connection: runs(connection, given))
        return json_list(found, count)

    async def _conversation(self, request: Request, sight: Sight) -> Response:
        conversation_id: str = request.path_params["conversation_id"]
        stats = await sight.stats(conversation_id)
        if stats is None:
            return problem(404, f"no conversation {conversation_id[:100]} is known here")
        return as_json(stats)

    async def _totals(self, _: Request, sight: Sight) -> Response:
        return as_json(sight.breakdown())

    async def _glance(self, _: Request, sight: Sight) -> Response:
        question = read_question(_TODAY, self._timezone)
        await self._store.save_all()
        today = await sight.read(lambda connection: answer(connection, question))
        return as_json(sight.glance(today.total.accumulated_cost))

    async def _history(self, request: Request, sight: Sight) -> Response:
        query = request.query_params
        try:
            asked = [float(query[name]) if name in query else None for name in ("since", "until", "bucket_s")]
        except ValueError:
            return problem(400, "since, until and bucket_s must be numbers (seconds)")
        # A sample has the time at which it is saved, which must not be after the window.
        await self._store.save_all()
        since, until, bucket = history_window(time.time(), *asked)
        subject = query.get("conversation", EVERYTHING)
        if subject == EVERYTHING and "conversation" in query:
            return problem(400, "conversation must name one; leave it out for everything")
        return as_json(await sight.read(lambda connection: history(connection, subject, since, until, bucket)))

    async def _spend(self, request: Request, sight: Sight) -> Response:
        question = self._question(request)
        await self._store.save_all()
        return as_json(await sight.read(lambda connection: answer(connection, question)))

    async def _latency(self, request: Request, sight: Sight) -> Response:
        question = self._question(request)
        return as_json(await sight.read(lambda connection: latency(connection, question)))

    def _question(self, request: Request) -> SpendQuestion:
        given: dict[str, list[str]] = {}
        for name, text in request.query_params.multi_items():
            given.setdefault(name, []).append(text)
        return read_question(given, self._timezone)

    async def _budgets(self, _: Request, sight: Sight) -> Response:
        await self._store.save_all()
        zone, now = zone_of(self._timezone), time.time()
        limits = limits_of(self._limits, sight.service)
        found = await sight.read(lambda connection: budgets(connection, limits, zone, now))
        return json_list(found)

    async def _presence(self, _: Request, sight: Sight) -> Response:
        await self._store.save_all()
        present = await sight.read(presence)
        return JSONResponse(
            [
                {"conversation_id": name, "since": since, "until": until, "read": process == READ}
                for name, process, since, until in present
            ]
        )

    async def _import(self, request: Request, _: Sight) -> Response:
        # A page from elsewhere may send a form or plain text unasked, but no JSON.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            return problem(415, f"the content type must be {JSON}")
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > IMPORT_LIMIT:
                return problem(413, f"a request may have {IMPORT_LIMIT // 1024**2} MiB at most: send fewer at a time")
        try:
            handover = Handover.model_validate_json(bytes(body))
            await self._store.save_all()
            await self._store.archive.take_read(handover)
        except ValidationError as error:
            what = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in what["loc"])
            return problem(400, printable(f"{where}: {what['msg']}" if where else what["msg"], 300))
        except FORESEEN as error:
            return problem(503, f"the history cannot be written: {error}")
        return JSONResponse({"conversations": len(handover.conversations)})

    async def _events(self, request: Request, sight: Sight) -> Response:
        # Subscribed before the greeting is made: no change falls through.
        told = request.query_params.get("told", "rows")
        if told not in ("rows", "changes"):
            return problem(400, "told takes rows or changes")
        whole = request.query_params.get("whole") if told == "changes" else None
        subscription = self._store.broker.subscribe(sight.service, told == "changes", whole)
        if subscription is None:
            return problem(503, "too many viewers are connected")
        return _EventResponse(self._store, subscription, request)

    async def _metrics(self, request: Request, sight: Sight) -> Response:
        exposition = Exposition.accepted(request.headers.get("accept", ""))
        return Response(await exposition.render(sight), media_type=exposition.media_type)

    async def _health(self, _: Request) -> Response:
        problems = self._store.health.problems
        if problems:
            return problem(503, "; ".join(problems))
        return Response(f'{{"status":"ok","version":"{__version__}"}}', media_type=JSON)


def _in_sight(archived: str, sight: Sight) -> str:
    """A conversation's state as who sees one service is told it: of those in memory, what their trees cost there."""
    held = sight.conversations.by_id.get(ConversationStats.model_validate_json(archived).conversation_id)
    return archived if held is None else sight.conversations.stats(held).model_dump_json()


class _EventResponse(StreamingResponse):
    """Gives the viewer's place back whatever becomes of the answer, also where it never began."""

    def __init__(self, store: Store, subscription: StreamSubscription, request: Request) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no", KEEP_ALIVE_HEADER: f"{KEEP_ALIVE_S:g}"}
        events = self._events(request.headers.get("last-event-id"))
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._store = store
        self._subscription = subscription
        self._visitor = visitor_of(request)
        self._owed = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._owe(-self._owed)
            self._store.broker.unsubscribe(self._subscription)

    async def _events(self, last_event_id: str | None) -> AsyncIterator[bytes]:
        greeting = self._store.greeting(last_event_id, self._subscription.service, self._subscription.whole)
        self._owe(len(greeting))
        for piece in _pieces([greeting]):
            yield piece
        self._owe(-self._owed)
        del greeting
        while not self._subscription.closed and self._visitor.may_stay:
            for piece in _pieces(await self._subscription.next()):
                yield piece

    def _owe(self, size: int) -> None:
        self._owed += size
        self._store.broker.greeting_bytes += size


def _pieces(frames: Iterable[bytes]) -> Iterator[bytes]:
    """Cut and joined so that no more than two pieces lie in the buffer of a viewer that reads slowly."""
    waiting = b""
    for frame in frames:
        if len(waiting) + len(frame) > _PIECE and waiting:
            yield waiting
            waiting = b""
        if len(frame) > _PIECE:
            yield from (frame[start : start + _PIECE] for start in range(0, len(frame), _PIECE))
        else:
            waiting += frame
    if waiting:
        yield waiting
