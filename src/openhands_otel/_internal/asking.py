"""How a viewer is asked over HTTP, whoever waits for the answer, a thread or an event loop.

What is asked and what the answer is; what a connection is made of; what went wrong, in words; events out of bytes.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

import httpx
from pydantic import TypeAdapter

from openhands_otel._internal.host.network import chain_of, proxy_for, tls_context, without_secrets
from openhands_otel._internal.terminal_text import printable
from openhands_otel.semconv import KEEP_ALIVE_HEADER, STREAM_PATIENCE, STREAM_SILENCE_S, RunOutcome
from openhands_otel.stats import Breakdown, Budget, Calls, ConversationStats, History, Presence, Spend, State, Timeline

CERTIFICATE: Final = "OTEL_EXPORTER_OTLP_CERTIFICATE"

_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 5.0

Event = tuple[str | None, str]
"""Its id, and its data."""


class Ask[T](NamedTuple):
    """One request, and what its answer is."""

    path: str
    kind: TypeAdapter[T]
    query: dict[str, Any] | None = None


STATE: Final = Ask("/api/v1/state", TypeAdapter(State))
TOTALS: Final = Ask("/api/v1/totals", TypeAdapter(Breakdown))
BUDGETS: Final = Ask("/api/v1/budgets", TypeAdapter(tuple[Budget, ...]))
PRESENCE: Final = Ask("/api/v1/presence", TypeAdapter(tuple[Presence, ...]))
_conversation: Final = TypeAdapter(ConversationStats)
_conversations: Final = TypeAdapter(tuple[ConversationStats, ...])
_calls: Final = TypeAdapter(Calls)
_timeline: Final = TypeAdapter(Timeline)
_history: Final = TypeAdapter(History)
_spend: Final = TypeAdapter(Spend)


def ask_conversations(outcome: RunOutcome | str | None) -> Ask[tuple[ConversationStats, ...]]:
    return Ask("/api/v1/conversations", _conversations, _given(outcome=None if outcome is None else str(outcome)))


def ask_conversation(conversation_id: str) -> Ask[ConversationStats]:
    return Ask(f"/api/v1/conversations/{quote(conversation_id, safe='')}", _conversation)


def ask_calls(conversation_id: str, sort: str | None, limit: int | None, offset: int | None) -> Ask[Calls]:
    path = f"/api/v1/conversations/{quote(conversation_id, safe='')}/calls"
    return Ask(path, _calls, _given(sort=sort, limit=limit, offset=offset))


def ask_timeline(conversation_id: str, limit: int | None, offset: int | None) -> Ask[Timeline]:
    path = f"/api/v1/conversations/{quote(conversation_id, safe='')}/timeline"
    return Ask(path, _timeline, _given(limit=limit, offset=offset))


def ask_history(
    conversation_id: str | None, since: float | None, until: float | None, bucket_s: float | None
) -> Ask[History]:
    asked = _given(conversation=conversation_id, since=since, until=until, bucket_s=bucket_s)
    return Ask("/api/v1/history", _history, asked)


def ask_spend(
    by: Iterable[str],
    since: float | None,
    until: float | None,
    timezone: str | None,
    where: Iterable[str],
    top: int | None,
) -> Ask[Spend]:
    asked = _given(by=",".join(by) or None, since=since, until=until, timezone=timezone, top=top)
    return Ask("/api/v1/spend", _spend, asked | {"where": list(where)})


def _given(**asked: object) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if value is not None}


def connection_options(url: str, token: str | None, timeout_s: float, certificate: str | None) -> dict[str, Any] | None:
    """What both of httpx's clients are made with; None where the URL is none.

    Raises ValueError for the URL too, and OSError for the certificate.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or (parts.port or 0) < 0:
        return None
    user = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
    return {
        "base_url": parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(),
        "headers": {} if token is None else {"authorization": f"Bearer {token}"},
        "auth": user if token is None else None,
        "timeout": timeout_s,
        # Neither ~/.netrc nor bundles of certificates for everybody: see network.py.
        "trust_env": False,
        "proxy": proxy_for(url),
        "verify": tls_context(certificate, speaks_tls=parts.scheme == "https"),
    }


