"""Sums without rounding, and the range of what may go into them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

Number = int | float

COUNT_LIMIT: Final = 2**53
"""Up to here a float holds every whole number, and so does a page's JavaScript."""
INT64_MAX: Final = 2**63 - 1
"""The largest whole number of SQLite and of protobuf; of nanoseconds, the year 2262."""
TOKENS_LIMIT: Final = 10**12
"""Of one response: millions of such sums find room in 64 bits."""
MONEY_LIMIT: Final = 1e9
"""US dollars of one value: far beyond anything true."""
SECONDS_LIMIT: Final = 1e11
"""Also a point in time: unix seconds, until the year 5138."""


class ExactSum:
    """A sum of finite numbers, exact in whatever order they come; what is added can be taken back.

    Every float is a whole number of units of some power of two, so the sum is an integer of the finest unit so far.
    """

    __slots__ = ("_scale", "_units")

    def __init__(self, parts: Iterable[float] = ()) -> None:
        self._units = 0
        self._scale = 0
        """The sum is ``_units / 2**_scale``."""
        for part in parts:
            self.add(part)

    def add(self, number: float) -> None:
        """Add a float or an int."""
        if not self._scale and isinstance(number, int):
            self._units += number
            return
        numerator, denominator = number.as_integer_ratio()
        self._add(numerator, denominator.bit_length() - 1)

    def include(self, other: ExactSum, sign: int = 1) -> None:
        """Add all that another sum holds, or take it away where ``sign`` is -1."""
        self._add(sign * other._units, other._scale)

    def _add(self, units: int, scale: int) -> None:
        finer = scale - self._scale
        if finer > 0:
            self._units <<= finer
            self._scale = scale
            self._units += units
        else:
            self._units += units << -finer

    @property
    def value(self) -> float:
        """The sum, rounded once."""
        return self._units / (1 << self._scale)

    def split(self, per_unit: int) -> tuple[int, int, float]:
        """The sum in whole units, in whole ``per_unit``-ths of the rest, and what is then left, as a float."""
        fine, left = divmod(self._units * per_unit, 1 << self._scale)
        return *divmod(fine, per_unit), left / (1 << self._scale) / per_unit

    @property
    def parts(self) -> list[float]:
        """The fewest numbers that add up to it exactly, to be stored; ints where only ints were added."""
        if not self._scale:
            return [self._units] if self._units else []
        parts: list[float] = []
        rest = self._units
        while rest:
            parts.append(rest / (1 << self._scale))
            numerator, denominator = parts[-1].as_integer_ratio()
            rest -= (numerator << self._scale) // denominator
        return parts
