"""Arithmetic of amounts of which some is taken away."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise

from openhands_otel._internal.collector.state.placing import Booked, Cube, Place
from openhands_otel._internal.exact import ExactSum
from openhands_otel._internal.spend.amounts import EXACT, RESIDUE, WHOLE, Amount
from openhands_otel._internal.spend.rows import QUARTER_S


def copied(amount: Amount) -> Amount:
    """Another of the same amount."""
    copy = Amount()
    copy.include(amount)
    return copy


def take(held: Amount, need: Amount) -> Amount:
    """As much of what is needed as there is, no longer needed; savings go with the tokens that they were made by."""
    part = Amount()
    for name in EXACT:
        there, wanted = getattr(held, name), getattr(need, name)
        if there.value > 0 and wanted.value > 0:
            enough = there.value - wanted.value > RESIDUE
            getattr(part, name).include(wanted if enough else there)
            wanted.include(getattr(part, name), -1)
    for name in WHOLE:
        number = max(0, min(getattr(held, name), getattr(need, name)))
        setattr(part, name, number)
        setattr(need, name, getattr(need, name) - number)
    if part.cache_read_tokens and held.savings.value and not part.savings.value:
        share = part.cache_read_tokens / held.cache_read_tokens
        part.savings = ExactSum([held.savings.value * share]) if share < 1 else ExactSum(held.savings.parts)
    return part


class PlaceSums:
    """Amounts by what totals know of their place."""

    def __init__(self) -> None:
        self._by_place: dict[Place, Amount] = {}

    def add(self, place: Place, amount: Amount, sign: int) -> None:
        """Add an amount, or take it away where ``sign`` is -1."""
        known = place._replace(cube=Cube.FLEET, namespace="", labels="{}", usage_id="", run="", conversation="")
        self._by_place.setdefault(known, Amount()).include(amount, sign)

    def each(self) -> Iterator[tuple[Place, Amount]]:
        """All that are not nothing."""
        return ((place, amount) for place, amount in self._by_place.items() if amount.anything)


def correct_samples(connection: sqlite3.Connection, subject: str, taken: Iterable[Booked]) -> None:
    """Have samples be less by what is forgotten; those of the quarter-hours in which it was spent go."""
    by_quarter: dict[int, Amount] = defaultdict(Amount)
    for quarter, _, amount in taken:
        by_quarter[quarter].include(amount)
    sofar = Amount()
    for quarter, following in pairwise([*sorted(by_quarter), 2**40]):
        sofar.include(by_quarter[quarter])
        end = quarter + QUARTER_S
        connection.execute("DELETE FROM samples WHERE subject = ? AND at >= ? AND at < ?", (subject, quarter, end))
        connection.execute(
            "UPDATE samples SET cost = max(0.0, cost - ?), prompt = max(0, prompt - ?),"
            " completion = max(0, completion - ?), calls = max(0, calls - ?)"
            " WHERE subject = ? AND at >= ? AND at < ?",
            (sofar.cost.value, sofar.prompt_tokens, sofar.completion_tokens, sofar.calls, subject, end, following),
        )
