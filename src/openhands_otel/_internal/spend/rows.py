"""One row of spend: what was spent in a stretch of time in one place; and the names by which rows are grouped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from openhands_otel._internal.spend.amounts import Amount

QUARTER_S: Final = 900
"""The archive's unit of time: a quarter of an hour, UTC, in seconds. Every zone's midnight is a boundary of one."""
CLOCKS_S: Final = 2.0
"""By how much the clocks of a call and of what told of it may differ, and a little more, seconds."""
BURN_WINDOW_S: Final = 300.0
"""Over which it is measured what an hour costs, seconds."""


class Dimension(StrEnum):
    """What rows are told apart by, beside time; any other name is that of a label."""

    SERVICE = "service"
    NAMESPACE = "namespace"
    PROVIDER = "provider"
    MODEL = "model"
    ROLE = "role"
    AGENT = "agent"
    USAGE_ID = "usage_id"
    COST_SOURCE = "cost_source"
    CONVERSATION = "conversation"
    RUN = "run"


class Unit(StrEnum):
    """Stretches of time that rows are grouped by."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Described(NamedTuple):
    """What is known of a conversation or a run beside what it spent."""

    outcome: str | None = None
    name: str | None = None
    """What people know it, or its conversation, by."""
    tool_calls: int | None = None


UNDESCRIBED: Final = Described()


@dataclass(frozen=True, slots=True)
class SpendRow:
    """What was spent between ``begin`` and ``end`` in one place."""

    begin: float | None
    """Unix seconds, included; None for what has no date ("before DATE"): then ``end`` is that date."""
    end: float
    """Unix seconds, not included. A row lies within one quarter-hour, unless whoever made it was told to sum."""
    keys: Mapping[str, str]
    """By ``Dimension`` or label name; what is not known is left out."""
    amount: Amount
