"""A collector's numbers as pydantic objects, from anywhere: ``StatsClient``, and ``AsyncStatsClient`` for event loops.

    with StatsClient("http://127.0.0.1:4318") as client:
        print(client.totals().totals.accumulated_cost)
        for update in client.stream():
            ...

What goes wrong is raised as StatsError, whose message is one line.

Since 0.1.0.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

try:
    import httpx
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "StatsClient needs the package 'httpx': pip install 'openhands-otel[viewer]'", name=missing.name
    ) from None
from pydantic import TypeAdapter, ValidationError

from openhands_otel._internal.asking import (
    BUDGETS,
    CERTIFICATE,
    PRESENCE,
    STATE,
    TOTALS,
    Ask,
    EventReader,
    Resumption,
    ask_calls,
    ask_conversation,
    ask_conversations,
    ask_history,
    ask_spend,
    ask_timeline,
    connection_options,
    event_headers,
    refusal,
    watch_silence,
    why_unreachable,
)
from openhands_otel._internal.host.neighbours import stranger_at
from openhands_otel._internal.host.network import without_secrets
from openhands_otel._internal.host.state_folder import unasked_token
from openhands_otel._internal.host.token_file import TokenError, checked_token
from openhands_otel._internal.terminal_text import printable
from openhands_otel.semconv import RunOutcome
from openhands_otel.stats import (
    Breakdown,
    Budget,
    Calls,
    ConversationStats,
    History,
    Presence,
    Spend,
    State,
    Timeline,
    Update,
)

# fmt: off
__all__ = [
    "DEFAULT_URL", "AsyncStatsClient", "StatsClient", "StatsError", "Unreachable",
]
# fmt: on

DEFAULT_URL: Final = "http://127.0.0.1:4318"

_EVENTS: Final = "/api/v1/events"

_update: Final[TypeAdapter[Update]] = TypeAdapter(Update)


class StatsError(Exception):
    """The collector cannot be asked, or its answer cannot be used."""


class Unreachable(StatsError):
    """No collector answers, or the connection broke: trying again may help."""


class _Client:
    """What both clients have in common: whom they ask, and what they make of an answer."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = printable(without_secrets(url).rstrip("/"), 200)
        self._token = unasked_token(url) if token is None else _checked(token)
        self._needs_owner = token is None

    def _open[H](self, kind: Callable[..., H], url: str, timeout_s: float, certificate: str | Path | None) -> H:
        """One of httpx's clients for a URL."""
        trusted = str(certificate) if certificate is not None else os.environ.get(CERTIFICATE, "").strip() or None
        try:
            options = connection_options(url.strip().rstrip("/"), self._token, timeout_s, trusted)
            opened = None if options is None else kind(**options)
            self._address = httpx.URL("" if options is None else options["base_url"])
        except (httpx.InvalidURL, ValueError):
            opened = None
        except OSError as error:
            reason = error.strerror or "it holds no certificate"
            raise StatsError(f"a file of certificates cannot be used ({trusted or 'the default'}): {reason}") from None
        if opened is None:
            raise StatsError(f"{self.url} is no address of a collector: it should look like {DEFAULT_URL}")
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
        return Unreachable(why_unreachable(error, self.url))

    def _parse[T](self, ask: Ask[T], response: httpx.Response) -> T:
        self._check_status(response)
        try:
            return ask.kind.validate_json(response.content)
        except ValidationError:
            raise self._stranger() from None

    def _parse_update(self, data: str) -> Update | None:
        """None for a kind of update that this release does not know: a newer collector has more to say."""
        try:
            return _update.validate_json(data)
        except ValidationError as error:
            if error.errors(include_input=False)[0]["type"] == "union_tag_invalid":
                return None
        raise self._stranger()

    def _stranger(self) -> StatsError:
        return StatsError(f"{self.url} does not answer as a collector of openhands-otel does")


