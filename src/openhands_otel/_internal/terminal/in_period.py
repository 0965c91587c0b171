"""Asks for what the stream does not tell: what conversations cost in a period, and those that have left memory."""

from __future__ import annotations

from typing import Final

from openhands_otel._internal.spend.periods import ALL
from openhands_otel._internal.terminal.costs import Costs
from openhands_otel._internal.terminal.live import Live
from openhands_otel._internal.terminal.parts import BY_CONVERSATION, condition
from openhands_otel._internal.terminal.period import asked_since
from openhands_otel.client import AsyncStatsClient, StatsError, Unreachable
from openhands_otel.stats import ConversationStats

MOST: Final = 2_000
"""Past conversations that have rows; the newest."""
_PAGE: Final = 500
_TOLD_APART: Final = 1_000
_ONE_BY_ONE: Final = 20
"""Conversations that have just left memory, up to which each is asked for by itself."""

WhereConditions = tuple[tuple[str, str], ...]


class InPeriod:
    """What it was told last.

    Args:
        live: Gets the past conversations.
        client: Whom it asks.
    """

    def __init__(self, live: Live, client: AsyncStatsClient) -> None:
        self._live = live
        self._client = client
        self.costs = Costs()
        self.has_more = False
        """Whether there are past conversations without rows."""
        self._asked: object = None
        self._tells_past = True

    async def ask(self, period: str, where: WhereConditions, search: str) -> bool:
        """Ask for what is not known. Raises StatsError where nobody answers.

        Args:
            period: One of period.NAMED_PERIODS.
            where: Names of facts or labels, and the values that they must have.
            search: Words that conversations must have; looked at where there are more than can be listed.

        Returns:
            Whether this was not asked before, so that the past may have what nobody has seen yet.
        """
        costs = await self._costs(period, where)
        is_new = self._asked != self._question(period, where, search)
        if is_new or len(self._live.left) > _ONE_BY_ONE:
            left = set(self._live.left)
            await self._ask_past(costs.since, where if self.has_more else (), search if self.has_more else "")
            self._live.left -= left
            self._asked = self._question(period, where, search)
        else:
            await self._ask_left()
        self.costs = costs
        return is_new

    def _question(self, *asked: object) -> tuple[object, ...]:
        """What of this changes the answer about the past: where all of it has rows, the period alone."""
        return asked if self.has_more else asked[:1]

    def renew(self) -> None:
        """Ask for the past again too."""
        self._asked = None

    async def _costs(self, period: str, where: WhereConditions) -> Costs:
        if period == ALL and not where:
            return Costs()
        since, until = asked_since(period, self._live.now())
        conditions = [condition(*each) for each in where]
        try:
            spend = await self._client.spend(
                [BY_CONVERSATION], since=since, until=until, where=conditions, top=_TOLD_APART
            )
        except Unreachable:
            raise
        except StatsError:
            # It cannot tell conversations apart: what they say themselves has to do.
            return Costs()
        return Costs.of_period(period, spend, bool(where))

    async def _ask_past(self, since: float, where: WhereConditions, search: str) -> None:
        found: list[ConversationStats] = []
        self.has_more = False
        conditions = [condition(*each) for each in where]
        while self._tells_past:
            try:
                page = await self._client.past_conversations(
                    search=search or None, where=conditions, sort="-updated_unix_nano", limit=_PAGE, offset=len(found)
                )
            except Unreachable:
                raise
            except StatsError:
                self._tells_past = False
                break
            inside = [stats for stats in page if stats.updated_unix_nano / 1e9 >= since]
            found += inside
            if len(inside) < _PAGE:
                break
            if len(found) >= MOST:
                self.has_more = True
                break
        self._live.put_past(found)

    async def _ask_left(self) -> None:
        for name in tuple(self._live.left):
            try:
                self._live.add_past(await self._client.conversation(name))
            except Unreachable:
                raise
            except StatsError:
                # It was erased.
                pass
            self._live.left.discard(name)
