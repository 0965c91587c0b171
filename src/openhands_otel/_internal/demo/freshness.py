"""How long a cost takes from OpenHands to a viewer.

The agent's process notes when each cost was added, the watching one when each accumulated cost arrived; both read the
same machine's clock. A cost has arrived with the first accumulated cost that contains it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median

from openhands_otel._internal.demo.totals import COST_TOLERANCE


@dataclass(frozen=True, slots=True)
class AddedCost:
    """A cost that OpenHands added: when (unix nanoseconds) and how much."""

    at: int
    amount: float


@dataclass(frozen=True, slots=True)
class Seen:
    """An accumulated cost that a viewer received, and when."""

    at: int
    total: float


@dataclass(frozen=True, slots=True)
class Freshness:
    """Delays in seconds, in the order in which the costs were added; what never arrived is infinite."""

    delays: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.delays) if self.delays else math.inf

    @property
    def worst(self) -> float:
        return max(self.delays, default=math.inf)


def freshness(spent: Sequence[AddedCost], seen: Sequence[Seen]) -> Freshness:
    """Match costs with arrivals."""
    totals = accumulate(cost.amount for cost in spent)
    return Freshness(tuple(_delay(cost.at, total, seen) for cost, total in zip(spent, totals, strict=True)))


def _delay(at: int, total: float, seen: Sequence[Seen]) -> float:
    arrival = next((update.at for update in seen if update.total >= total - COST_TOLERANCE), None)
    return math.inf if arrival is None else (arrival - at) / 1e9