class StatsClient(_Client):
    """Reads one collector (``openhands-otel view``). Usable from one thread at a time, and as a context manager.

    Proxies of the environment are used as everywhere, except on the way to this machine.

    Args:
        url: The viewer's address, with a path where a proxy puts one in front.
        token: What it asks for; unless given, this user's own viewer on this machine is shown its token unasked.
        timeout_s: How long an answer may take, seconds.
        certificate: File of authorities (PEM) to trust beside those that everybody does;
            ``OTEL_EXPORTER_OTLP_CERTIFICATE`` unless given.

    Raises:
        StatsError: The URL, the token or the certificate cannot be used. Every method raises it where the collector
            refuses or its answer cannot be used, and Unreachable where nobody answers.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        timeout_s: float = 10.0,
        certificate: str | Path | None = None,
    ) -> None:
        super().__init__(url, token)
        self._http = self._open(httpx.Client, url, timeout_s, certificate)

    def state(self) -> State:
        """Everything the collector holds now."""
        return self._get(STATE)

    def conversations(self, outcome: RunOutcome | str | None = None) -> tuple[ConversationStats, ...]:
        """All conversations in the collector's memory, latest change first.

        Args:
            outcome: Only those whose last run ended so.
        """
        return self._get(ask_conversations(outcome))

    def conversation(self, conversation_id: str) -> ConversationStats:
        """One conversation, one that has left the collector's memory too.

        Args:
            conversation_id: ``str(conversation.id)``.

        Raises:
            StatsError: The collector does not know it.
        """
        return self._get(ask_conversation(conversation_id))

    def calls(
        self, conversation_id: str, *, sort: str | None = None, limit: int | None = None, offset: int | None = None
    ) -> Calls:
        """LLM calls of a conversation, and what they leave of its cost.

        Args:
            conversation_id: ``str(conversation.id)``.
            sort: A field of a call or of its tokens, with ``-`` before it the largest first (``-begun``).
            limit: How many; 100 unless given.
            offset: How many to leave out before.
        """
        return self._get(ask_calls(conversation_id, sort, limit, offset))

    def timeline(self, conversation_id: str, *, limit: int | None = None, offset: int | None = None) -> Timeline:
        """What a conversation did and does: runs, calls and tools, with those of sub-agents below them.

        Args:
            conversation_id: ``str(conversation.id)``.
            limit: How many rows; 100 unless given.
            offset: How many to leave out before.
        """
        return self._get(ask_timeline(conversation_id, limit, offset))

    def totals(self) -> Breakdown:
        """All that was spent, by model, role, provider, agent and service."""
        return self._get(TOTALS)

    def history(
        self,
        conversation_id: str | None = None,
        *,
        since: float | None = None,
        until: float | None = None,
        bucket_s: float | None = None,
    ) -> History:
        """Spend over time.

        Args:
            conversation_id: Of this conversation; of everything unless given.
            since: Begin, unix seconds; an hour before the end unless given.
            until: End, unix seconds; now unless given.
            bucket_s: Length of a bucket, seconds; by the length of the time unless given.
        """
        return self._get(ask_history(conversation_id, since, until, bucket_s))

    def spend(
        self,
        by: Iterable[str] = (),
        *,
        since: float | None = None,
        until: float | None = None,
        timezone: str | None = None,
        where: Iterable[str] = (),
        top: int | None = None,
    ) -> Spend:
        """What was spent in a period, by anything: the groups add up to the total.

        Args:
            by: ``hour``, ``day``, ``week``, ``month``, ``conversation``, ``run``, ``model``, ``provider``, ``role``,
                ``agent``, ``service`` and other facts, names of labels; several are nested in that order.
            since: Begin, unix seconds; from the first unless given.
            until: End, unix seconds; to the last unless given.
            timezone: Whose days and hours, as in ``Europe/Berlin``; the viewer's unless given.
            where: Conditions such as ``model=gpt-5*`` or ``team!=payments``.
            top: How many groups are shown within each group; the others become one, a remainder.
        """
        return self._get(ask_spend(by, since, until, timezone, where, top))

    def budgets(self) -> tuple[Budget, ...]:
        """How the viewer's budgets stand, in the order of its setting."""
        return self._get(BUDGETS)

    def presence(self) -> tuple[Presence, ...]:
        """When instrumented processes held which conversations: what OpenHands' own files say of calls in these times
        is counted already."""
        return self._get(PRESENCE)

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
        resumption = Resumption[StatsError](reconnect, on_connection)
        while True:
            try:
                for event_id, data in self._events(resumption.last_event_id):
                    resumption.is_back()
                    update = self._parse_update(data)
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

    def _get[T](self, ask: Ask[T]) -> T:
        self._look_who_listens()
        try:
            response = self._http.get(ask.path, params=ask.query)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        return self._parse(ask, response)

    def _events(self, last_event_id: str | None) -> Iterator[tuple[str | None, str]]:
        self._look_who_listens()
        reader = EventReader()
        try:
            with self._http.stream("GET", _EVENTS, headers=event_headers(last_event_id)) as response:
                if not response.is_success:
                    response.read()
                self._check_status(response)
                watch_silence(response)
                for chunk in response.iter_bytes():
                    yield from reader.read(chunk)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None


