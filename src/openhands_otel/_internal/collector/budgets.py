"""How the viewer's budgets stand, asked of the archive in which every dollar has its quarter-hour."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final
from zoneinfo import ZoneInfo

from openhands_otel._internal.collector.archive.questions import answer
from openhands_otel._internal.spend.budgets import Limit, standing
from openhands_otel._internal.spend.conditions import Condition
from openhands_otel._internal.spend.periods import period_of, quarter
from openhands_otel._internal.spend.questions import SpendQuestion
from openhands_otel._internal.spend.rows import Dimension
from openhands_otel.stats import Budget

WINDOW_S: Final = 3600.0
"""What the rate of spending is taken from, and up to a quarter-hour more: spend is kept by quarter-hours."""


def limits_of(limits: Sequence[Limit], service: str | None) -> tuple[Limit, ...]:
    """Those that are about one service alone; all of them for None."""
    if service is None:
        return tuple(limits)
    # As a pattern it may stand for several.
    alone = None if set(service) & set("*?[") else Condition(Dimension.SERVICE, service)
    return tuple(limit for limit in limits if limit.where is not None and limit.where == alone)


def budgets(connection: sqlite3.Connection, limits: Sequence[Limit], zone: ZoneInfo, now: float) -> list[Budget]:
    """Each of ``limits`` at the moment ``now`` (unix seconds), in their order."""
    recent_since = quarter(now - WINDOW_S)
    found: list[Budget] = []
    for limit in limits:
        period = period_of(limit.period, now, zone)
        where = () if limit.where is None else (limit.where,)

        def spent(since: float, until: float | None, where: tuple[Condition, ...] = where) -> float:
            question = SpendQuestion(by=(), zone=zone, since=since, until=until, where=where)
            return answer(connection, question).total.accumulated_cost

        recent = spent(recent_since, None)
        found.append(standing(limit, period, now, spent(period.begin, period.end), recent, now - recent_since))
    return found
