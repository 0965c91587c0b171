"""What is asked of a source, and how: request by request, by a generator that yields each and is sent the answer.

So a client for threads and one for event loops ask in the same words, and each waits in its own way.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from openhands_otel._internal.asking.endpoints import JSON, Endpoint


@dataclass(frozen=True, slots=True)
class Question[T]:
    """A question in the words of the viewer's API, whoever is asked it."""

    endpoint: Endpoint[T]
    query: Mapping[str, Any] = field(default_factory=dict[str, Any])
    conversation_id: str = ""
    """For the endpoint's path, where that names one."""
    body: str | None = None
    """JSON."""


class Request(NamedTuple):
    """One request: a POST where it has a form or a body, else a GET."""

    path: str
    query: Mapping[str, Any] | None = None
    form: dict[str, str] | None = None
    body: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """As both of httpx's clients take them."""
        asked = {"url": self.path, "params": self.query, "data": self.form, "content": self.body}
        headers = None if self.body is None else {"content-type": JSON}
        return {"method": "GET" if self.form is self.body is None else "POST", "headers": headers, **asked}


type Steps[T] = Generator[Request, bytes, T]
"""Yields requests, is sent the bodies of their answers, and returns what they say."""


class CannotAnswer(Exception):
    """What was asked has no answer there; the message is one line that says what to do."""


class Unintelligible(Exception):
    """Whoever answered is of another kind."""


class Source(Protocol):
    """Whom a client asks."""

    kind: str
    """What it is, after "as"."""
    example: str
    """An address of one."""
    cure: str
    """What to do where nobody answers."""
    poll_s: float | None
    """How often it has to be asked what has changed, seconds; None where it tells by itself."""

    def steps[T](self, question: Question[T]) -> Steps[T]:
        """How a question is asked there."""
        ...


def given(**asked: object) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in asked.items() if value is not None}


def spend_asked(
    by: Iterable[str],
    since: float | str | None,
    until: float | str | None,
    timezone: str | None,
    where: Iterable[str],
    top: int | None,
) -> dict[str, list[str]]:
    """A question about spend in the words of the viewer's API."""
    asked = given(by=",".join(by) or None, since=since, until=until, timezone=timezone, top=top)
    return {name: [str(value)] for name, value in asked.items()} | {"where": list(where)}
