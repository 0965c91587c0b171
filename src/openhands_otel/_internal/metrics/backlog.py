"""What stood at each full quarter-hour, kept while nothing is acknowledged, so that spend is shown where it belongs.

Only totals are kept, and of these what had changed since the quarter-hour before. Beyond a day there is one for each
hour. What takes too much room nevertheless is joined with what came after it: the money stays, its time gets coarser.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from openhands_otel._internal.clock import SECOND_NS
from openhands_otel._internal.exact import Number
from openhands_otel._internal.metrics import conversation_series, fleet_series
from openhands_otel._internal.metrics.conversation_series import CONVERSATIONS_PER_REQUEST
from openhands_otel._internal.metrics.fleet_series import adds_up, extent
from openhands_otel._internal.metrics.points import SentSeries

QUARTER_NS = 900 * SECOND_NS
HOUR_NS = 3600 * SECOND_NS
RECENT_NS = 96 * QUARTER_NS
"""How far back quarter-hours are kept one by one."""
POINT_LIMIT = 50_000
"""Points of all marks together, some 20 MB."""


@dataclass(slots=True, eq=False)
class Mark:
    """What was not acknowledged at one time. ``body`` is that as it stands in a spool, once it was put together."""

    at: int
    fleet: fleet_series.FleetValues
    conversations: conversation_series.ConversationValues
    body: bytes | None = None

    @property
    def size(self) -> int:
        """Points."""
        return len(self.fleet) + sum(map(len, self.conversations.values()))

    def absorb(self, earlier: Mark) -> None:
        """Say as well what ``earlier`` said and this does not."""
        self.fleet = earlier.fleet | self.fleet
        merged = dict(earlier.conversations)
        for name, values in self.conversations.items():
            merged[name] = merged.get(name, {}) | values
        self.conversations = merged
        self.body = None


@dataclass(slots=True)
class Backlog:
    """Marks, oldest first. Used under the ledger's lock."""

    marks: deque[Mark] = field(default_factory=deque[Mark])
    _newest: Mark | None = None
    _fleet: dict[SentSeries, Number] = field(default_factory=dict[SentSeries, Number])
    _conversations: dict[str, dict[SentSeries, Number]] = field(default_factory=dict[str, dict[SentSeries, Number]])
    """As the marks have them last."""

    def note(self, newest: Mark) -> None:
        """Take what stands now; what stood last in an earlier quarter-hour becomes a mark."""
        before, self._newest = self._newest, newest
        if before is not None and before.at // QUARTER_NS < newest.at // QUARTER_NS:
            self.marks.extend(self._marks_of(before))
            self._thin(newest.at)

    def done(self, mark: Mark) -> None:
        """``mark`` is delivered, or will never be."""
        if self.marks and self.marks[0] is mark:
            self.marks.popleft()

    def clear(self) -> None:
        """Everything is acknowledged."""
        self.marks.clear()
        self._newest = None
        self._fleet.clear()
        self._conversations.clear()

    def _marks_of(self, last: Mark) -> Iterator[Mark]:
        fleet = {s: value for s, value in last.fleet.items() if adds_up(s) and self._fleet.get(s) != extent(value)}
        self._fleet.update((series, extent(value)) for series, value in fleet.items())
        conversations: conversation_series.ConversationValues = {}
        for name, values in last.conversations.items():
            known = self._conversations.setdefault(name, {})
            changed = {s: value for s, value in values.items() if s[0].kind == "counter" and known.get(s) != value}
            known.update(changed)
            if changed:
                conversations[name] = changed
        for names in itertools.batched(conversations or [""], CONVERSATIONS_PER_REQUEST):
            chosen = {name: conversations[name] for name in names if name in conversations}
            if fleet or chosen:
                yield Mark(last.at, fleet, chosen)
            fleet = {}

    def _thin(self, now: int) -> None:
        kept: list[Mark] = []
        for mark in self.marks:
            old = mark.at < now - RECENT_NS
            if kept and old and kept[-1].at // HOUR_NS == mark.at // HOUR_NS and self._fits(kept[-1], mark):
                mark.absorb(kept.pop())
            kept.append(mark)
        while len(kept) > 1 and sum(mark.size for mark in kept) > POINT_LIMIT:
            kept[1].absorb(kept[0])
            del kept[0]
        self.marks = deque(kept)

    def _fits(self, one: Mark, other: Mark) -> bool:
        return len(one.conversations | other.conversations) <= CONVERSATIONS_PER_REQUEST
