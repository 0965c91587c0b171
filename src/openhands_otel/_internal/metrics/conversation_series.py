"""The series of each conversation, built from the ledger as OTLP points.

Not made with SDK instruments: those never forget an attribute set. A point is sent when its value changed, and all of
them again with the heartbeat. A counter starts with a point of value 0. When a status, an outcome, an activity or a
trace gives way to another, the old series gets a point with the NoRecordedValue flag (Prometheus then drops it at once,
not after five minutes), and when a conversation is closed and its last values are delivered, all its series do. Always
cumulative.

When the process goes on under a fresh instance id (``start_over``), counters go on from 0: what was said under the id
before is its own, and the sum over both is what was spent.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

from opentelemetry.proto.metrics.v1.metrics_pb2 import ScopeMetrics

from openhands_otel import semconv
from openhands_otel._internal.clock import MILLISECOND_NS
from openhands_otel._internal.exact import Number
from openhands_otel._internal.facts import FACTS
from openhands_otel._internal.guard import guarded
from openhands_otel._internal.ledger.account import Account, Use, UseSpend
from openhands_otel._internal.ledger.ledger import Ledger
from openhands_otel._internal.metrics.points import CACHED, Batch, Selection, SentAttributes, SentSeries
from openhands_otel.semconv import CostSource, Metric, Reason, RunOutcome, Status, TokenType

CONVERSATIONS_PER_REQUEST = 500
"""Mostly some 800 kB. What is more than receivers take is sent in pieces (``export/pieces.py``)."""

ConversationValues = dict[str, dict[SentSeries, Number]]
"""Conversations as they were at one time: values as the ledger has them."""


@dataclass(slots=True)
class _Delivered:
    """What a collector has of one conversation."""

    values: dict[SentSeries, Number] = field(default_factory=dict[SentSeries, Number])
    """As the ledger has them."""
    starts: dict[SentSeries, int] = field(default_factory=dict[SentSeries, int])
    """Of counters, from the first request on that had them: what is told twice is to look the same."""
    counted: dict[SentSeries, Number] = field(default_factory=dict[SentSeries, Number])
    """Counters of this instance as they were told last, ended ones included; the first time with their 0."""
    base: dict[SentSeries, Number] = field(default_factory=dict[SentSeries, Number])
    """Counters as they were when the instance began: what was counted before is not its own."""


class ConversationSeries:
    """Compares the ledger with what was delivered. Used by one thread at a time, under the ledger's lock."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._delivered: dict[str, _Delivered] = {}
        ledger.on_forgotten = lambda conversation_id: self._delivered.pop(conversation_id, None)
        self._unchanged: set[str] = set()
        """Conversations that the heartbeat has still to repeat."""
        self._selected: set[str] = set()
        """Conversations of which nobody knows yet whether they are delivered."""

    def select(self, everything: bool, now: int) -> Selection:
        """Points, stamped ``now``, of the conversations that changed; ``everything`` takes unchanged ones as well.

        Those that find no room in one request stay for the next. ``now`` grows by a millisecond at least.
        """
        ledger = self._ledger
        if everything:
            self._unchanged = set(ledger.accounts)
        batch = Batch(semconv.SCOPE_CONVERSATIONS, now)
        commits: list[Callable[[], None]] = []
        chosen = self._choose()
        for conversation_id, repeat in chosen.items():
            commit_one = self._add(ledger.accounts[conversation_id], batch, repeat)
            if commit_one is not None:
                commits.append(commit_one)

        self._selected = set(chosen)

        def commit() -> None:
            self._selected = set()
            for each in commits:
                each()

        def put_back() -> None:
            self._selected = set()
            ledger.changed.update(chosen.keys() & ledger.accounts.keys())
            self._unchanged.update(name for name, repeat in chosen.items() if repeat and name in ledger.accounts)

        return Selection(batch.message(), commit, put_back)

    def held(self, everything: bool) -> ConversationValues:
        """What is not acknowledged, or ``everything``. Nothing is different afterwards."""
        names = self._ledger.accounts.keys() if everything else self._ledger.changed | self._selected
        return {
            name: values
            for name in names
            if (account := self._ledger.accounts.get(name)) and (values := self._unacknowledged(account, everything))
        }

    def select_held(self, held: ConversationValues, now: int) -> Selection:
        """Counters of ``held`` as they are to be sent."""
        batch = Batch(semconv.SCOPE_CONVERSATIONS, now)
        told: ConversationValues = {}
        self._tell(held, batch, told)

        def commit() -> None:
            for name, values in told.items():
                delivered = self._of(name)
                delivered.values.update(values)
                delivered.counted.update(values)

        return Selection(batch.message(), commit)

    def spooled(self, held: ConversationValues, now: int, told: ConversationValues) -> Iterator[ScopeMetrics]:
        """``held`` for whoever sends it later; ``told`` stands before it there."""
        for names in itertools.batched(held, CONVERSATIONS_PER_REQUEST):
            batch = Batch(semconv.SCOPE_CONVERSATIONS, now)
            self._tell({name: held[name] for name in names}, batch, told)
            scope = batch.message()
            if scope is not None:
                yield scope

    def acknowledged(self, held: ConversationValues, now: int) -> Iterator[ScopeMetrics]:
        """What was acknowledged last of the counters of ``held``."""
        last = {
            name: {series: value for series, value in self._of(name).counted.items() if series in values}
            for name, values in held.items()
        }
        return self.spooled(last, now, {name: dict(values) for name, values in last.items()})

    @guarded
    def _unacknowledged(self, account: Account, everything: bool) -> dict[SentSeries, Number]:
        delivered = self._of(account.conversation_id)
        return {
            series: value
            for series, value in _series_of(account)
            if delivered.base.get(series) != value and (everything or delivered.values.get(series) != value)
        }

    def _tell(self, held: ConversationValues, batch: Batch, told: ConversationValues) -> None:
        for name, values in held.items():
            self._tell_of(name, values, batch, told.setdefault(name, {}))

    @guarded
    def _tell_of(
        self, name: str, values: dict[SentSeries, Number], batch: Batch, before: dict[SentSeries, Number]
    ) -> None:
        delivered = self._of(name)
        for series, value in values.items():
            known = series in delivered.counted or series in before
            start = self._begin(delivered, name, series, batch, known)
            batch.add(name, series, value - delivered.base.get(series, 0), batch.now, start)
            if series[0].kind == "counter":
                before[series] = value

    def _begin(self, delivered: _Delivered, name: str, series: SentSeries, batch: Batch, known: bool) -> int:
        """Where a series starts; with the 0 that it starts from, unless that is ``known``."""
        if series[0].kind != "counter":
            return 0
        start = delivered.starts.setdefault(series, batch.now - MILLISECOND_NS)
        if not known:
            batch.add(name, series, 0, start, start)
        return start

    def _of(self, conversation_id: str) -> _Delivered:
        return self._delivered.setdefault(conversation_id, _Delivered())

    def start_over(self, now: int) -> ScopeMetrics | None:
        """Go on as another instance: what was told until now was told under the id before.

        Returns the ends of the series under that id.
        """
        batch = Batch(semconv.SCOPE_CONVERSATIONS, now)
        for conversation_id, delivered in self._delivered.items():
            for series in delivered.values:
                batch.end(conversation_id, series, delivered.starts.get(series, 0))
        self._delivered = {
            conversation_id: _Delivered(base=delivered.base | delivered.counted)
            for conversation_id, delivered in self._delivered.items()
        }
        self._unchanged.clear()
        self._ledger.changed.update(self._ledger.accounts)
        return batch.message()

    @property
    def has_more(self) -> bool:
        """Whether something is to be said after what was selected last."""
        return bool(self._ledger.changed or self._unchanged)

    def _choose(self) -> dict[str, bool]:
        """Take ids of conversations to send: True for those that are sent whether or not they changed."""
        waiting = self._ledger.changed, self._unchanged
        chosen: dict[str, bool] = {}
        for conversation_id in tuple(itertools.chain(*waiting)):
            if len(chosen) >= CONVERSATIONS_PER_REQUEST:
                break
            if conversation_id in self._ledger.accounts:
                chosen[conversation_id] = conversation_id in self._unchanged
            for names in waiting:
                names.discard(conversation_id)
        return chosen

    @guarded
    def _add(self, account: Account, batch: Batch, everything: bool) -> Callable[[], None]:
        """Put a conversation into ``batch``; one of which that cannot be done holds no others up."""
        delivered = self._of(account.conversation_id)
        known, base = delivered.values, delivered.base
        wanted = dict(_series_of(account))
        if base:
            wanted = {series: value for series, value in wanted.items() if base.get(series) != value}
        if account.closed and all(known.get(series) == value for series, value in wanted.items()):
            return self._end(account, delivered, batch)
        counted: dict[SentSeries, Number] = {}
        goes_on = 0
        # Of a busy server this is done for thousands of series a second: each look into a dictionary counts.
        for series, value in wanted.items():
            before = known.get(series)
            goes_on += before is not None
            if before == value and not everything:
                continue
            is_known = before is not None or series in delivered.counted
            start = self._begin(delivered, account.conversation_id, series, batch, is_known)
            batch.add(account.conversation_id, series, value - base.get(series, 0) if base else value, batch.now, start)
            if series[0].kind == "counter":
                counted[series] = value
        if goes_on < len(known):
            for series in known:
                if series not in wanted:
                    batch.end(account.conversation_id, series, delivered.starts.get(series, 0))

        def commit() -> None:
            delivered.values = wanted
            delivered.counted.update(counted)
            if account.closed:
                # Its end is what the next request tells.
                self._ledger.changed.add(account.conversation_id)

        return commit

    def _end(self, account: Account, delivered: _Delivered, batch: Batch) -> Callable[[], None]:
        for series in delivered.values:
            batch.end(account.conversation_id, series, delivered.starts.get(series, 0))

        def commit() -> None:
            # The starts stay, so that a conversation that is resumed goes on with its streams.
            delivered.values = {}
            if account.closed:
                self._ledger.retire(account.conversation_id)

        return commit


