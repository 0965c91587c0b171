"""What conversations cost in the chosen period, so that the rows of the table add up to what was spent in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from openhands_otel._internal.terminal.parts import BY_CONVERSATION
from openhands_otel.stats import ConversationStats, Spend, SpendGroup

_NO_CONVERSATION: Final = "no conversation"


@dataclass(frozen=True, slots=True)
class Costs:
    """Of all time, where nothing is given: then each conversation tells by itself."""

    period: str = ""
    """Of which period; an empty text where of all time."""
    since: float = 0.0
    """Its begin, unix seconds."""
    by_id: Mapping[str, SpendGroup] = field(default_factory=dict[str, SpendGroup])
    total: SpendGroup | None = None
    """Of the period; None where of all time."""
    filtered: bool = False
    """Whether only a part of what conversations did is counted."""
    has_more: bool = False
    """Whether there are conversations that are not told apart."""

    @classmethod
    def of_period(cls, period: str, spend: Spend, filtered: bool) -> Costs:
        """As a source told it by conversation."""
        told = {group.keys[BY_CONVERSATION]: group for group in spend.groups if not group.remainder}
        told.pop(_NO_CONVERSATION, None)
        has_more = any(group.remainder for group in spend.groups)
        return cls(period, spend.since or 0.0, told, spend.total, filtered, has_more)

    def of(self, stats: ConversationStats) -> tuple[float | None, int]:
        """US dollars (None: not told), and calls without a price."""
        if self.total is None or self._began_in_it(stats):
            return stats.accumulated_cost, stats.unpriced_calls
        group = self.by_id.get(stats.conversation_id)
        if group is not None:
            return group.accumulated_cost, group.unpriced_calls
        return (None if self.has_more else 0.0), 0

    def rest(self, ever: float, shown: Iterable[ConversationStats]) -> float:
        """What was spent beyond these conversations, US dollars; ``ever``: of all time."""
        if self.total is None:
            return ever - sum(stats.accumulated_cost for stats in shown)
        # By what the source said at one moment: what rows have gained since then is in the total when it is asked next.
        return self.total.accumulated_cost - sum(self._booked(stats) for stats in shown)

    def _booked(self, stats: ConversationStats) -> float:
        group = self.by_id.get(stats.conversation_id)
        if group is not None:
            return group.accumulated_cost
        return (self.of(stats)[0] or 0.0) if self.has_more else 0.0

    def _began_in_it(self, stats: ConversationStats) -> bool:
        """Whether all that it ever spent belongs to the period: the stream tells that sooner."""
        return not self.filtered and stats.started_unix_nano / 1e9 >= self.since
