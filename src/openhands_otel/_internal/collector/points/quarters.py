"""In which quarter-hour a series reached what: where in time the amount between two of its points belongs.

The interval between two values belongs to the quarter-hour of the larger one's stamp. A late point that lies between
two known values parts their interval: what had been reached by then moves to its own quarter-hour. No move changes what
a series comes to.
"""

from __future__ import annotations

from typing import Any, Final

from openhands_otel._internal.exact import Number
from openhands_otel._internal.spend.rows import QUARTER_S

_MARKS: Final = 16
"""Quarter-hours with growth that are remembered of one series; what lies before them moves no more."""
_AHEAD_NS: Final = 600 * 10**9
_BEHIND_NS: Final = 400 * 86_400 * 10**9
_QUARTER_NS: Final = QUARTER_S * 10**9

Step = tuple[int, Number, Number]
"""A quarter-hour (unix seconds), and from which value to which a series went in it; a fall takes back."""


def quarter_of(stamp: int, received: int) -> int:
    """The quarter-hour of a point, unix seconds; of its arrival where its stamp cannot be (both unix nanoseconds)."""
    plausible = received - _BEHIND_NS <= stamp <= received + _AHEAD_NS
    return (stamp if plausible else received) // _QUARTER_NS * QUARTER_S


class Quarters:
    """The newest of them, of one series."""

    __slots__ = ("_floor", "_marks")

    def __init__(self, floor: Number = 0) -> None:
        self._floor: Number = floor
        """What the series had reached before the first mark."""
        self._marks: list[tuple[Number, int]] = []
        """Values that were reached, and in which quarter-hour; rising."""

    def take(self, value: Number | None, quarter: int, before: Number, after: Number) -> list[Step]:
        """A point took the series from ``before`` to ``after``.

        Args:
            value: What the point itself says; None where that cannot be compared with what the series comes to.
        """
        if after != before:
            self._reach(before, after, quarter)
            return [(quarter, before, after)]
        return [] if value is None else self._part(value, quarter)

    def _reach(self, before: Number, after: Number, quarter: int) -> None:
        if after < before:
            self._floor, self._marks = after, []
        elif self._marks and self._marks[-1][1] == quarter:
            self._marks[-1] = after, quarter
        else:
            self._marks.append((after, quarter))
            if len(self._marks) > _MARKS:
                self._floor = self._marks.pop(0)[0]

    def _part(self, value: Number, quarter: int) -> list[Step]:
        """A late point: what had been reached by then was reached in an earlier quarter-hour."""
        low = self._floor
        for index, (high, booked) in enumerate(self._marks):
            if value <= high:
                if value <= low or booked <= quarter:
                    return []
                parted = [(value, quarter)] if value == high else [(value, quarter), (high, booked)]
                self._marks[index : index + 1] = parted
                return [(booked, value, low), (quarter, low, value)]
            low = high
        return []

    def record(self) -> list[Any]:
        """As the archive keeps it."""
        return [self._floor, self._marks]

    @classmethod
    def from_record(cls, record: list[Any]) -> Quarters:
        """The opposite."""
        quarters = cls(record[0])
        quarters._marks = [(value, quarter) for value, quarter in record[1]]
        return quarters
