"""A viewer's stream of changes: how it is asked for, read and taken up again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import httpx

from openhands_otel.semconv import KEEP_ALIVE_HEADER, STREAM_PATIENCE, STREAM_SILENCE_S

_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 5.0

ServerSentEvent = tuple[str | None, str]
"""Its id, and its data."""


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

    def read(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        """Those that end in a piece of it."""
        first, *others = chunk.split(b"\n")
        self._begun.append(first)
        for other in others:
            line = b"".join(self._begun).removesuffix(b"\r").decode("utf-8", "replace")
            self._begun = [other]
            yield from self._take(line)

    def _take(self, line: str) -> Iterator[ServerSentEvent]:
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
