"""What a conversation did and does, as bars over time: runs, calls and tools, with those of sub-agents below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.text import Text

from openhands_otel._internal.money import money
from openhands_otel._internal.terminal.words import LONGEST_TEXT, took
from openhands_otel._internal.terminal_text import printable
from openhands_otel.stats import TimelineRow

_DEEPEST: Final = 10
_COLORS: Final = {"run": "blue", "call": "green", "tool": "yellow"}
_STATES: Final = {"running": "running", "missing": "no span of it here"}
_TOOK: Final = 8
_COST: Final = 9
_LEAST_LANE: Final = 10
_LABEL_SHARE: Final = 0.4
_MOST_LABEL: Final = 60
_LEAST_S: Final = 0.001
_TICK: Final = 12
"""Columns for each time on the axis."""


@dataclass
class Waterfall:
    """Rows of a timeline, of which some are folded; drawn for a width and a moment."""

    rows: Sequence[TimelineRow] = ()
    shown: list[TimelineRow] = field(default_factory=list[TimelineRow])
    _folded: set[str] = field(default_factory=set[str])

    def take(self, rows: Sequence[TimelineRow]) -> None:
        """Show these."""
        self.rows = rows
        self._arrange()

    def fold(self, row: TimelineRow, fold: bool) -> None:
        """Hide, or show, what is below a row."""
        if fold and row.below:
            self._folded.add(row.id)
        else:
            self._folded.discard(row.id)
        self._arrange()

    def is_folded(self, row: TimelineRow) -> bool:
        return row.id in self._folded

    def above(self, index: int) -> int:
        """Of the row that one stands below; itself where it is at the top."""
        depth = self.shown[index].depth
        return next((at for at in range(index - 1, -1, -1) if self.shown[at].depth < depth), index)

    def span(self, now: float) -> tuple[float, float]:
        """From the first begin to the last end, or to now while anything runs; unix seconds."""
        begun = min((row.begun for row in self.rows), default=now)
        ended = max((_end(row, now) for row in self.rows), default=now)
        return begun, max(ended, begun + _LEAST_S)

    def _arrange(self) -> None:
        self.shown = []
        at = 0
        while at < len(self.rows):
            row = self.rows[at]
            self.shown.append(row)
            at += 1 + (row.below if row.id in self._folded else 0)


@dataclass(frozen=True)
class Scale:
    """How a waterfall is drawn: the width of its parts, and the time that its lane stands for."""

    begun: float
    ended: float
    now: float
    label: int
    lane: int
    has_cost: bool

    @classmethod
    def of(cls, waterfall: Waterfall, width: int, now: float) -> Scale:
        """For a terminal of this width, at this moment (unix seconds by the viewer's clock)."""
        begun, ended = waterfall.span(now)
        label = min(_MOST_LABEL, int(width * _LABEL_SHARE))
        numbers = _TOOK + _COST + 2
        lane = width - label - 1 - numbers
        has_cost = lane >= _LEAST_LANE
        lane = lane if has_cost else width - label - 1 - _TOOK - 1
        return cls(begun, ended, now, label, max(0, lane), has_cost)

    def axis(self) -> Text:
        """Seconds since the begin, above the lane."""
        ticks = max(1, self.lane // _TICK)
        marks = (took(at * (self.ended - self.begun) / ticks) for at in range(ticks))
        lane = "".join(mark.ljust(self.lane // ticks) for mark in marks)
        text = f"{'what':<{self.label}} {lane:<{self.lane}} {'took':>{_TOOK}}"
        return Text(text + (f" {'$':>{_COST}}" if self.has_cost else ""), style="bold", no_wrap=True)

    def line(self, row: TimelineRow, folded: bool) -> Text:
        """One row."""
        line = self._label(row, folded).append(" ").append(self._bar(row)).append(" ")
        line.append(took(max(0.0, _end(row, self.now) - row.begun)).rjust(_TOOK))
        if self.has_cost:
            line.append(" " + ("" if row.cost is None else money(row.cost)).rjust(_COST), style="bold")
        return line

    def _label(self, row: TimelineRow, folded: bool) -> Text:
        twist = "▸ " if folded else "▾ " if row.below else "  "
        role = "" if row.role in (None, "agent") else row.role
        below = f"{row.below:,} below" if folded else ""
        words = (row.name, role, row.error_type, _STATES.get(row.state), below)
        text = " · ".join(printable(word, LONGEST_TEXT) for word in words if word)
        style = "red" if row.error_type else "dim" if row.state == "missing" else ""
        label = Text("  " * min(row.depth, _DEEPEST) + twist + text, style=style, no_wrap=True)
        label.truncate(self.label, overflow="ellipsis", pad=True)
        return label

    def _bar(self, row: TimelineRow) -> Text:
        per_cell = self.lane / (self.ended - self.begun)
        first = min(max(0, self.lane - 1), int((row.begun - self.begun) * per_cell))
        end = _end(row, self.now)
        last = min(self.lane, max(first + 1, round((end - self.begun) * per_cell)))
        running = row.ended is None
        cell = "░" if row.state == "missing" else "█"
        bar = cell * (last - first)
        if running and bar:
            bar = bar[:-1] + "▶"
        color = "red" if row.error_type else _COLORS.get(row.kind, "magenta")
        lane = Text(" " * first)
        return lane.append(bar, style=color).append(" " * (self.lane - last))


def _end(row: TimelineRow, now: float) -> float:
    return max(now, row.begun) if row.ended is None else row.ended
