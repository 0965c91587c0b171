"""What is asked of a source, request by request: a generator that yields each and is sent the answer.

So a client for threads and one for event loops ask in the same words, and each waits in its own way.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, NamedTuple, Protocol

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
)


class Request(NamedTuple):
    """One request: a POST where it has a form, else a GET."""

    path: str
    query: dict[str, Any] | None = None
    form: dict[str, str] | None = None

    @property
    def method(self) -> str:
        return "GET" if self.form is None else "POST"


type Steps[T] = Generator[Request, bytes, T]
"""Yields requests, is sent the bodies of their answers, and returns what they say."""


class CannotAnswer(Exception):
    """What was asked has no answer there; the message is one line that says what to do."""


class Unintelligible(Exception):
    """Whoever answered is of another kind."""


class Source(Protocol):
    """Whom a client asks; see ``StatsClient`` for what each method is asked."""

    kind: str
    """What it is, after "as"."""
    example: str
    """An address of one."""
    cure: str
    """What to do where nobody answers."""
    poll_s: float | None
    """How often it has to be asked what has changed, seconds; None where it tells by itself."""

    def state(self) -> Steps[State]: ...
    def conversations(self, outcome: RunOutcome | str | None) -> Steps[tuple[ConversationStats, ...]]: ...
    def past_conversations(
        self, search: str | None, where: Iterable[str], sort: str | None, limit: int | None, offset: int | None
    ) -> Steps[tuple[ConversationStats, ...]]: ...
    def conversation(self, conversation_id: str) -> Steps[ConversationStats]: ...
    def calls(self, conversation_id: str, sort: str | None, limit: int | None, offset: int | None) -> Steps[Calls]: ...
    def timeline(self, conversation_id: str, limit: int | None, offset: int | None) -> Steps[Timeline]: ...
    def runs(
        self, conversation_id: str | None, outcome: RunOutcome | str | None, limit: int | None, offset: int | None
    ) -> Steps[tuple[ConversationRun, ...]]: ...
    def totals(self) -> Steps[Breakdown]: ...
    def history(
        self, conversation_id: str | None, since: float | None, until: float | None, bucket_s: float | None
    ) -> Steps[History]: ...
    def spend(
        self,
        by: Iterable[str],
        since: float | str | None,
        until: float | str | None,
        timezone: str | None,
        where: Iterable[str],
        top: int | None,
    ) -> Steps[Spend]: ...
    def latency(
        self, since: float | str | None, until: float | str | None, timezone: str | None, where: Iterable[str]
    ) -> Steps[Latency]: ...
    def budgets(self) -> Steps[tuple[Budget, ...]]: ...
    def presence(self) -> Steps[tuple[Presence, ...]]: ...


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
