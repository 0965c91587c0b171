"""Rows of spend for tests."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from openhands_otel._internal.exact import ExactSum
from openhands_otel._internal.spend.amounts import Amount
from openhands_otel._internal.spend.rows import QUARTER_S, SpendRow

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    """Unix seconds of a local time."""
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


def amount(cost: float = 0.0, *, read: bool = False, saved: float = 0.0, seconds: float = 0.0, **counts: int) -> Amount:
    costs = ExactSum([cost])
    return Amount(
        cost=costs,
        read_cost=ExactSum([cost]) if read else ExactSum(),
        savings=ExactSum([saved]),
        seconds=ExactSum([seconds]),
        **counts,
    )


def row(when: str | float, spent: Amount, **keys: str) -> SpendRow:
    """One at a local time of Berlin, or at unix seconds."""
    begin = at(when) if isinstance(when, str) else when
    return SpendRow(begin, begin + QUARTER_S, keys, spent)


def undated(before: str, spent: Amount, **keys: str) -> SpendRow:
    return SpendRow(None, at(before), keys, spent)
