"""What a turn of an ACP agent cost, from the session's cumulative cost that the agent reports.

An agent reports what a session has cost so far, with a turn, a few turns late, or never. Until a report comes,
OpenHands' estimate from tokens stands in for it. A report covers all that was spent up to it, so then only what the
estimates have not said yet is new; and what they said too much is carried against what is spent later, since a counter
cannot go down. So after each report a session's total is the larger of the report and of what was said before it.

``ACPAgent._record_usage`` adds up reports and estimates (OpenHands/software-agent-sdk#4382), and more: a report that
does not grow is taken for no report; one that starts again at zero likewise; and a new bridge to a session that goes on
(its agent restarted) counts the whole cumulative cost again. Here there is one account per session. A session that
starts anew has spent what its first report says; one that was resumed, in this process or another, goes on from what it
had spent, if its next report is not below that. A report in another currency than US dollars is no US dollars: the turn
has no price, until a report in dollars covers it.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from openhands_otel._internal.capture import codex, compat
from openhands_otel._internal.capture.prices import AgentTokens
from openhands_otel._internal.guard import guarded

SESSION_LIMIT = 4096
"""Sessions whose account is remembered, the most recent ones."""
DOLLARS = "USD"
NOISE = 1e-9
"""US dollars up to which two amounts are the same: agents and OpenHands add up floats in an order of their own."""


@dataclass(slots=True)
class AcpAccount:
    """What is known of one session, in US dollars."""

    said: float = 0.0
    """What has been counted, by reports and by estimates."""
    reported: float = 0.0
    """What it spent by its reports, those before it started again at zero included."""
    estimated: float = 0.0
    """What the turns since the last report came to by estimates."""
    last_report: float = 0.0
    bridge: weakref.ref[Any] | None = None
    """OpenHands' side of the connection over which it was heard last."""
    of_codex: codex.CodexSession | None = None
    """What Codex writes of it, if it is Codex' session."""
    looked: bool = False
    """Whether that has been looked for."""
    told: deque[AgentTokens] = field(default_factory=codex.no_calls)
    """The calls of it that Codex' adapter told of, and Codex has not."""

    def report(self, cumulative: float) -> float:
        """A report came; returns what is new by it."""
        fell = cumulative < self.last_report - NOISE
        self.reported += cumulative if fell else cumulative - self.last_report
        self.last_report = cumulative
        self.estimated = 0.0
        return self._rise_to(self.reported)

    def estimate(self, amount: float) -> float:
        """A turn without a report is estimated at ``amount``; returns what is new by it."""
        self.estimated += amount
        return self._rise_to(self.reported + self.estimated)

    def _rise_to(self, total: float) -> float:
        new = max(0.0, total - self.said)
        self.said = max(self.said, total)
        return new


@dataclass(slots=True)
class Turn:
    """One turn of a session, while OpenHands records it."""

    account: AcpAccount
    new: float | None = None
    """What is new by its report; None if it reported nothing that can be used."""
    foreign_currency: bool = False
    of_codex: bool = False
    """Whether the tokens that came with it are those of its last call only."""
    untold: list[AgentTokens] | None = field(default_factory=list[AgentTokens])
    """Its calls before that; None if there may be some, and nobody tells."""

    @property
    def reported(self) -> bool:
        """Whether it came with a report that can be used."""
        return self.new is not None

    def take_report(self) -> float:
        """What is new by the report, once."""
        if self.new is None:
            return 0.0
        new, self.new = self.new, 0.0
        return new

    def take_estimate(self, amount: float) -> float:
        """What is new by OpenHands' estimate, where there is no report."""
        return 0.0 if self.foreign_currency else self.account.estimate(amount)