def refusal(response: httpx.Response, shown: str, token: str | None) -> str | None:
    """Why an answer is none, with the address as it may be ``shown``; None where it is one."""
    if response.is_success:
        return None
    if response.status_code == 401:
        return f"{shown} wants a token: pass the one that it was started with"
    if response.has_redirect_location:
        # Not followed: the token would go to a host that the user has not named.
        there = printable(without_secrets(response.headers["location"]), 200)
        return f"{shown} redirects to {there}: name that address if it is meant"
    return f"{shown} answered {response.status_code}: {_told(response, token)}"


def _told(response: httpx.Response, token: str | None) -> str:
    """The message of a refusal, which may repeat what it was shown."""
    try:
        message = str(response.json()["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        message = response.reason_phrase
    return printable(message.replace(token, "***") if token else message, 200)


def why_unreachable(error: httpx.HTTPError, shown: str) -> str:
    """What is wrong with a connection."""
    for each in chain_of(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            reason = printable(each.verify_message, 120)
            return f"{shown}: certificate verify failed: {reason} (set {CERTIFICATE})"
        if isinstance(each, ssl.SSLError):
            return f"{shown} does not speak TLS as it should: is it http:// that is meant?"
        if isinstance(each, socket.gaierror):
            return f"{shown}: the host's name is not known ({each.strerror})"
    if isinstance(error, httpx.ProxyError):
        return f"the proxy does not lead to {shown}: {printable(str(error), 100)}"
    if isinstance(error, httpx.ConnectError):
        return f"nothing answers at {shown}: start 'openhands-otel view' there, or name another URL"
    reason = printable(" ".join(str(error).split()), 200) or type(error).__name__
    return f"the connection to {shown} broke: {reason}"


def event_headers(last_event_id: str | None) -> dict[str, str]:
    """What a stream is asked with, which goes on behind an event."""
    asked = {"accept": "text/event-stream"}
    return asked if last_event_id is None else asked | {"last-event-id": last_event_id}


def watch_silence(response: httpx.Response) -> None:
    """Have a stream break where it is silent for longer than it said that it would be.

    Looked up when the body is begun: how long it may be stands in its own head.
    """
    try:
        silence = min(STREAM_SILENCE_S, max(1.0, STREAM_PATIENCE * float(response.headers[KEEP_ALIVE_HEADER])))
    except (KeyError, ValueError):
        silence = STREAM_SILENCE_S
    response.request.extensions["timeout"] |= {"read": silence}


class EventReader:
    """Events out of the bytes of a stream; comments and half an event at the end count for nothing.

    Lines end as the stream has them. (httpx ends one at any separator that Unicode has, and a name may hold those.)
    """

    def __init__(self) -> None:
        self._begun: list[bytes] = []
        self._id: str | None = None
        self._data: list[str] = []

    def read(self, chunk: bytes) -> Iterator[Event]:
        """Those that end in a piece of it."""
        first, *others = chunk.split(b"\n")
        self._begun.append(first)
        for other in others:
            line = b"".join(self._begun).removesuffix(b"\r").decode("utf-8", "replace")
            self._begun = [other]
            yield from self._take(line)

    def _take(self, line: str) -> Iterator[Event]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if self._data:
                yield self._id, "\n".join(self._data)
            self._id, self._data = None, []
        elif name == "data":
            self._data.append(value)
        elif name == "id":
            self._id = value


class Resumption[E: Exception]:
    """Where a stream is, and whether and when it is taken up again."""

    def __init__(self, reconnect: bool, on_connection: Callable[[E | None], object] | None) -> None:
        self.last_event_id: str | None = None
        self._reconnect = reconnect
        self._tell = on_connection
        self._broken = False
        self._pause = _FIRST_PAUSE_S

    def arrived(self, event_id: str | None) -> None:
        """An event was read."""
        self.last_event_id = event_id or self.last_event_id
        self._pause = _FIRST_PAUSE_S

    def is_back(self) -> None:
        """There is an event again."""
        if self._broken and self._tell is not None:
            self._tell(None)
        self._broken = False

    def pause_after(self, error: E) -> float:
        """How long to wait before the next attempt, seconds; raises the error where there is none."""
        if not self._reconnect or self.last_event_id is None:
            raise error
        self._broken = True
        if self._tell is not None:
            self._tell(error)
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE_S)
        return pause