class AsyncStatsClient(_Client):
    """``StatsClient`` for an event loop: the same methods, awaited. Usable as an asynchronous context manager.

    Since 0.2.0.

    Args:
        url: The viewer's address, with a path where a proxy puts one in front.
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
        self._http = self._open(httpx.AsyncClient, url, timeout_s, certificate)

    async def state(self) -> State:
        """Everything the collector holds now."""
        return await self._get(STATE)

    async def conversations(self, outcome: RunOutcome | str | None = None) -> tuple[ConversationStats, ...]:
        """All conversations in the collector's memory, latest change first.

        Args:
            outcome: Only those whose last run ended so.
        """
        return await self._get(ask_conversations(outcome))

    async def conversation(self, conversation_id: str) -> ConversationStats:
        """One conversation, one that has left the collector's memory too.

        Args:
            conversation_id: ``str(conversation.id)``.
        """
        return await self._get(ask_conversation(conversation_id))

    async def calls(
        self, conversation_id: str, *, sort: str | None = None, limit: int | None = None, offset: int | None = None
    ) -> Calls:
        """LLM calls of a conversation, and what they leave of its cost.

        Args:
            conversation_id: ``str(conversation.id)``.
            sort: A field of a call or of its tokens, with ``-`` before it the largest first (``-begun``).
            limit: How many; 100 unless given.
            offset: How many to leave out before.
        """
        return await self._get(ask_calls(conversation_id, sort, limit, offset))

    async def timeline(self, conversation_id: str, *, limit: int | None = None, offset: int | None = None) -> Timeline:
        """What a conversation did and does: runs, calls and tools, with those of sub-agents below them.

        Args:
            conversation_id: ``str(conversation.id)``.
            limit: How many rows; 100 unless given.
            offset: How many to leave out before.
        """
        return await self._get(ask_timeline(conversation_id, limit, offset))

    async def totals(self) -> Breakdown:
        """All that was spent, by model, role, provider, agent and service."""
        return await self._get(TOTALS)

    async def history(
        self,
        conversation_id: str | None = None,
        *,
        since: float | None = None,
        until: float | None = None,
        bucket_s: float | None = None,
    ) -> History:
        """Spend over time.

        Args:
            conversation_id: Of this conversation; of everything unless given.
            since: Begin, unix seconds; an hour before the end unless given.
            until: End, unix seconds; now unless given.
            bucket_s: Length of a bucket, seconds; by the length of the time unless given.
        """
        return await self._get(ask_history(conversation_id, since, until, bucket_s))

    async def spend(
        self,
        by: Iterable[str] = (),
        *,
        since: float | None = None,
        until: float | None = None,
        timezone: str | None = None,
        where: Iterable[str] = (),
        top: int | None = None,
    ) -> Spend:
        """What was spent in a period, by anything: the groups add up to the total.

        Args:
            by: Units of time, facts and labels, as for StatsClient.
            since: Begin, unix seconds; from the first unless given.
            until: End, unix seconds; to the last unless given.
            timezone: Whose days and hours, as in ``Europe/Berlin``; the viewer's unless given.
            where: Conditions such as ``model=gpt-5*`` or ``team!=payments``.
            top: How many groups are shown within each group; the others become one, a remainder.
        """
        return await self._get(ask_spend(by, since, until, timezone, where, top))

    async def budgets(self) -> tuple[Budget, ...]:
        """How the viewer's budgets stand, in the order of its setting."""
        return await self._get(BUDGETS)

    async def presence(self) -> tuple[Presence, ...]:
        """When instrumented processes held which conversations."""
        return await self._get(PRESENCE)

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
        resumption = Resumption[StatsError](reconnect, on_connection)
        while True:
            try:
                async for event_id, data in self._events(resumption.last_event_id):
                    resumption.is_back()
                    update = self._parse_update(data)
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

    async def _get[T](self, ask: Ask[T]) -> T:
        self._look_who_listens()
        try:
            response = await self._http.get(ask.path, params=ask.query)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        return self._parse(ask, response)

    async def _events(self, last_event_id: str | None) -> AsyncIterator[tuple[str | None, str]]:
        self._look_who_listens()
        reader = EventReader()
        try:
            async with self._http.stream("GET", _EVENTS, headers=event_headers(last_event_id)) as response:
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