@dataclass(frozen=True, slots=True)
class Given:
    """What ``_record_usage`` is called with."""

    agent: Any
    response: Any
    session_id: str
    usage_update: Any

    @classmethod
    def read(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Given:
        """Of a call of ``_record_usage(self, response, session_id, elapsed, usage_update)``."""
        names = ("agent", "response", "session_id", "elapsed", "usage_update")
        given = dict(zip(names, args, strict=False)) | kwargs
        session_id = str(given.get("session_id", ""))
        return cls(given["agent"], given.get("response"), session_id, given.get("usage_update"))


class AcpSessions:
    """The accounts of the sessions that were heard of in this process."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[tuple[str | None, str], AcpAccount] = OrderedDict()

    def turn(self, conversation_id: str | None, given: Given) -> Turn:
        """What the agent says of a turn that OpenHands is about to record."""
        account = self._account(conversation_id, given.session_id, given.agent)
        of_codex = codex.is_codex(given.agent)
        # Before the report is booked, which is said once.
        untold = _untold(account, given) if of_codex else []
        turn = _reported(account, given.usage_update)
        turn.of_codex, turn.untold = of_codex, untold
        return turn

    def _account(self, conversation_id: str | None, session_id: str, agent: Any) -> AcpAccount:
        key = (conversation_id, session_id)
        bridge = getattr(agent, "_client", None)
        account = self._accounts.get(key)
        if account is None or not (_heard_over(account, bridge) or _resumed(agent)):
            account = self._open(session_id, agent, bridge, new=account is not None)
        account.bridge = None if bridge is None else weakref.ref(bridge)
        self._accounts[key] = account
        self._accounts.move_to_end(key)
        while len(self._accounts) > SESSION_LIMIT:
            self._accounts.popitem(last=False)
        return account

    def _open(self, session_id: str, agent: Any, bridge: Any, *, new: bool) -> AcpAccount:
        """The account of a session by what OpenHands itself may know; ``new`` if it has the name of another."""
        reports: dict[str, float] = getattr(bridge, "_last_cost_by_session", {})
        account = _replayed(agent, session_id)
        if session_id in reports:
            account = account or AcpAccount()
            account.last_report = reports[session_id]
        elif _resumed(agent):
            # Without records: a fork whose meter was reset, so the session goes on from where it was heard last.
            heard = (each for key, each in reversed(self._accounts.items()) if key[1] == session_id)
            account = account or replace(next(heard, AcpAccount()))
        elif account is None or account.reported or new:
            # Those records are an older session's.
            account = AcpAccount()
        return account


def _reported(account: AcpAccount, usage_update: Any) -> Turn:
    cost = getattr(usage_update, "cost", None)
    if cost is None:
        return Turn(account)
    if str(getattr(cost, "currency", DOLLARS) or DOLLARS).upper() != DOLLARS:
        return Turn(account, foreign_currency=True)
    cumulative = float(cost.amount)
    if not math.isfinite(cumulative) or cumulative < 0:
        return Turn(account)
    return Turn(account, account.report(cumulative))


@guarded
def _untold(account: AcpAccount, given: Given) -> list[AgentTokens] | None:
    # After whatever goes wrong it is opened again, and only its last turn is read: what was before has been marked.
    session, account.of_codex = account.of_codex, None
    whole = not account.looked and _is_new(given.agent, given.session_id)
    account.looked = True
    last = codex.told_by(given.response)
    if session is None:
        session = codex.session_of(given.agent, given.session_id, whole=whole)
        if session is None:
            return None
        session.told = account.told
    calls = session.untold(last)
    account.of_codex = session
    return calls


def _is_new(agent: Any, session_id: str) -> bool:
    """Whether OpenHands has recorded nothing of a session, and did not resume it."""
    metrics = agent.llm.metrics
    recorded = (each.response_id for each in (*metrics.token_usages, *metrics.response_latencies))
    return session_id == getattr(agent, "_session_id", None) and not _resumed(agent) and session_id not in recorded


def _heard_over(account: AcpAccount, bridge: Any) -> bool:
    return bridge is (None if account.bridge is None else account.bridge())


def _resumed(agent: Any) -> bool:
    return bool(getattr(agent, "_resumed_existing_session", False))


def _replayed(agent: Any, session_id: str) -> AcpAccount | None:
    """What OpenHands recorded of a session before, played again; None if that is nothing."""
    metrics = agent.llm.metrics
    if not metrics.accumulated_cost:
        return None
    account = AcpAccount()
    if not metrics.costs:
        account.report(float(metrics.accumulated_cost))
    for amount, estimated in _records(agent, metrics, session_id):
        if estimated:
            account.estimate(amount)
        else:
            account.report(account.last_report + amount)
    return account


def _records(agent: Any, metrics: Any, session_id: str) -> Iterator[tuple[float, bool]]:
    """(amount, whether it is an estimate) of each cost of a session.

    A cost doesn't say whose it is: most turns have one, so they go side by side where there are as many of them, and
    are all taken for the session's where there are not. One that equals a turn's estimate is that.
    """
    usages = [usage for usage in metrics.token_usages if usage.response_id == session_id]
    estimates = [_estimate(agent, usage) for usage in usages]
    turns = [turn.response_id for turn in metrics.response_latencies]
    sessions = turns if len(turns) == len(metrics.costs) else [session_id] * len(metrics.costs)
    for cost, session in zip(metrics.costs, sessions, strict=True):
        if session == session_id:
            amount = float(cost.cost)
            equal = next((each for each in estimates if abs(each - amount) <= NOISE), None)
            if equal is not None:
                estimates.remove(equal)
            yield amount, equal is not None


def _estimate(agent: Any, usage: Any) -> float:
    estimate = getattr(sys.modules.get(compat.ACP_AGENT), "_estimate_cost_from_tokens", None)
    model = getattr(agent, "acp_model", None)
    if estimate is None or not model:
        return math.nan
    return float(estimate(model, usage.prompt_tokens, usage.completion_tokens))
