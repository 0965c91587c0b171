"""A collector's numbers as pydantic objects, from anywhere: ``StatsClient``.

    with StatsClient("http://127.0.0.1:4318") as client:
        print(client.totals().totals.accumulated_cost)
        for update in client.stream():
            ...

What goes wrong is raised as StatsError, whose message is one line.

Since 0.1.0.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, unquote, urlsplit

try:
    import httpx
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "StatsClient needs the package 'httpx': pip install 'openhands-otel[viewer]'", name=missing.name
    ) from None
from pydantic import BaseModel, TypeAdapter, ValidationError

from openhands_otel._internal.host.neighbours import stranger_at
from openhands_otel._internal.host.network import chain_of, proxy_for, tls_context, without_secrets
from openhands_otel._internal.host.state_folder import unasked_token
from openhands_otel._internal.host.token_file import TokenError, checked_token
from openhands_otel._internal.terminal_text import printable
from openhands_otel.semconv import KEEP_ALIVE_HEADER, STREAM_PATIENCE, STREAM_SILENCE_S, RunOutcome
from openhands_otel.stats import Breakdown, ConversationStats, History, Presence, Spend, State, Update

# fmt: off
__all__ = [
    "DEFAULT_URL", "StatsClient", "StatsError", "Unreachable",
]
# fmt: on

DEFAULT_URL: Final = "http://127.0.0.1:4318"

_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 5.0

_CERTIFICATE: Final = "OTEL_EXPORTER_OTLP_CERTIFICATE"

_update: Final[TypeAdapter[Update]] = TypeAdapter(Update)
_conversations: Final = TypeAdapter(tuple[ConversationStats, ...])
_presence: Final = TypeAdapter(tuple[Presence, ...])


class StatsError(Exception):
    """The collector cannot be asked, or its answer cannot be used."""


class Unreachable(StatsError):
    """No collector answers, or the connection broke: trying again may help."""


class StatsClient:
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
        self.url = printable(without_secrets(url).rstrip("/"), 200)
        self._token = unasked_token(url) if token is None else _checked(token)
        trusted = str(certificate) if certificate is not None else os.environ.get(_CERTIFICATE, "").strip() or None
        self._http = self._open(url.strip().rstrip("/"), timeout_s, trusted)
        self._needs_owner = token is None

    def _open(self, url: str, timeout_s: float, certificate: str | None) -> httpx.Client:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 0) >= 0
            user = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
            client = None
            if usable:
                client = httpx.Client(
                    base_url=parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(),
                    headers={} if self._token is None else {"authorization": f"Bearer {self._token}"},
                    auth=user if self._token is None else None,
                    timeout=timeout_s,
                    # Neither ~/.netrc nor bundles of certificates for everybody: see network.py.
                    trust_env=False,
                    proxy=proxy_for(url),
                    verify=tls_context(certificate, speaks_tls=parts.scheme == "https"),
                )
        except (httpx.InvalidURL, ValueError):
            client = None
        except OSError as error:
            reason = error.strerror or "it holds no certificate"
            raise StatsError(
                f"a file of certificates cannot be used ({certificate or 'the default'}): {reason}"
            ) from None
        if client is None:
            raise StatsError(f"{self.url} is no address of a collector: it should look like {DEFAULT_URL}")
        return client

    def state(self) -> State:
        """Everything the collector holds now."""
        return self._get("/api/v1/state", State)

    def conversations(self, outcome: RunOutcome | str | None = None) -> tuple[ConversationStats, ...]:
        """All conversations in the collector's memory, latest change first.

        Args:
            outcome: Only those whose last run ended so.
        """
        query = None if outcome is None else {"outcome": str(outcome)}
        return self._check(lambda: _conversations.validate_json(self._fetch("/api/v1/conversations", query)))

    def conversation(self, conversation_id: str) -> ConversationStats:
        """One conversation, one that has left the collector's memory too.

        Args:
            conversation_id: ``str(conversation.id)``.

        Raises:
            StatsError: The collector does not know it.
        """
        return self._get(f"/api/v1/conversations/{quote(conversation_id, safe='')}", ConversationStats)

    def totals(self) -> Breakdown:
        """All that was spent, by model, role, provider, agent and service."""
        return self._get("/api/v1/totals", Breakdown)

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
        asked = {"conversation": conversation_id, "since": since, "until": until, "bucket_s": bucket_s}
        given = {name: value for name, value in asked.items() if value is not None}
        return self._get("/api/v1/history", History, given)

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
        asked = {"by": ",".join(by) or None, "since": since, "until": until, "timezone": timezone, "top": top}
        given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        return self._get("/api/v1/spend", Spend, given | {"where": list(where)})

    def presence(self) -> tuple[Presence, ...]:
        """When instrumented processes held which conversations: what OpenHands' own files say of calls in these times
        is counted already."""
        return self._check(lambda: _presence.validate_json(self._fetch("/api/v1/presence")))

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
        last_event_id: str | None = None
        pause = _FIRST_PAUSE_S
        broken = False
        while True:
            try:
                for event_id, data in self._events(last_event_id):
                    if broken:
                        broken = False
                        _tell(on_connection, None)
                    update = self._parse_update(data)
                    last_event_id = event_id or last_event_id
                    pause = _FIRST_PAUSE_S
                    if update is not None:
                        yield update
                raise Unreachable(f"{self.url} ended the stream")
            except Unreachable as error:
                if not reconnect or last_event_id is None:
                    raise
                broken = True
                _tell(on_connection, error)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def close(self) -> None:
        """Close its connections; leaving a ``with`` block does so."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _get[T: BaseModel](self, path: str, model: type[T], query: dict[str, Any] | None = None) -> T:
        return self._check(lambda: model.model_validate_json(self._fetch(path, query)))

    def _look_who_listens(self) -> None:
        """Whoever shows no token expects a viewer of his own: another user's numbers would be taken for it."""
        address = self._http.base_url
        stranger = stranger_at(address.host, address.port or 80) if self._needs_owner else None
        if stranger is not None:
            raise StatsError(f"{stranger}: it is asked nothing without a token")

    def _fetch(self, path: str, query: dict[str, Any] | None = None) -> bytes:
        self._look_who_listens()
        try:
            response = self._http.get(path, params=query)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        self._check_status(response)
        return response.content

    def _events(self, last_event_id: str | None) -> Iterator[tuple[str | None, str]]:
        headers = {"accept": "text/event-stream"}
        if last_event_id is not None:
            headers["last-event-id"] = last_event_id
        self._look_who_listens()
        try:
            with self._http.stream("GET", "/api/v1/events", headers=headers) as response:
                if not response.is_success:
                    response.read()
                self._check_status(response)
                # Looked up when the body is begun: how long it may be silent stands in its own head.
                response.request.extensions["timeout"] |= {"read": _silence_s(response)}
                yield from _split(_lines(response.iter_bytes()))
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def _parse_update(self, data: str) -> Update | None:
        """None for a kind of update that this release does not know: a newer collector has more to say."""
        try:
            return _update.validate_json(data)
        except ValidationError as error:
            if error.errors(include_input=False)[0]["type"] == "union_tag_invalid":
                return None
        raise self._stranger()

    def _check[T](self, parse: Callable[[], T]) -> T:
        try:
            return parse()
        except ValidationError:
            raise self._stranger() from None

    def _stranger(self) -> StatsError:
        return StatsError(f"{self.url} does not answer as a collector of openhands-otel does")

    def _check_status(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        if response.status_code == 401:
            raise StatsError(f"{self.url} wants a token: pass the one that it was started with")
        if response.has_redirect_location:
            # Not followed: the token would go to a host that the user has not named.
            there = printable(without_secrets(response.headers["location"]), 200)
            raise StatsError(f"{self.url} redirects to {there}: name that address if it is meant")
        said = f"{self.url} answered {response.status_code}: {self._told(response)}"
        raise Unreachable(said) if response.is_server_error else StatsError(said)

    def _told(self, response: httpx.Response) -> str:
        """The message of a refusal, which may repeat what it was shown."""
        try:
            message = str(response.json()["message"])
        except (ValueError, KeyError, TypeError, RecursionError):
            message = response.reason_phrase
        return printable(message.replace(self._token, "***") if self._token else message, 200)

    def _unreachable(self, error: httpx.HTTPError) -> Unreachable:
        for each in chain_of(error):
            if isinstance(each, ssl.SSLCertVerificationError):
                reason = printable(each.verify_message, 120)
                return Unreachable(f"{self.url}: certificate verify failed: {reason} (set {_CERTIFICATE})")
            if isinstance(each, ssl.SSLError):
                return Unreachable(f"{self.url} does not speak TLS as it should: is it http:// that is meant?")
            if isinstance(each, socket.gaierror):
                return Unreachable(f"{self.url}: the host's name is not known ({each.strerror})")
        if isinstance(error, httpx.ProxyError):
            return Unreachable(f"the proxy does not lead to {self.url}: {printable(str(error), 100)}")
        if isinstance(error, httpx.ConnectError):
            return Unreachable(f"nothing answers at {self.url}: start 'openhands-otel view' there, or name another URL")
        reason = printable(" ".join(str(error).split()), 200) or type(error).__name__
        return Unreachable(f"the connection to {self.url} broke: {reason}")


def _checked(token: str) -> str:
    try:
        return checked_token(token)
    except TokenError as error:
        raise StatsError(str(error)) from None


def _tell(on_connection: Callable[[StatsError | None], object] | None, problem: StatsError | None) -> None:
    if on_connection is not None:
        on_connection(problem)


def _silence_s(response: httpx.Response) -> float:
    try:
        return min(STREAM_SILENCE_S, max(1.0, STREAM_PATIENCE * float(response.headers[KEEP_ALIVE_HEADER])))
    except (KeyError, ValueError):
        return STREAM_SILENCE_S


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """Lines as the stream has them. (``iter_lines`` ends one at any separator that Unicode has, and a name may hold
    those.)"""
    begun: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        begun.append(first)
        for other in others:
            yield b"".join(begun).removesuffix(b"\r").decode("utf-8", "replace")
            begun = [other]


def _split(lines: Iterator[str]) -> Iterator[tuple[str | None, str]]:
    """Events of a stream as (id, data); comments and half an event at the end count for nothing."""
    event_id: str | None = None
    data: list[str] = []
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield event_id, "\n".join(data)
            event_id, data = None, []
        elif name == "data":
            data.append(value)
        elif name == "id":
            event_id = value
