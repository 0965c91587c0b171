"""What a Prometheus is asked, so that it answers as a viewer would, as far as its series go."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from zoneinfo import ZoneInfo

from openhands_otel import semconv
from openhands_otel._internal.asking import endpoints
from openhands_otel._internal.asking.endpoints import Endpoint
from openhands_otel._internal.asking.prometheus_conversations import (
    HEARTBEAT_SERIES,
    ID,
    ask_children,
    ask_costs,
    ask_known,
    ask_lives,
    ask_series,
)
from openhands_otel._internal.asking.prometheus_spend import ask_rows, ask_spend
from openhands_otel._internal.asking.promql import (
    EVER_S,
    all_values,
    duration,
    matching,
    now_values,
    series_of,
    spent,
    values_over_time,
)
from openhands_otel._internal.asking.steps import CannotAnswer, Question, Source, Steps
from openhands_otel._internal.clock import MILLISECOND_NS
from openhands_otel._internal.combining.building import OVERDUE, Life, of_life, stats_of
from openhands_otel._internal.exact import ExactSum
from openhands_otel._internal.prometheus import label_name
from openhands_otel._internal.spend.amounts import Amount, shares
from openhands_otel._internal.spend.reading import BadQuestion, history_window, read_question
from openhands_otel._internal.spend.rows import BURN_WINDOW_S, Dimension, SpendRow
from openhands_otel._internal.spend.zones import zone_of
from openhands_otel._internal.terminal_text import printable
from openhands_otel.semconv import RunOutcome, TokenType
from openhands_otel.settings import SettingsError, ViewerSettings, load
from openhands_otel.stats import (
    Breakdown,
    BurnRate,
    ConversationStats,
    History,
    HistoryPoint,
    Presence,
    Share,
    Spend,
    State,
    Totals,
)

MEMORY_S: Final = 86_400.0
"""Conversations of which something was said for so long are those that a state has, seconds."""
_SETTLED_S: Final = 180.0
"""So long after the last word of a conversation is looked what of it had ended, seconds."""
_BREAKDOWN: Final = (Dimension.MODEL, Dimension.ROLE, Dimension.PROVIDER, Dimension.AGENT, Dimension.SERVICE)
_STATUS: Final = label_name(semconv.CONVERSATION_STATUS)
_TYPE: Final = label_name(semconv.TOKEN_TYPE)


class Prometheus(Source):
    """A Prometheus that agents send to, or whatever speaks its API."""

    kind = "a Prometheus"
    example = "http://127.0.0.1:9090"
    cure = "start it, or name another URL, with the path before /api/v1 if there is one"
    poll_s = 5.0

    def steps[T](self, question: Question[T]) -> Steps[T]:
        if question.endpoint in _UNANSWERED:
            raise CannotAnswer(_UNANSWERED[question.endpoint])
        return (yield from _ANSWERS[question.endpoint](question))


def _ask_state(_: Question[State]) -> Steps[State]:
    now = time.time()
    totals, __ = yield from _totals(now)
    conversations = yield from _conversations((yield from ask_known(MEMORY_S, now)), now)
    return State(totals=totals, conversations=conversations, server_unix_nano=int(now * 1e9))


def _ask_conversations(question: Question[tuple[ConversationStats, ...]]) -> Steps[tuple[ConversationStats, ...]]:
    if "past" in question.query:
        raise CannotAnswer("a Prometheus has no list of past conversations: ask a viewer, or for one by its id")
    outcome = question.query.get("outcome")
    if outcome is not None and outcome not in set(RunOutcome):
        there = ", ".join(RunOutcome)
        raise CannotAnswer(f"there is no outcome {printable(str(outcome), 100)} (there is: {there})")
    now = time.time()
    found = yield from _conversations((yield from ask_known(MEMORY_S, now)), now)
    return tuple(stats for stats in found if outcome in (None, stats.outcome))


def _ask_conversation(question: Question[ConversationStats]) -> Steps[ConversationStats]:
    now, conversation_id = time.time(), question.conversation_id
    info = series_of([semconv.CONVERSATION_INFO], matching(semconv.CONVERSATION_ID, [conversation_id]))
    told = yield from all_values(info, EVER_S, now)
    heard_ms = max((samples.values[-1][0] for samples in told), default=None)
    if heard_ms is None:
        raise CannotAnswer(f"no conversation {printable(conversation_id, 100)} is known there")
    at = min(now, heard_ms / 1000 + _SETTLED_S)
    found = yield from _conversations([conversation_id], now, at, EVER_S)
    return next(stats for stats in found if stats.conversation_id == conversation_id)


def _ask_totals(_: Question[Breakdown]) -> Steps[Breakdown]:
    totals, rows = yield from _totals(time.time())
    by = {f"by_{name}": _shares(rows, name) for name in _BREAKDOWN}
    return Breakdown.model_validate({"totals": totals, **by})


def _ask_history(question: Question[History]) -> Steps[History]:
    conversation_id = question.query.get("conversation")
    asked = (question.query.get(name) for name in ("since", "until", "bucket_s"))
    try:
        begin, end, step_s = history_window(time.time(), *asked)
    except BadQuestion as error:
        raise CannotAnswer(str(error)) from None
    # Buckets end at the end, and one value is of before the first of them.
    first = end - step_s * -(-(end - begin) // step_s)
    found: dict[int, dict[str, float]] = defaultdict(dict)
    for field, series in _history_series(conversation_id).items():
        total = f"sum(last_over_time({series}[{duration(EVER_S)}]))"
        values = yield from values_over_time(total, first, end, step_s)
        for at, value in (said for samples in values for said in samples.values):
            found[at][field] = value
    points = [_history_point(at, said) for at, said in sorted(found.items())]
    before = next((point for point in points if point.unix_s < first + step_s / 2), None)
    return History(
        conversation_id=conversation_id,
        bucket_s=step_s,
        before=before,
        points=tuple(_changes(before, points)),
    )


def _ask_spend(question: Question[Spend]) -> Steps[Spend]:
    try:
        asked = read_question(question.query, load(ViewerSettings).timezone)
    except (BadQuestion, SettingsError) as error:
        raise CannotAnswer(str(error)) from None
    return (yield from ask_spend(asked))


def _ask_presence(_: Question[tuple[Presence, ...]]) -> Steps[tuple[Presence, ...]]:
    now = time.time()
    moments: dict[str, dict[tuple[str, str, str], float]] = {}
    for metric in (
        semconv.CONVERSATION_FIRST_CALL,
        semconv.CONVERSATION_LAST_CALL,
        semconv.CONVERSATION_LONGEST_CALL,
    ):
        found = yield from now_values(f"last_over_time({metric.prometheus_name}[{duration(EVER_S)}])", now)
        moments[metric.name] = {
            (each.labels[ID], each.labels.get("job", ""), each.labels.get("instance", "")): each.value
            for each in found
            if ID in each.labels
        }
    first, last, longest = moments.values()
    present = [
        Presence(conversation_id=key[0], since=since, until=last.get(key, since) + longest.get(key, 0.0))
        for key, since in first.items()
    ]
    return tuple(sorted(present, key=lambda each: each.since))


_ANSWERS: Final[Mapping[Endpoint[Any], Callable[[Question[Any]], Steps[Any]]]] = {
    endpoints.STATE: _ask_state,
    endpoints.CONVERSATIONS: _ask_conversations,
    endpoints.CONVERSATION: _ask_conversation,
    endpoints.TOTALS: _ask_totals,
    endpoints.HISTORY: _ask_history,
    endpoints.SPEND: _ask_spend,
    endpoints.PRESENCE: _ask_presence,
}
_UNANSWERED: Final[Mapping[Endpoint[Any], str]] = {
    endpoints.IMPORT: "a Prometheus takes in nothing of the time before it was there: name a viewer",
    endpoints.CALLS: "a Prometheus has no spans, of which calls would be made: ask a viewer",
    endpoints.TIMELINE: "a Prometheus has no spans, of which a timeline would be made: ask a viewer",
    endpoints.RUNS: "a Prometheus does not know the runs of conversations: ask a viewer",
    endpoints.LATENCY: "a Prometheus has no spans, which say how long calls took: ask a viewer",
    endpoints.BUDGETS: "a Prometheus does not know the viewer's budgets: ask a viewer"
    " (its own are those of the agents, in the rules of deploy/prometheus)",
}


@dataclass(slots=True)
class _Tree:
    """Whose sub-agent is whose, and what each cost."""

    costs: Mapping[str, list[float]]
    children: Mapping[str, list[str]]

    def below(self, conversation_id: str) -> tuple[float, int]:
        """What a conversation and all below it cost, and how many these are."""
        total = ExactSum()
        seen: set[str] = set()
        waiting = [conversation_id]
        while waiting:
            each = waiting.pop()
            if each not in seen:
                seen.add(each)
                for part in self.costs.get(each, ()):
                    total.add(part)
                waiting += self.children.get(each, ())
        return total.value, len(seen) - 1


def _conversations(
    ids: Iterable[str], now: float, at: float | None = None, time_s: float = MEMORY_S
) -> Steps[tuple[ConversationStats, ...]]:
    """Some conversations, latest change first; ``at`` and ``time_s`` as for ``ask_series``."""
    zone = _zone()
    wanted = set(ids)
    parents = yield from ask_children(wanted, now)
    children: dict[str, list[str]] = defaultdict(list)
    for child, parent in parents.items():
        children[parent].append(child)
    tree = _Tree((yield from ask_costs(wanted | parents.keys(), now)), children)
    found: list[ConversationStats] = []
    series_by_id = yield from ask_series(wanted, now, now if at is None else at, time_s)
    for name, (series, life) in series_by_id.items():
        stats = stats_of(name, series, series.services, series.process_labels, zone)
        cost, descendants = tree.below(name)
        update = {"tree_cost": cost, "descendants": descendants, "received_unix_nano": series.heard}
        found.append(stats.model_copy(update=update | of_life(life, stats.closed)))
    return tuple(sorted(found, key=lambda stats: stats.received_unix_nano, reverse=True))


def _zone() -> ZoneInfo:
    try:
        return zone_of(load(ViewerSettings).timezone)
    except SettingsError as error:
        raise CannotAnswer(str(error)) from None


def _totals(now: float) -> Steps[tuple[Totals, list[SpendRow]]]:
    """Everything spent, and the rows that it is the sum of."""
    rows = yield from ask_rows(now - EVER_S, now, _BREAKDOWN)
    total = Amount()
    for row in rows:
        total.include(row.amount)
    burnt = yield from now_values(spent(semconv.COST.prometheus_name, now - BURN_WINDOW_S, now), now)
    per_second = sum(each.value for each in burnt) / BURN_WINDOW_S
    lives = yield from ask_lives(now)
    heard = yield from now_values(f"max(timestamp({HEARTBEAT_SERIES}))", now)
    state = semconv.CONVERSATION_STATE.prometheus_name
    attended = f"and on (job, instance) (time() - timestamp({HEARTBEAT_SERIES}) <= {OVERDUE} * {HEARTBEAT_SERIES})"
    running = yield from _count(f'{state}{{{_STATUS}="{semconv.Status.RUNNING}"}} {attended}', now)
    open_now = yield from _count(f'{state}{{{_STATUS}!="{semconv.Status.CLOSED}"}} {attended}', now)
    info = semconv.CONVERSATION_INFO.prometheus_name
    seen = yield from _count(f"last_over_time({info}[{duration(EVER_S)}])", now)
    totals = Totals(
        accumulated_cost=total.cost.value,
        accumulated_token_usage=total.tokens,
        llm_calls=total.calls,
        unpriced_calls=total.unpriced_calls,
        cache_savings=total.savings.value,
        burn=BurnRate(per_minute=60 * per_second, per_hour=3600 * per_second, window_s=BURN_WINDOW_S),
        conversations_running=running,
        conversations_open=open_now,
        conversations_seen=seen,
        processes_live=sum(life is Life.LIVE for life in lives.values()),
        received_unix_nano=max((round(each.value * 1000) * MILLISECOND_NS for each in heard), default=0),
    )
    return totals, rows


def _count(expression: str, now: float) -> Steps[int]:
    """Conversations of which there are such series."""
    found = yield from now_values(f"count(count by ({ID}) ({expression}))", now)
    return sum(int(each.value) for each in found)


def _shares(rows: Iterable[SpendRow], name: str) -> tuple[Share, ...]:
    amounts: dict[str, Amount] = {}
    for row in rows:
        amounts.setdefault(row.keys.get(name, semconv.UNKNOWN), Amount()).include(row.amount)
    return shares(amounts)


def _history_series(conversation_id: str | None) -> dict[str, str]:
    """What each field of a point is the sum of."""
    if conversation_id is None:
        return {
            "accumulated_cost": semconv.COST.prometheus_name,
            "prompt_tokens": semconv.INPUT_TOKENS.prometheus_name,
            "completion_tokens": semconv.OUTPUT_TOKENS.prometheus_name,
            "llm_calls": semconv.CALLS.prometheus_name,
        }
    own = matching(semconv.CONVERSATION_ID, [conversation_id])
    tokens = {kind: series_of([semconv.CONVERSATION_TOKENS], own, f'{_TYPE}="{kind}"') for kind in TokenType}
    return {
        "accumulated_cost": series_of([semconv.CONVERSATION_COST], own),
        "prompt_tokens": tokens[TokenType.INPUT],
        "completion_tokens": tokens[TokenType.OUTPUT],
        "llm_calls": series_of([semconv.CONVERSATION_CALLS], own),
    }


def _history_point(at_ms: int, said: Mapping[str, float]) -> HistoryPoint:
    cost = said.get("accumulated_cost", 0.0)
    counts = {name: round(value) for name, value in said.items() if name != "accumulated_cost"}
    return HistoryPoint.model_validate({"unix_s": at_ms / 1000, "accumulated_cost": cost, **counts})


def _changes(before: HistoryPoint | None, points: Iterable[HistoryPoint]) -> Iterator[HistoryPoint]:
    """Those after the first known ones that say something else than what comes before them."""
    for point in points:
        if before is None or point != before.model_copy(update={"unix_s": point.unix_s}):
            yield point
        before = point
