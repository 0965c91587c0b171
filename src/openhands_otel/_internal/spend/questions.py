"""What is asked of spend, wherever it is kept: grouped by what, of when, of whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from zoneinfo import ZoneInfo

from openhands_otel._internal.spend.conditions import Condition
from openhands_otel._internal.spend.grouping import UNITS, group
from openhands_otel._internal.spend.rows import Described, Dimension, SpendRow, Unit
from openhands_otel.stats import Spend


@dataclass(frozen=True, slots=True)
class SpendQuestion:
    """One question, read and checked; an answer is a ``stats.Spend``."""

    by: tuple[str, ...]
    zone: ZoneInfo
    since: float | None = None
    """Unix seconds."""
    until: float | None = None
    where: tuple[Condition, ...] = ()
    top: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What rows have to be told apart by."""
        wanted = [*(name for name in self.by if name not in UNITS), *(each.name for each in self.where)]
        return tuple(dict.fromkeys(wanted))

    @property
    def finest(self) -> Unit | None:
        """The longest periods out of which all those can be put together that it is grouped by; None for no time."""
        units = [unit for unit in Unit if unit in self.by]
        # Weeks don't fit into months; days fit into both.
        return Unit.DAY if units == [Unit.WEEK, Unit.MONTH] else next(iter(units), None)

    def answered_by(
        self,
        rows: Iterable[SpendRow],
        described: Mapping[str, Described] | None = None,
    ) -> Spend:
        """What rows add up to; ``described``: conversations and runs, by id."""
        return group(
            rows,
            self.by,
            self.zone,
            since=self.since,
            until=self.until,
            where=self.where,
            top=self.top,
            described=described,
        )

    def is_whole(self, dimension: Dimension) -> bool:
        """Whether each group of the answer is one conversation, or one run, with all that was spent there then."""
        return self.by == (dimension,) and not self.where

    def whole(self) -> SpendQuestion:
        """The same, not cut to its top: answers of several sources are cut when they are one."""
        return replace(self, top=None)
