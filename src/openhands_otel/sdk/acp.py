"""What a turn of an ACP agent cost, from the session's cumulative cost that the agent reports.

``ACPAgent._record_usage`` adds the difference to the last report, and gets three cases wrong (see
OpenHands/software-agent-sdk#4382): a report that does not grow is taken for no report, and an estimate from tokens is
added; a report that starts again at zero likewise; and a new bridge to a session that goes on (its agent restarted)
counts the whole cumulative cost again. Here the last report is kept per session, and a session that reports costs is
never estimated. A session that was resumed in another process goes on from what the conversation had spent, if the
first report is not below that. Reports in another currency than US dollars are no US dollars: the turn has no price.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

SESSION_LIMIT = 4096
"""Sessions whose last report is remembered, the most recent ones."""
DOLLARS = "USD"


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn: what it cost by the agent's own report; None if it reported nothing that can be used."""

    reported: float | None
    foreign_currency: bool = False


class AcpSessions:
    """The last cumulative cost that each session reported."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, float] = OrderedDict()

    def turn(self, agent: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Turn:
        """Read the arguments of one call of ``_record_usage(self, response, session_id, elapsed, usage_update)``."""
        names = ("response", "session_id", "elapsed", "usage_update")
        given = dict(zip(names, args[1:], strict=False)) | kwargs
        session_id = str(given.get("session_id", ""))
        cost = getattr(given.get("usage_update"), "cost", None)
        if cost is None:
            return Turn(None)
        if str(getattr(cost, "currency", DOLLARS) or DOLLARS).upper() != DOLLARS:
            return Turn(None, foreign_currency=True)
        amount = float(cost.amount)
        before = self._last.get(session_id)
        if before is None:
            before = _spent_before(agent)
        self._remember(session_id, amount)
        return Turn(amount - before if amount >= before else amount)

    def _remember(self, session_id: str, amount: float) -> None:
        self._last[session_id] = amount
        self._last.move_to_end(session_id)
        while len(self._last) > SESSION_LIMIT:
            self._last.popitem(last=False)


def _spent_before(agent: Any) -> float:
    if not getattr(agent, "_resumed_existing_session", False):
        return 0.0
    return float(agent.llm.metrics.accumulated_cost)