def _series_of(account: Account) -> Iterator[tuple[SentSeries, Number]]:
    for use, part in account.parts.items():
        yield from _series_of_part(_series_of_use(use), part)
    for series, value_of in _PLAIN:
        value = value_of(account)
        if value is not None and math.isfinite(value):
            yield series, value
    unreconciled = account.unreconciled_cost
    if unreconciled is not None:
        yield _unreconciled_series(account.reasons), unreconciled
    yield _STATE_SERIES[account.status], 1
    outcome = account.outcome
    if outcome is not None:
        yield _outcome_series(outcome.how, outcome.error), int(outcome.stands)
    activity = account.activity
    if activity is not None:
        yield _named(semconv.CONVERSATION_NOW, semconv.CONVERSATION_ACTIVITY, activity[0]), activity[1] / 1e9
    if account.title is not None:
        yield _named(semconv.CONVERSATION_TITLED, semconv.CONVERSATION_TITLE, account.title), 1
    yield _info_series(account.parent_id, account.agent, account.sdk_version, account.trace_id), 1


def _series_of_part(named: _UseSeries, part: UseSpend) -> Iterator[tuple[SentSeries, Number]]:
    for source, spent in part.cost.items():
        yield named.cost[source], spent.value
    for kind, count in part.tokens.items():
        yield named.tokens[kind], count
    if part.calls:
        yield named.calls, part.calls
    if part.unpriced:
        yield named.unpriced, part.unpriced
    if part.savings is not None:
        yield named.savings, part.savings.value
    if part.seconds is not None:
        yield named.seconds, part.seconds


