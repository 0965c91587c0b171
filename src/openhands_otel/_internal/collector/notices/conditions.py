"""What holds now that somebody should know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from openhands_otel._internal.collector.notices.notice import Notice
from openhands_otel._internal.collector.state.conversation import Conversation
from openhands_otel._internal.combining.naming import NAME_LABEL, who_began
from openhands_otel._internal.money import money, percent
from openhands_otel._internal.terminal_text import printable
from openhands_otel.semconv import NoticeKind, RunOutcome, Status
from openhands_otel.stats import Budget, ConversationStats, Share

SHARES: Final = (50, 80, 95, 100)
"""Percent of a budget at which somebody is told."""
_OUTCOMES: Final = {
    RunOutcome.WAITING: (NoticeKind.WAITING, "waits for you"),
    RunOutcome.STUCK: (NoticeKind.STUCK, "is stuck"),
    RunOutcome.ERROR: (NoticeKind.ERROR, "failed"),
}
_NAME_LIMIT: Final = 120


def of_budget(budget: Budget, zone: ZoneInfo) -> list[Notice]:
    """A notice for each share that is reached, the highest last."""
    period = f"{budget.name} {int(budget.since)} {budget.amount!r}"
    share = budget.spent / budget.amount * 100
    text = (
        f"budget {printable(budget.name, _NAME_LIMIT)}: {money(budget.spent)} of {money(budget.amount)} spent"
        f" ({percent(budget.spent, budget.amount)}), {money(budget.per_hour)}/h"
    )
    if budget.exhausted_unix_s is not None:
        text += f", at that rate spent {datetime.fromtimestamp(budget.exhausted_unix_s, zone):%a %H:%M}"
    return [Notice(NoticeKind.BUDGET, f"{period} {reached}", text) for reached in SHARES if share >= reached]


def of_conversation(conversation: Conversation, stats: ConversationStats) -> Notice | None:
    """That its last run ended in a way that asks for a person, while its process lives or it failed."""
    # Some senders say only that it waits, not that its run ended so.
    outcome = stats.outcome or (RunOutcome.WAITING if stats.status == Status.WAITING else None)
    if outcome not in _OUTCOMES or (outcome == RunOutcome.WAITING and (stats.stale or stats.closed)):
        return None
    kind, says = _OUTCOMES[RunOutcome(outcome)]
    run = conversation.runs.last
    why = f" ({printable(stats.error_type, _NAME_LIMIT)})" if stats.error_type and kind is NoticeKind.ERROR else ""
    text = f"{name_of(stats)} {says}{why}, {money(stats.accumulated_cost)} so far"
    return Notice(kind, f"{stats.conversation_id} {0 if run is None else run.number}", text)


def of_models(models: Iterable[Share]) -> Iterator[Notice]:
    """Models whose calls have tokens and no price."""
    for model in models:
        if model.unpriced_calls:
            calls = "1 call" if model.unpriced_calls == 1 else f"{model.unpriced_calls:,} calls"
            text = f"no price is known for {printable(model.name, _NAME_LIMIT)}: {calls} count as $0"
            yield Notice(NoticeKind.UNPRICED, model.name, text)


def name_of(stats: ConversationStats) -> str:
    """What a person knows a conversation by; without its title, for notices go to others."""
    name, short_id = stats.name, stats.conversation_id[:8]
    if stats.title is not None:
        name = stats.labels.get(NAME_LABEL) or " ".join(
            filter(None, (who_began(stats.labels, stats.service), short_id))
        )
    return printable(name or short_id, _NAME_LIMIT)


class Progress:
    """What each running conversation has spent since it last got anywhere.

    It gets somewhere when a tool call ends and when a run begins or ends. An agent that talks to itself spends
    and does neither.
    """

    def __init__(self, limit_usd: float) -> None:
        self._limit = limit_usd
        self._since: dict[str, tuple[object, float]] = {}

    def look(self, stats: ConversationStats, signs: tuple[object, ...]) -> Notice | None:
        """``signs`` change whenever the conversation gets somewhere."""
        known = self._since.get(stats.conversation_id)
        if known is None or known[0] != signs:
            self._since[stats.conversation_id] = (signs, stats.accumulated_cost)
            return None
        spent = stats.accumulated_cost - known[1]
        if spent < self._limit:
            return None
        text = f"{name_of(stats)} spent {money(spent)} without a tool call, {money(stats.accumulated_cost)} so far"
        return Notice(NoticeKind.BURNING, f"{stats.conversation_id} {signs!r}", text)

    def keep(self, running: set[str]) -> None:
        """Forget those that do not run any more."""
        for gone in self._since.keys() - running:
            del self._since[gone]
