"""What was spent as pydantic objects, from anywhere: ``StatsClient``, and ``AsyncStatsClient`` for event loops.

    with StatsClient("http://127.0.0.1:4318") as client:
        print(client.totals().totals.accumulated_cost)
        for update in client.stream():
            ...

The address is that of a viewer (``openhands-otel view``) or, with ``prometheus+`` before it, of a Prometheus that
agents send to, such as ``prometheus+http://127.0.0.1:9090``: the same program works with either. What goes wrong is
raised as StatsError, whose message is one line.

Since 0.1.0.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import iscoroutinefunction, signature
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Final, Self, overload

try:
    import httpx
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "StatsClient needs the package 'httpx': pip install 'openhands-otel[viewer]'", name=missing.name
    ) from None
from pydantic import TypeAdapter, ValidationError

from openhands_otel._internal import api_paths
from openhands_otel._internal.asking import endpoints
from openhands_otel._internal.asking.changes import ASKED, Changes
from openhands_otel._internal.asking.connection import CERTIFICATE, connection_options, refusal, why_unreachable
from openhands_otel._internal.asking.events import EventReader, Resumption, event_headers, watch_silence
from openhands_otel._internal.asking.prometheus import Prometheus
from openhands_otel._internal.asking.steps import (
    CannotAnswer,
    Question,
    Request,
    Source,
    Unintelligible,
    given,
    spend_asked,
)
from openhands_otel._internal.asking.viewer import Viewer
from openhands_otel._internal.host.neighbours import stranger_at
from openhands_otel._internal.host.network import VIEWER_URL, without_secrets
from openhands_otel._internal.host.state_folder import unasked_token
from openhands_otel._internal.host.token_file import TokenError, checked_token
from openhands_otel._internal.terminal_text import printable
from openhands_otel.semconv import RunOutcome
from openhands_otel.stats import (
    Breakdown,
    Budget,
    Calls,
    ConversationRun,
    ConversationStats,
    History,
    Latency,
    Presence,
    Spend,
    State,
    Timeline,
    Update,
)

# fmt: off
__all__ = [
    "DEFAULT_URL", "PROMETHEUS", "AsyncStatsClient", "StatsClient", "StatsError", "Unreachable",
]
# fmt: on

DEFAULT_URL: Final = VIEWER_URL

PROMETHEUS: Final = "prometheus+"
"""Before the address of a Prometheus."""

_update: Final[TypeAdapter[Update]] = TypeAdapter(Update)


class StatsError(Exception):
    """The source cannot be asked, does not know what was asked, or its answer cannot be used."""


class Unreachable(StatsError):
    """Nobody answers, or the connection broke: trying again may help."""


class _Client:
    """What both clients have in common: whom they ask, and what they make of an answer."""

    def __init__(self, url: str, token: str | None) -> None:
        url = url.strip()
        self._source: Source = Prometheus() if url.startswith(PROMETHEUS) else Viewer()
        self._plain_url = url.removeprefix(PROMETHEUS).rstrip("/")
        self.url = printable(without_secrets(self._plain_url), 200).rstrip("/")
        is_viewer = isinstance(self._source, Viewer)
        self._token = unasked_token(url) if token is None and is_viewer else None if token is None else _checked(token)
        self._needs_owner = token is None and is_viewer

    def _open[H](self, kind: Callable[..., H], timeout_s: float, certificate: str | Path | None) -> H:
        """One of httpx's clients."""
        trusted = str(certificate) if certificate is not None else os.environ.get(CERTIFICATE, "").strip() or None
        try:
            options = connection_options(self._plain_url, self._token, timeout_s, trusted)
            opened = None if options is None else kind(**options)
            self._address = httpx.URL("" if options is None else options["base_url"])
        except (httpx.InvalidURL, ValueError):
            opened = None
        except OSError as error:
            reason = error.strerror or "it holds no certificate"
            raise StatsError(f"a file of certificates cannot be used ({trusted or 'the default'}): {reason}") from None
        if opened is None:
            source = self._source
            raise StatsError(f"{self.url} is no address of {source.kind}: it should look like {source.example}")
        return opened

    def _look_who_listens(self) -> None:
        """Whoever shows no token expects a viewer of his own: another user's numbers would be taken for it."""
        address = self._address
        stranger = stranger_at(address.host, address.port or 80) if self._needs_owner else None
        if stranger is not None:
            raise StatsError(f"{stranger}: it is asked nothing without a token")

    def _check_status(self, response: httpx.Response) -> None:
        said = refusal(response, self.url, self._token)
        if said is not None:
            raise Unreachable(said) if response.is_server_error else StatsError(said)

    def _unreachable(self, error: httpx.HTTPError) -> Unreachable:
        return Unreachable(why_unreachable(error, self.url, self._source.cure))

    @contextmanager
    def _in_words(self) -> Generator[None]:
        """Raise as StatsError what a source has to say."""
        try:
            yield
        except CannotAnswer as error:
            raise StatsError(str(error)) from None
        except Unintelligible:
            raise self._stranger() from None

    def _body(self, response: httpx.Response) -> bytes:
        self._check_status(response)
        return response.content

    def _parse_update(self, data: str) -> Update | None:
        """None for a kind of update that this release does not know: a newer collector has more to say."""
        try:
            return _update.validate_json(data)
        except ValidationError as error:
            if error.errors(include_input=False)[0]["type"] == "union_tag_invalid":
                return None
        raise self._stranger()

    def _stranger(self) -> StatsError:
        return StatsError(f"{self.url} does not answer as {self._source.kind} does")