# A flush of a busy server asks for thousands of series: what is the same each time is put together once.
_PLAIN: tuple[tuple[SentSeries, Callable[[Account], Number | None]], ...] = tuple(
    ((fact.metric, ()), attrgetter(fact.account)) for fact in FACTS if fact.account is not None
)


def _named(metric: Metric, name: str, text: str) -> SentSeries:
    return metric, ((name, text),)


_STATE_SERIES = {each: _named(semconv.CONVERSATION_STATE, semconv.CONVERSATION_STATUS, each.value) for each in Status}


class _UseSeries(NamedTuple):
    """The series that one use may have."""

    cost: dict[CostSource, SentSeries]
    tokens: dict[TokenType, SentSeries]
    calls: SentSeries
    unpriced: SentSeries
    savings: SentSeries
    seconds: SentSeries


@lru_cache(CACHED)
def _series_of_use(use: Use) -> _UseSeries:
    labels = _told(
        {
            semconv.LLM_ROLE: use.role.value,
            semconv.REQUEST_MODEL: use.model,
            semconv.PROVIDER_NAME: use.provider,
            semconv.USAGE_ID: use.usage_id,
            **{semconv.LABEL_PREFIX + name: value for name, value in use.labels},
        }
    )

    def by(metric: Metric, attribute: str, value: CostSource | TokenType) -> SentSeries:
        return metric, (*labels, (attribute, value.value))

    return _UseSeries(
        {each: by(semconv.CONVERSATION_COST, semconv.COST_SOURCE, each) for each in CostSource},
        {each: by(semconv.CONVERSATION_TOKENS, semconv.TOKEN_TYPE, each) for each in TokenType},
        (semconv.CONVERSATION_CALLS, labels),
        (semconv.CONVERSATION_UNPRICED, labels),
        (semconv.CONVERSATION_CACHE_SAVINGS, labels),
        (semconv.CONVERSATION_LLM_TIME, labels),
    )


@lru_cache(CACHED)
def _outcome_series(how: RunOutcome | None, error: str | None) -> SentSeries:
    named = {semconv.RUN_OUTCOME: None if how is None else how.value, semconv.ERROR_TYPE: error}
    return semconv.CONVERSATION_OUTCOME, _told(named)


@lru_cache(CACHED)
def _info_series(parent_id: str | None, agent: str, sdk_version: str, trace_id: str | None) -> SentSeries:
    info = {
        semconv.CONVERSATION_PARENT_ID: parent_id,
        semconv.AGENT_NAME: agent,
        semconv.SDK_VERSION: sdk_version,
        semconv.CONVERSATION_TRACE_ID: trace_id,
    }
    return semconv.CONVERSATION_INFO, _told(info)


def _told(labels: Mapping[str, str | None]) -> SentAttributes:
    # An empty value is as good as none to Prometheus; Thanos refuses the series.
    return tuple((name, text) for name, text in labels.items() if text)


def _unreconciled_series(reasons: tuple[Reason, ...]) -> SentSeries:
    labels = ((semconv.RECONCILIATION_REASON, ",".join(reasons)),) if reasons else ()
    return semconv.CONVERSATION_UNRECONCILED, labels
