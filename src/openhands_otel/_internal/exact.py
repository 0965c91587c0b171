"""Sums of money that don't drift, and what may go into them: a running float total with Neumaier's compensation.

A plain float sum of 10,000 prices is off by some 1e-12 of its value, of millions more; this one is correct to the last
bit or so however many are added, in two floats.
"""

from __future__ import annotations

from typing import Final

COUNT_LIMIT: Final = 2**53
"""Up to here a float holds every whole number, and so does a page's JavaScript."""
MONEY_LIMIT: Final = 1e9
"""US dollars of one value: far beyond anything true."""


class ExactSum:
    """A growing sum; ``value`` is what has been added, rounded once."""

    __slots__ = ("_compensation", "_total")

    def __init__(self, start: float = 0.0) -> None:
        self._total = start
        self._compensation = 0.0

    def add(self, amount: float) -> None:
        """Add ``amount``."""
        total = self._total + amount
        if abs(self._total) >= abs(amount):
            self._compensation += (self._total - total) + amount
        else:
            self._compensation += (amount - total) + self._total
        self._total = total

    @property
    def value(self) -> float:
        """The sum."""
        return self._total + self._compensation