class _Answered[**P, T]:
    """A method of both clients that says what is asked: ``StatsClient`` answers it, ``AsyncStatsClient`` is awaited.

    This is what type checkers see. At runtime each client has a function of its own for it, as if written there.
    """

    def __init__(self, question: Callable[Concatenate[Any, P], Question[T]]) -> None:
        self._question = question

    def method(self, is_awaited: bool) -> Callable[..., Any]:
        """The function of a client."""
        question = self._question

        def ask(client: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
            return client._run(question(client, *args, **kwargs))

        async def ask_and_wait(client: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
            return await client._run(question(client, *args, **kwargs))

        method = wraps(question)(ask_and_wait if is_awaited else ask)
        answer = question.__annotations__["return"].removeprefix("Question[").removesuffix("]")
        method.__annotations__ = question.__annotations__ | {"return": answer}
        vars(method)["__signature__"] = signature(question).replace(return_annotation=answer)
        return method

    @overload
    def __get__(self, client: None, kind: type) -> Callable[Concatenate[Any, P], Any]: ...
    @overload
    def __get__(self, client: StatsClient, kind: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncStatsClient, kind: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: object, kind: type) -> Any:
        raise AttributeError(f"{kind.__name__} is no client")


class _Questions:
    """What can be asked."""

    def __init_subclass__(cls) -> None:
        if _Questions not in cls.__bases__:
            return
        is_awaited = iscoroutinefunction(getattr(cls, "_run", None))
        for name, question in vars(_Questions).items():
            if isinstance(question, _Answered):
                setattr(cls, name, question.method(is_awaited))

    @_Answered
    def state(self) -> Question[State]:
        """Everything that is known now."""
        return Question(endpoints.STATE)

    @_Answered
    def conversations(self, outcome: RunOutcome | str | None = None) -> Question[tuple[ConversationStats, ...]]:
        """All conversations that are in memory, latest change first.

        Args:
            outcome: Only those whose last run ended so.
        """
        return Question(endpoints.CONVERSATIONS, given(outcome=None if outcome is None else str(outcome)))

    @_Answered
    def past_conversations(
        self,
        *,
        search: str | None = None,
        where: Iterable[str] = (),
        sort: str | None = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> Question[tuple[ConversationStats, ...]]:
        """Conversations that have left the viewer's memory: of the others ``conversations()`` and ``stream()`` tell.

        Args:
            search: Words that each occur in its id, name, service, agent, model, provider, error or labels.
            where: Conditions such as ``team=payments``, as ``spend()`` takes them.
            sort: A field of the answer, with ``-`` before it the largest first; ``-received_unix_nano`` unless given.
            limit: How many; 100 unless given.
            offset: How many to leave out before.
        """
        asked = given(search=search, where=list(where) or None, sort=sort, limit=limit, offset=offset)
        return Question(endpoints.CONVERSATIONS, {"past": "yes"} | asked)

    @_Answered
    def conversation(self, conversation_id: str) -> Question[ConversationStats]:
        """One conversation, one that has left memory too.

        Args:
            conversation_id: ``str(conversation.id)``.

        Raises:
            StatsError: Nobody knows it there.
        """
        return Question(endpoints.CONVERSATION, conversation_id=conversation_id)

    @_Answered
    def calls(
        self, conversation_id: str, *, sort: str | None = None, limit: int | None = None, offset: int | None = None
    ) -> Question[Calls]:
        """LLM calls of a conversation, and what they leave of its cost.

        Args:
            conversation_id: ``str(conversation.id)``.
            sort: A field of a call or of its tokens, with ``-`` before it the largest first (``-begun``).
            limit: How many; 100 unless given.
            offset: How many to leave out before.
        """
        return Question(endpoints.CALLS, given(sort=sort, limit=limit, offset=offset), conversation_id)

    @_Answered
    def timeline(
        self, conversation_id: str, *, limit: int | None = None, offset: int | None = None
    ) -> Question[Timeline]:
        """What a conversation did and does: runs, calls and tools, with those of sub-agents below them.

        Args:
            conversation_id: ``str(conversation.id)``.
            limit: How many rows; 100 unless given.
            offset: How many to leave out before.
        """
        return Question(endpoints.TIMELINE, given(limit=limit, offset=offset), conversation_id)

    @_Answered
    def runs(
        self,
        conversation_id: str | None = None,
        *,
        outcome: RunOutcome | str | None = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> Question[tuple[ConversationRun, ...]]:
        """Runs of conversations, newest first: from a message to the agent's stop, with what each cost.

        Args:
            conversation_id: Only those of this conversation.
            outcome: Only those that ended so.
            limit: How many; 100 unless given.
            offset: How many to leave out before.
        """
        asked = given(conversation=conversation_id, outcome=outcome and str(outcome), limit=limit, offset=offset)
        return Question(endpoints.RUNS, asked)

    @_Answered
    def totals(self) -> Question[Breakdown]:
        """All that was spent, by model, role, provider, agent and service."""
        return Question(endpoints.TOTALS)

    @_Answered
    def history(
        self,
        conversation_id: str | None = None,
        *,
        since: float | None = None,
        until: float | None = None,
        bucket_s: float | None = None,
    ) -> Question[History]:
        """Spend over time.

        Args:
            conversation_id: Of this conversation; of everything unless given.
            since: Begin, unix seconds; an hour before the end unless given.
            until: End, unix seconds; now unless given.
            bucket_s: Length of a bucket, seconds; by the length of the time unless given.
        """
        asked = given(conversation=conversation_id, since=since, until=until, bucket_s=bucket_s)
        return Question(endpoints.HISTORY, asked)

    @_Answered
    def spend(
        self,
        by: Iterable[str] = (),
        *,
        since: float | str | None = None,
        until: float | str | None = None,
        timezone: str | None = None,
        where: Iterable[str] = (),
        top: int | None = None,
    ) -> Question[Spend]:
        """What was spent in a period, by anything: the groups add up to the total.

        Args:
            by: ``hour``, ``day``, ``week``, ``month``, ``conversation``, ``run``, ``model``, ``provider``, ``role``,
                ``agent``, ``service`` and other facts, names of labels; several are nested in that order.
            since: Begin, unix seconds or as in ``2026-11-20``, ``today``, ``7d``; from the first unless given.
            until: End, in the same words, a day included; to the last unless given.
            timezone: Whose days and hours, as in ``Europe/Berlin``; the viewer's unless given.
            where: Conditions such as ``model=gpt-5*`` or ``team!=payments``.
            top: How many groups are shown within each group; the others become one, a remainder.
        """
        return Question(endpoints.SPEND, spend_asked(by, since, until, timezone, where, top))

    @_Answered
    def latency(
        self,
        *,
        since: float | str | None = None,
        until: float | str | None = None,
        timezone: str | None = None,
        where: Iterable[str] = (),
    ) -> Question[Latency]:
        """How long LLM calls of a period took, as far as their spans are kept.

        Args:
            since: Begin, as in ``spend``.
            until: End, as in ``spend``.
            timezone: Whose days and hours; the viewer's unless given.
            where: Conditions such as ``model=gpt-5*``.
        """
        return Question(endpoints.LATENCY, spend_asked((), since, until, timezone, where, None))

    @_Answered
    def budgets(self) -> Question[tuple[Budget, ...]]:
        """How the viewer's budgets stand, in the order of its setting."""
        return Question(endpoints.BUDGETS)

    @_Answered
    def presence(self) -> Question[tuple[Presence, ...]]:
        """When instrumented processes held which conversations: what OpenHands' own files say of calls in these times
        is counted already. A Prometheus knows it from the first call to the last."""
        return Question(endpoints.PRESENCE)


class StatsClient(_Client, _Questions):
    """Reads one viewer (``openhands-otel view``), or one Prometheus. Usable from one thread at a time, and as a context
    manager.

    A Prometheus, or what speaks its HTTP API as Thanos and Mimir do, has ``prometheus+`` before its address, and the
    path before ``/api/v1``: ``prometheus+https://mimir.example/prometheus``. It answers by what agents sent it, with
    names as its OTLP receiver makes them. Of conversations it knows those of which something was said within a day, and
    any other by its id. It knows no connections, so nothing is ``gone``, and nothing that was read from OpenHands' own
    files; by conversation, run, usage id or cost source all spend cannot be grouped there, and it has no spans, so no
    calls and no timelines, none of the viewer's budgets and no past
    conversations. ``stream()`` asks it every five seconds.

    Proxies of the environment are used as everywhere, except on the way to this machine.

    Args:
        url: The address, with a path where a proxy puts one in front.
        token: What it asks for; unless given, this user's own viewer on this machine is shown its token unasked.
        timeout_s: How long an answer may take, seconds.
        certificate: File of authorities (PEM) to trust beside those that everybody does;
            ``OTEL_EXPORTER_OTLP_CERTIFICATE`` unless given.

    Raises:
        StatsError: The URL, the token or the certificate cannot be used. Every method raises it where the source
            refuses, does not know what was asked or answers something else, and Unreachable where nobody answers.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        timeout_s: float = 10.0,
        certificate: str | Path | None = None,
    ) -> None:
        super().__init__(url, token)
        self._http = self._open(httpx.Client, timeout_s, certificate)

    def stream(
        self, reconnect: bool = True, on_connection: Callable[[StatsError | None], object] | None = None
    ) -> Iterator[Update]:
        """Each change as it happens, a snapshot of everything first.

        A connection that breaks is made again and goes on where it was (or with a new snapshot). A collector that was
        never reached, or that refuses, raises StatsError; with ``reconnect=False`` a broken connection does too. One
        that says nothing any more, as a stopped one, is noticed within five seconds.

        Args:
            reconnect: Whether to connect again.
            on_connection: Called with what is wrong when a connection breaks, and with None when it is back.

        Returns:
            Updates without end; kinds that this release does not know are left out.

        Raises:
            StatsError: As said above.
        """
        resumption, changes = Resumption[StatsError](reconnect, on_connection), Changes()
        while True:
            try:
                for event_id, update in self._updates(resumption.last_event_id, changes):
                    resumption.is_back()
                    resumption.arrived(event_id)
                    if update is not None:
                        yield update
                raise Unreachable(f"{self.url} ended the stream")
            except Unreachable as error:
                pause = resumption.pause_after(error)
            time.sleep(pause)

    def close(self) -> None:
        """Close its connections; leaving a ``with`` block does so."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run[T](self, question: Question[T]) -> T:
        self._look_who_listens()
        steps = self._source.steps(question)
        with self._in_words():
            try:
                request = next(steps)
                while True:
                    request = steps.send(self._ask(request))
            except StopIteration as done:
                return done.value

    def _ask(self, request: Request) -> bytes:
        try:
            response = self._http.request(**request.options)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        return self._body(response)

    def _updates(self, last_event_id: str | None, changes: Changes) -> Iterator[tuple[str | None, Update | None]]:
        if self._source.poll_s is None:
            for event_id, data in self._events(last_event_id):
                yield event_id, self._parse_update(data)
            return
        while True:
            state = self.state()
            yield ASKED, None
            for update in changes.since(state):
                yield ASKED, update
            time.sleep(self._source.poll_s)

    def _events(self, last_event_id: str | None) -> Iterator[tuple[str | None, str]]:
        self._look_who_listens()
        reader = EventReader()
        try:
            with self._http.stream("GET", api_paths.EVENTS, headers=event_headers(last_event_id)) as response:
                if not response.is_success:
                    response.read()
                self._check_status(response)
                watch_silence(response)
                for chunk in response.iter_bytes():
                    yield from reader.read(chunk)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None


class AsyncStatsClient(_Client, _Questions):
    """``StatsClient`` for an event loop: the same methods, awaited. Usable as an asynchronous context manager.

    Since 0.2.0.

    Args:
        url: The address, with a path where a proxy puts one in front; ``prometheus+`` before that of a Prometheus.
        token: What it asks for; unless given, this user's own viewer on this machine is shown its token unasked.
        timeout_s: How long an answer may take, seconds.
        certificate: File of authorities (PEM) to trust beside those that everybody does;
            ``OTEL_EXPORTER_OTLP_CERTIFICATE`` unless given.

    Raises:
        StatsError: As with StatsClient.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        timeout_s: float = 10.0,
        certificate: str | Path | None = None,
    ) -> None:
        super().__init__(url, token)
        self._http = self._open(httpx.AsyncClient, timeout_s, certificate)

    async def stream(
        self, reconnect: bool = True, on_connection: Callable[[StatsError | None], object] | None = None
    ) -> AsyncIterator[Update]:
        """Each change as it happens, a snapshot of everything first; it connects again as StatsClient does.

        Args:
            reconnect: Whether to connect again.
            on_connection: Called with what is wrong when a connection breaks, and with None when it is back.

        Returns:
            Updates without end; kinds that this release does not know are left out.
        """
        resumption, changes = Resumption[StatsError](reconnect, on_connection), Changes()
        while True:
            try:
                async for event_id, update in self._updates(resumption.last_event_id, changes):
                    resumption.is_back()
                    resumption.arrived(event_id)
                    if update is not None:
                        yield update
                raise Unreachable(f"{self.url} ended the stream")
            except Unreachable as error:
                pause = resumption.pause_after(error)
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Close its connections; leaving an ``async with`` block does so."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _run[T](self, question: Question[T]) -> T:
        self._look_who_listens()
        steps = self._source.steps(question)
        with self._in_words():
            try:
                request = next(steps)
                while True:
                    request = steps.send(await self._ask(request))
            except StopIteration as done:
                return done.value

    async def _ask(self, request: Request) -> bytes:
        try:
            response = await self._http.request(**request.options)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        return self._body(response)

    async def _updates(
        self, last_event_id: str | None, changes: Changes
    ) -> AsyncIterator[tuple[str | None, Update | None]]:
        if self._source.poll_s is None:
            async for event_id, data in self._events(last_event_id):
                yield event_id, self._parse_update(data)
            return
        while True:
            state = await self.state()
            yield ASKED, None
            for update in changes.since(state):
                yield ASKED, update
            await asyncio.sleep(self._source.poll_s)

    async def _events(self, last_event_id: str | None) -> AsyncIterator[tuple[str | None, str]]:
        self._look_who_listens()
        reader = EventReader()
        try:
            async with self._http.stream("GET", api_paths.EVENTS, headers=event_headers(last_event_id)) as response:
                if not response.is_success:
                    await response.aread()
                self._check_status(response)
                watch_silence(response)
                async for chunk in response.aiter_bytes():
                    for event in reader.read(chunk):
                        yield event
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None


def _checked(token: str) -> str:
    try:
        return checked_token(token)
    except TokenError as error:
        raise StatsError(str(error)) from None
