"""Exact totals: of the fleet by small attribute sets, and of each conversation by role, model, provider and usage.

The ledger is the one truth from which counters, conversation series and snapshots are read. It knows neither OpenHands
nor OpenTelemetry: events go in, numbers come out. Whoever owns it serialises access (``ledger/intake.py``).

Its size is bounded by the open conversations and by caps: past ``series_limit`` attribute sets a metric's values fall
into one overflow bucket, past ``conversation_limit`` open conversations new ones share one account, and both are
counted. A closed conversation stays until its last values are delivered, and a little longer, so that one that is
resumed under its old id goes on counting where it stopped (a counter that starts again would be lost in PromQL).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from openhands_otel import events, semconv
from openhands_otel._internal.content import TitleAllowed
from openhands_otel._internal.exact import COUNT_LIMIT, MONEY_LIMIT, TOKENS_LIMIT, ExactSum
from openhands_otel._internal.labels import Labels
from openhands_otel._internal.ledger.account import (
    Account,
    RunRecord,
    RunResult,
    RunTally,
    Use,
    UseSpend,
)
from openhands_otel._internal.ledger.fleet import FleetKey, FleetLabels, FleetTotals, agent_key, fleet_key
from openhands_otel._internal.ledger.fleet_tokens import no_tokens, token_amounts
from openhands_otel.events import Event, Origin
from openhands_otel.semconv import CostSource, GenAINames, Metric, Role, Status
from openhands_otel.stats import ConversationStats

CLOSED_LIMIT = 1_000
"""Closed conversations that are remembered in case they are resumed, and that may wait for a collector to come back."""
BREAKDOWN_LIMIT = 64
"""Uses of one conversation; later ones share one."""

_TOKEN_COUNTERS = tuple(semconv.TOKEN_COUNTERS.items())


_OVERFLOW_USE = Use(Role.OTHER, semconv.OVERFLOW, semconv.OVERFLOW, semconv.OVERFLOW)

_Totals = dict[Metric | CostSource, ExactSum]
"""Of one attribute set, by metric; costs by who named the price."""

FLEET_METRICS: tuple[Metric, ...] = (
    semconv.COST,
    *semconv.TOKEN_COUNTERS.values(),
    semconv.CALLS,
    semconv.UNPRICED_CALLS,
    semconv.CACHE_SAVINGS,
    semconv.RETRIES,
    semconv.CONDENSATIONS,
    semconv.STUCK_RUNS,
)


LABELLED: frozenset[Metric] = frozenset((semconv.COST, *semconv.TOKEN_COUNTERS.values(), semconv.CALLS))
"""Those that have labels."""


class Ledger:
    """Applies events; see the module's docstring."""

    def __init__(
        self,
        series_limit: int,
        conversation_limit: int,
        fleet_labels: Collection[str] = (),
        names: GenAINames = GenAINames.TODAY,
    ) -> None:
        self.names = names
        self.fleet_labels = FleetLabels(fleet_labels)
        self.fleet = {metric.name: FleetTotals(series_limit) for metric in FLEET_METRICS}
        self.accounts: dict[str, Account] = {}
        self.changed: set[str] = set()
        """Accounts with something that was not delivered yet."""
        self.on_forgotten: Callable[[str], object] | None = None
        """Called with the id of a conversation that is forgotten for good."""
        self._closed: OrderedDict[str, Account] = OrderedDict()
        self._origin: Origin | None = None
        self._labels: Labels = ()
        self._gave_way = False
        self._totals: _Totals = {}
        """Of the attributes of ``_origin``: the events of one call share theirs and mostly come together."""
        self._by_key: dict[tuple[object, ...], _Totals] = {}
        self._most_keys = series_limit
        self._conversation_limit = conversation_limit
        self._overflowed = 0
        self.calls_running: set[int] = set()
        self._without_tokens: set[int] = set()
        """Of these calls, where the newest names are sent, those that no tokens were reported of."""
        self.tools_running: set[int] = set()
        self.runs_running: set[str] = set()
        self._apply: dict[type[Event | TitleAllowed], Callable[..., RunRecord | None]] = {
            events.CostAdded: self._cost_added,
            events.TokensUsed: self._tokens_used,
            events.LatencyRecorded: self._latency_recorded,
            events.ResponseRecorded: self._response_recorded,
            events.LLMCallStarted: self._call_started,
            events.LLMCallEnded: self._call_ended,
            events.ToolStarted: self._tool_started,
            events.ToolEnded: self._tool_ended,
            events.ConversationOpened: self._opened,
            events.ConversationClosed: self._ended,
            events.RunStarted: self._run_started,
            events.RunEnded: self._run_ended,
            events.CallRetried: self._retried,
            events.Condensed: self._condensed,
            TitleAllowed: self._titled,
        }

    def apply(self, event: Event | TitleAllowed) -> RunRecord | None:
        """Take one event in; returns what a run came to when it has ended.

        MetricsMerged changes nothing: what it adds was counted when it was spent. Raises ValueError, and changes
        nothing, where an amount is no number: one NaN would spoil a total for ever.
        """
        handler = self._apply.get(type(event))
        return None if handler is None else handler(event)

    @property
    def overflowed(self) -> int:
        """Updates that fell into an overflow bucket."""
        return self._overflowed + sum(totals.overflowed for totals in self.fleet.values())

    def snapshot(self, conversation_id: str) -> ConversationStats | None:
        """One conversation, closed ones included as long as they are remembered."""
        known = {**self._closed, **self.accounts}
        if conversation_id not in known:
            return None
        under: dict[str | None, list[Account]] = {}
        for account in known.values():
            under.setdefault(account.parent_id, []).append(account)
        tree = {conversation_id: known[conversation_id]}
        waiting = [conversation_id]
        while waiting:
            children = {each.conversation_id: each for each in under.pop(waiting.pop(), ())}
            waiting += children.keys() - tree.keys()
            tree = children | tree
        cost = ExactSum(part.value for account in tree.values() for part in account.cost.values())
        return known[conversation_id].stats().model_copy(update={"tree_cost": cost.value, "descendants": len(tree) - 1})

    def retire(self, conversation_id: str) -> None:
        """A closed conversation's last values are delivered: keep it only in case it is resumed."""
        account = self.accounts.get(conversation_id)
        if account is None or not account.closed:
            return
        del self.accounts[conversation_id]
        self.changed.discard(conversation_id)
        self._closed[conversation_id] = account
        while len(self._closed) > CLOSED_LIMIT:
            forgotten = self._closed.popitem(last=False)[0]
            if self.on_forgotten is not None:
                self.on_forgotten(forgotten)

    def has_open(self) -> bool:
        """Whether a conversation is open."""
        return any(not account.closed for account in self.accounts.values())

    def _account(self, conversation_id: str, at: int) -> Account:
        account = self.accounts.get(conversation_id)
        if account is None:
            account = self._closed.pop(conversation_id, None)
            if account is None:
                if len(self.accounts) >= self._conversation_limit and not self._give_up_a_closed_one():
                    self._overflowed += 1
                    conversation_id = semconv.OVERFLOW
                account = self.accounts.get(conversation_id) or Account(conversation_id, opened_at=at)
            self.accounts[account.conversation_id] = account
        account.updated_at = at
        self.changed.add(account.conversation_id)
        return account

    def _give_up_a_closed_one(self) -> bool:
        """Make room while no collector answers: the oldest closed conversation's detail goes, fleet totals stay."""
        waiting = next((account for account in self.accounts.values() if account.closed), None)
        if waiting is not None:
            self.retire(waiting.conversation_id)
        return waiting is not None

    def _account_of(self, origin: Origin, at: int) -> Account | None:
        if origin.conversation_id is None:
            return None
        # One that is closed stays so: what is late is delivered, and its series end again.
        return self._account(origin.conversation_id, at)

    def _totals_of(self, origin: Origin) -> _Totals:
        if origin is not self._origin:
            self._origin = origin
            # Without a name for each part, which takes as long as all the rest here.
            self._labels, self._gave_way = self.fleet_labels.of(origin.labels) if origin.labels else ((), False)
            key = (
                origin.provider,
                origin.model,
                origin.operation,
                origin.agent,
                origin.role,
                origin.fallback,
                self._labels,
            )
            found = self._by_key.get(key)
            if found is None:
                if len(self._by_key) >= self._most_keys:
                    self._by_key.clear()
                found = self._by_key[key] = {}
            self._totals = found
        return self._totals

    def _total(self, origin: Origin, metric: Metric, source: CostSource | None = None) -> ExactSum:
        """Where ``metric`` is added up for calls such as ``origin``'s; a cost by its source."""
        totals = self._totals_of(origin)
        total = totals.get(source or metric)
        if total is None:
            labels = self._labels if metric in LABELLED else ()
            total, own = self.fleet[metric.name].of(fleet_key(origin, source, labels))
            if own:
                totals[source or metric] = total
        return total

    def _add(self, metric: Metric, key: FleetKey, amount: float) -> None:
        self.fleet[metric.name].of(key)[0].add(amount)

    def _cost_added(self, event: events.CostAdded) -> None:
        if not abs(event.amount) <= MONEY_LIMIT:
            raise ValueError(f"a cost of {event.amount} dollars, and none is over {MONEY_LIMIT:.0e}")
        self._total(event.origin, semconv.COST, event.source).add(event.amount)
        self._overflowed += self._gave_way
        account = self._account_of(event.origin, event.at)
        if account is None:
            return
        self._part(account, event.origin).spent(event.source).add(event.amount)
        if event.amount != event.recorded:
            if event.source is CostSource.ACP_ESTIMATED and not event.recorded:
                account.unpriced_by_openhands = True
            else:
                account.misread = True

    def _part(self, account: Account, origin: Origin) -> UseSpend:
        """Where an account holds what calls such as ``origin``'s spent."""
        use = Use(origin.role, origin.model, origin.provider, origin.usage_id or "", origin.labels)
        part = account.parts.get(use)
        if part is None:
            if len(account.parts) >= BREAKDOWN_LIMIT:
                self._overflowed += 1
                use = _OVERFLOW_USE
            part = account.parts.setdefault(use, UseSpend())
        return part

    def _tokens_used(self, event: events.TokensUsed) -> None:
        counts = event.counts
        for count in counts:
            if not 0 <= count <= TOKENS_LIMIT:
                raise ValueError(f"token counts of {counts}, and each is from 0 to {TOKENS_LIMIT:.0e}")
        origin = event.origin
        totals = self._totals_of(origin)
        self._overflowed += self._gave_way
        if self.names.has_newest:
            self._without_tokens.discard(event.call or 0)
            self._add_tokens(token_amounts(event, self._labels))
        account = self._account_of(origin, event.at)
        tokens = None if account is None else self._part(account, origin).tokens
        for (kind, metric), count in zip(_TOKEN_COUNTERS, counts, strict=True):
            if count or metric is semconv.INPUT_TOKENS or metric is semconv.OUTPUT_TOKENS:
                if not self.names.has_newest:
                    (totals.get(metric) or self._total(origin, metric)).add(count)
                if tokens is not None:
                    tokens[kind] = tokens.get(kind, 0) + count
        if account is not None and event.origin.role in semconv.AGENT_ROLES:
            account.context_tokens = event.input + event.output
            if 0 < event.context_window <= COUNT_LIMIT:
                account.context_limit = event.context_window

    def _add_tokens(self, amounts: Iterable[tuple[Metric, FleetKey, int]]) -> None:
        for metric, key, count in amounts:
            self._add(metric, key, count)

    def _latency_recorded(self, event: events.LatencyRecorded) -> None:
        self._total(event.origin, semconv.CALLS).add(1)
        self._overflowed += self._gave_way
        account = self._account_of(event.origin, event.at)
        if account is not None:
            account.answered(self._part(account, event.origin), event.seconds)

    def _response_recorded(self, event: events.ResponseRecorded) -> None:
        if not event.priced:
            self._total(event.origin, semconv.UNPRICED_CALLS).add(1)
            account = self._account_of(event.origin, event.at)
            if account is not None:
                account.unpriced += 1
                self._part(account, event.origin).unpriced += 1
        elif event.free is not None:
            # A series of 0 says that it is known to cost nothing.
            self._total(event.origin, semconv.COST, event.free).add(0.0)
            account = self._account_of(event.origin, event.at)
            if account is not None:
                self._part(account, event.origin).spent(event.free)
        # An odd price table may say anything, also that what is cached costs more; and a counter cannot go down.
        if event.cache_savings is not None and 0 < event.cache_savings <= MONEY_LIMIT:
            self._total(event.origin, semconv.CACHE_SAVINGS).add(event.cache_savings)
            account = self._account_of(event.origin, event.at)
            if account is not None:
                self._part(account, event.origin).saved(event.cache_savings)

    def _retried(self, event: events.CallRetried) -> None:
        self._total(event.origin, semconv.RETRIES).add(1)

    def _titled(self, event: TitleAllowed) -> None:
        # It is told at each save, also behind the conversation's end.
        known = self.accounts.get(event.conversation_id) or self._closed.get(event.conversation_id)
        if known is not None and event.title != (known.title or ""):
            # One that is taken away is told as an empty one: of series that only end, viewers know the last.
            self._account(event.conversation_id, event.at).title = event.title

    def _condensed(self, event: events.Condensed) -> None:
        self._add(semconv.CONDENSATIONS, agent_key(event.agent), 1)

    def _call_started(self, event: events.LLMCallStarted) -> None:
        self.calls_running.add(event.call)
        if self.names.has_newest:
            self._without_tokens.add(event.call)
        account = self._account_of(event.origin, event.at)
        if account is not None:
            account.called(event.at)
            account.running[semconv.LLM_ACTIVITY, event.call] = (semconv.LLM_ACTIVITY, event.at)

    def _call_ended(self, event: events.LLMCallEnded) -> None:
        self.calls_running.discard(event.call)
        if event.call in self._without_tokens:
            self._without_tokens.discard(event.call)
            self._totals_of(event.origin)
            self._add_tokens(no_tokens(event, self._labels))
        account = self._account_of(event.origin, event.at)
        if account is not None:
            account.running.pop((semconv.LLM_ACTIVITY, event.call), None)

    def _tool_started(self, event: events.ToolStarted) -> None:
        self.tools_running.add(event.call)
        if event.conversation_id is not None:
            account = self._account(event.conversation_id, event.at)
            account.running["tool", event.call] = (event.tool, event.at)
            account.tool_calls = (account.tool_calls or 0) + 1

    def _tool_ended(self, event: events.ToolEnded) -> None:
        self.tools_running.discard(event.call)
        if event.conversation_id is not None:
            self._account(event.conversation_id, event.at).running.pop(("tool", event.call), None)

    def _opened(self, event: events.ConversationOpened) -> None:
        account = self._account(event.conversation_id, event.at)
        account.closed = False
        account.status = Status.IDLE if account.status is Status.CLOSED else account.status
        account.parent_id = event.parent_id
        account.agent = event.agent
        account.sdk_version = event.sdk_version
        account.budget = event.budget
        account.restore(event.restored_cost)

    def _ended(self, event: events.ConversationClosed) -> None:
        if event.conversation_id not in self.accounts:
            return
        account = self._account(event.conversation_id, event.at)
        account.reconcile(event.own)
        account.status = Status.CLOSED
        account.running.clear()
        account.closed = True

    def _run_started(self, event: events.RunStarted) -> None:
        account = self._account(event.conversation_id, event.at)
        account.status = Status.RUNNING
        account.trace_id = event.trace_id
        account.closed = False
        account.outcome = replace(account.outcome or RunResult(), stands=False)
        account.run = RunTally(account.calls, account.total_cost, account.tool_calls or 0)
        self.runs_running.add(event.conversation_id)

    def _run_ended(self, event: events.RunEnded) -> RunRecord | None:
        self.runs_running.discard(event.conversation_id)
        if event.status is Status.STUCK:
            self._add(semconv.STUCK_RUNS, agent_key(event.agent), 1)
        account = self._account(event.conversation_id, event.at)
        account.status = event.status
        account.outcome = RunResult(event.outcome, event.error, stands=True)
        account.running.clear()
        account.reconcile(event.own)
        tally, account.run = account.run, None
        if tally is None:
            return None
        tools = (account.tool_calls or 0) - tally.tool_calls
        return RunRecord(event, account.calls - tally.calls, tools, account.total_cost - tally.cost)
