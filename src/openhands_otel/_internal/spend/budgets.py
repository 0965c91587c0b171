"""Budgets of a viewer: what may be spent in a calendar day, week or month, on everything or on what a condition names.

What an agent says in ``OPENHANDS_OTEL_BUDGETS`` is another thing: it rolls (24 hours, 30 days) and is Prometheus' to
compare. Here a period begins at midnight of the viewer's zone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from openhands_otel._internal.spend.conditions import Condition, ConditionError
from openhands_otel._internal.spend.periods import Period
from openhands_otel._internal.spend.rows import Unit
from openhands_otel.stats import Budget

PERIODS: Final = (Unit.DAY, Unit.WEEK, Unit.MONTH)
_MOST: Final = 50
_FORM: Final = "as in day=60, month=900, week:service=checkout=100 or month:team=payments=300"


@dataclass(frozen=True, slots=True)
class Limit:
    """One budget. ``amount`` is US dollars; ``where`` None stands for everything that is spent."""

    period: Unit
    amount: float
    where: Condition | None = None

    @property
    def name(self) -> str:
        """What it is called: ``day``, ``month team=payments``."""
        return str(self.period) if self.where is None else f"{self.period} {self.where}"


def read_limits(text: str) -> tuple[Limit, ...]:
    """``day=60,month:team=payments=300`` as limits; raises ValueError, whose message says what to write."""
    limits = [_read(part.strip()) for part in text.split(",") if part.strip()]
    names = [limit.name for limit in limits]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"the budget '{twice}' is given twice")
    if len(limits) > _MOST:
        raise ValueError(f"{len(limits)} budgets, and {_MOST} are the most")
    return tuple(limits)


def _read(part: str) -> Limit:
    named, equals, amount = part.rpartition("=")
    period, colon, condition = named.partition(":")
    if not equals or period.strip() not in PERIODS:
        raise ValueError(f"'{part}' is no budget: write {_FORM}")
    try:
        dollars = float(amount)
    except ValueError:
        raise ValueError(f"'{part}' has no amount in US dollars at its end: write {_FORM}") from None
    if not (math.isfinite(dollars) and dollars > 0):
        raise ValueError(f"'{part}' must be more than 0")
    try:
        where = Condition.of(condition) if colon else None
    except ConditionError:
        raise ValueError(f"'{part}' does not say on what: write {_FORM}") from None
    return Limit(Unit(period.strip()), dollars, where)


def standing(limit: Limit, period: Period, now: float, spent: float, recent: float, window_s: float) -> Budget:
    """How a budget stands.

    Args:
        period: That of now.
        now: Unix seconds.
        spent: US dollars since the period began.
        recent: US dollars in the last ``window_s`` seconds, which the rate and all that is foreseen are taken from.
    """
    per_hour = recent / window_s * 3600 if window_s > 0 else 0.0
    left_s = max(0.0, period.end - now)
    ends = now + (limit.amount - spent) / per_hour * 3600 if per_hour > 0 else math.inf
    return Budget(
        name=limit.name,
        period=str(limit.period),
        where=None if limit.where is None else str(limit.where),
        amount=limit.amount,
        spent=spent,
        since=period.begin,
        until=period.end,
        per_hour=per_hour,
        window_s=window_s,
        projected=spent + per_hour * left_s / 3600,
        exhausted=spent >= limit.amount,
        exhausted_unix_s=ends if spent < limit.amount and ends < period.end else None,
    )
