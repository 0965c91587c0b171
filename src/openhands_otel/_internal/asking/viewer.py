"""What a viewer is asked, over its API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from openhands_otel._internal.asking.steps import Request, Source, Steps, Unintelligible, given, spend_asked
from openhands_otel._internal.host.network import VIEWER_URL
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

_state: Final = TypeAdapter(State)
_totals: Final = TypeAdapter(Breakdown)
_budgets: Final = TypeAdapter(tuple[Budget, ...])
_presence: Final = TypeAdapter(tuple[Presence, ...])
_conversation: Final = TypeAdapter(ConversationStats)
_conversations: Final = TypeAdapter(tuple[ConversationStats, ...])
_calls: Final = TypeAdapter(Calls)
_timeline: Final = TypeAdapter(Timeline)
_runs: Final = TypeAdapter(tuple[ConversationRun, ...])
_history: Final = TypeAdapter(History)
_spend: Final = TypeAdapter(Spend)
_latency: Final = TypeAdapter(Latency)


class Viewer(Source):
    """``openhands-otel view``."""

    kind = "a collector of openhands-otel"
    example = VIEWER_URL
    cure = "start 'openhands-otel view' there, or name another URL"
    poll_s = None

    def state(self) -> Steps[State]:
        return _asked("/api/v1/state", _state)

    def conversations(self, outcome: RunOutcome | str | None) -> Steps[tuple[ConversationStats, ...]]:
        wanted = given(outcome=None if outcome is None else str(outcome))
        return _asked("/api/v1/conversations", _conversations, wanted)

    def past_conversations(
        self, search: str | None, where: Iterable[str], sort: str | None, limit: int | None, offset: int | None
    ) -> Steps[tuple[ConversationStats, ...]]:
        asked = given(search=search, where=list(where) or None, sort=sort, limit=limit, offset=offset)
        return _asked("/api/v1/conversations", _conversations, {"past": "yes"} | asked)

    def conversation(self, conversation_id: str) -> Steps[ConversationStats]:
        return _asked(f"/api/v1/conversations/{quote(conversation_id, safe='')}", _conversation)

    def calls(self, conversation_id: str, sort: str | None, limit: int | None, offset: int | None) -> Steps[Calls]:
        path = f"/api/v1/conversations/{quote(conversation_id, safe='')}/calls"
        return _asked(path, _calls, given(sort=sort, limit=limit, offset=offset))

    def timeline(self, conversation_id: str, limit: int | None, offset: int | None) -> Steps[Timeline]:
        path = f"/api/v1/conversations/{quote(conversation_id, safe='')}/timeline"
        return _asked(path, _timeline, given(limit=limit, offset=offset))

    def runs(
        self, conversation_id: str | None, outcome: RunOutcome | str | None, limit: int | None, offset: int | None
    ) -> Steps[tuple[ConversationRun, ...]]:
        asked = given(conversation=conversation_id, outcome=outcome and str(outcome), limit=limit, offset=offset)
        return _asked("/api/v1/runs", _runs, asked)

    def totals(self) -> Steps[Breakdown]:
        return _asked("/api/v1/totals", _totals)

    def history(
        self, conversation_id: str | None, since: float | None, until: float | None, bucket_s: float | None
    ) -> Steps[History]:
        asked = given(conversation=conversation_id, since=since, until=until, bucket_s=bucket_s)
        return _asked("/api/v1/history", _history, asked)

    def spend(
        self,
        by: Iterable[str],
        since: float | str | None,
        until: float | str | None,
        timezone: str | None,
        where: Iterable[str],
        top: int | None,
    ) -> Steps[Spend]:
        return _asked("/api/v1/spend", _spend, spend_asked(by, since, until, timezone, where, top))

    def latency(
        self, since: float | str | None, until: float | str | None, timezone: str | None, where: Iterable[str]
    ) -> Steps[Latency]:
        return _asked("/api/v1/latency", _latency, spend_asked((), since, until, timezone, where, None))

    def budgets(self) -> Steps[tuple[Budget, ...]]:
        return _asked("/api/v1/budgets", _budgets)

    def presence(self) -> Steps[tuple[Presence, ...]]:
        return _asked("/api/v1/presence", _presence)


def _asked[T](path: str, kind: TypeAdapter[T], query: dict[str, Any] | None = None) -> Steps[T]:
    answer = yield Request(path, query)
    try:
        return kind.validate_json(answer)
    except ValidationError:
        raise Unintelligible from None
