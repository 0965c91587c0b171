"""Periods: what they are called, and how a source is asked for one and for the one before; as ``viewer/period.js`` has
it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from openhands_otel._internal.spend.periods import ALL, quarter

HOUR: Final = "hour"
_HOUR_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class NamedPeriod:
    """How one is called."""

    title: str
    """As a choice."""
    spent: str
    """After what was spent in it."""
    column: str = ""
    """Above what conversations cost in it."""
    before: str = ""
    """Before what was spent in the one before."""
    back: tuple[str, str] | None = None
    """Begin and end of a time that begins with the one before, in words of the API."""


NAMED_PERIODS: Final[Mapping[str, NamedPeriod]] = {
    HOUR: NamedPeriod("hour", "last hour", "$ hour", "the hour before"),
    "today": NamedPeriod("today", "today", "$ today", "yesterday by now", ("yesterday", "yesterday")),
    "7d": NamedPeriod("7 days", "in 7 days", "$ 7 days", "the 7 days before, by now", ("14d", "today")),
    "30d": NamedPeriod("30 days", "in 30 days", "$ 30 days", "the 30 days before, by now", ("60d", "today")),
    ALL: NamedPeriod("all", "in all", "$"),
}


def asked_since(period: str, now: float) -> tuple[float | str | None, str | None]:
    """Begin and end of a period, as a source is asked for it; ``now`` is unix seconds."""
    if period == ALL:
        return None, None
    return (quarter(now - _HOUR_S), None) if period == HOUR else (period, "today")


def until_then(begin: float, since: float, now: float) -> tuple[float, float]:
    """Begin and end, in unix seconds, of as much of the period before as has passed of this one.

    Args:
        begin: Of the period before.
        since: Of this one.
        now: This moment.
    """
    return max(0.0, quarter(begin)), begin + (now - since)


def hour_before(since: float) -> float:
    """Begin of the hour before the one that begins then, unix seconds."""
    return since - _HOUR_S
