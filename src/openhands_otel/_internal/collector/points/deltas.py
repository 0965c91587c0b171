"""Adds up a series' deltas: each interval counts once, however often and in whatever order it arrives.

An interval is known by its start. Another of the same start is a retry, or the same interval grown by what came since:
the larger holds. The newest are held one by one; older ones are settled into a sum and into the spans of time that they
cover, which join where one interval follows another, so that a sender's whole past is one span. What lies in a
span has been counted.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Final

from openhands_otel._internal.collector.points.values import Distribution, PointValue, amount, combined, plain, unplain
from openhands_otel._internal.exact import ExactSum

_HELD: Final = 32
"""Intervals held one by one: these may still grow."""
_SPAN_LIMIT: Final = 64
"""Spans with gaps between them; of more the two oldest become one."""


class Deltas:
    """The intervals of one series."""

    __slots__ = ("_held", "_numbers", "_settled", "_spans")

    def __init__(self) -> None:
        self._held: dict[int, tuple[int, PointValue]] = {}
        """End and value by start, in the order in which they came."""
        self._spans: list[tuple[int, int]] = []
        """Settled, by start, not overlapping."""
        self._settled: Distribution | None = None
        self._numbers = ExactSum()

    def take(self, start: int, end: int, value: PointValue) -> bool:
        """Take one interval; False where it has been counted."""
        # A sender that gives no start is known by the end alone.
        start = start or end
        if end < start:
            # Its clock was set back: what it says from here on may lie within the past, which covers no time any more.
            self._spans.clear()
            self._held = {start: (start, value) for start, (_, value) in self._held.items()}
        known = self._held.get(start)
        if known is not None:
            grown = amount(value) > amount(known[1])
            if grown:
                self._held[start] = (end, value)
            return grown
        if self._covered(start, end):
            return False
        self._held[start] = (end, value)
        if len(self._held) > _HELD:
            self._settle()
        return True

    @property
    def whole(self) -> PointValue | None:
        """What all of them come to."""
        values = [value for _, value in self._held.values()]
        if not values:
            return None
        if isinstance(values[0], Distribution):
            return combined(values if self._settled is None else [self._settled, *values])
        return combined([*self._numbers.parts, *values])

    def _covered(self, start: int, end: int) -> bool:
        index = bisect_right(self._spans, start, key=lambda span: span[0]) - 1
        return index >= 0 and start < self._spans[index][1] and end <= self._spans[index][1]

    def _settle(self) -> None:
        start = next(iter(self._held))
        end, value = self._held.pop(start)
        if isinstance(value, Distribution):
            self._settled = value if self._settled is None else self._settled.plus(value)
        else:
            self._numbers.add(value)
        end = max(end, start + 1)
        index = bisect_right(self._spans, start, key=lambda span: span[0])
        # Joined to what it follows, and to all that begins before it ends.
        first = index - 1 if index and self._spans[index - 1][1] >= start else index
        last = index
        while last < len(self._spans) and self._spans[last][0] <= end:
            last += 1
        joined = [(start, end), *self._spans[first:last]]
        self._spans[first:last] = [(min(span[0] for span in joined), max(span[1] for span in joined))]
        if len(self._spans) > _SPAN_LIMIT:
            self._spans[:2] = [(self._spans[0][0], self._spans[1][1])]

    def record(self) -> list[Any]:
        held = [[start, end, plain(value)] for start, (end, value) in self._held.items()]
        return [held, self._spans, None if self._settled is None else plain(self._settled), self._numbers.parts]

    @classmethod
    def from_record(cls, record: list[Any]) -> Deltas:
        deltas = cls()
        held, spans, settled, numbers = record
        deltas._held = {start: (end, unplain(value)) for start, end, value in held}
        deltas._spans = [(start, end) for start, end in spans]
        if settled is not None:
            value = unplain(settled)
            deltas._settled = value if isinstance(value, Distribution) else None
        deltas._numbers = ExactSum(numbers)
        return deltas
