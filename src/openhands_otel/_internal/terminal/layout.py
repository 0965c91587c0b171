"""Lines of a table: which columns there is room for, how wide each is, and what gives way.

Numbers and states are never cut. Names give way down to their least width; then columns leave, the least important
first. A column that grew stays as wide until a new order is made, so that nothing jumps from side to side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.cells import cell_len
from rich.text import Text

ALWAYS: Final = 0
_NARROW: Final = 100
"""Terminals narrower than this have one space between columns, others two."""


@dataclass(frozen=True)
class Column[R]:
    """One column of rows R."""

    name: str
    title: str
    cell: Callable[[R, float], Text]
    """What a row says there, by the viewer's clock (unix seconds)."""
    leaves: int = ALWAYS
    """Where there is no room, columns with the largest number leave first."""
    least: int | None = None
    """Of a column of names: down to this width it gives way. None: it is never cut."""
    left: bool = False
    """Whether it stands at the left; numbers stand at the right."""
    from_width: int = 0
    """Terminals narrower than this do without."""
    below_width: int = 1_000_000
    """And those that have this width."""
    keeps_last: bool = False
    """Whether its last word is never cut."""
    unless_empty: bool = False
    """Whether it stays away while no row says anything there."""


@dataclass
class Layout[R]:
    """Fits columns into a width."""

    columns: Sequence[Column[R]]
    _natural: dict[str, int] = field(default_factory=dict[str, int])

    def forget(self) -> None:
        """Columns may become narrower again."""
        self._natural.clear()

    def fit(self, rows: Sequence[R], now: float, width: int) -> Lines[R]:
        """How these rows are drawn in a terminal of this width."""
        cells = [{column.name: column.cell(row, now) for column in self.columns} for row in rows]
        for column in self.columns:
            widest = max((texts[column.name].cell_len for texts in cells), default=0)
            least = 0 if column.unless_empty and not widest else cell_len(column.title)
            self._natural[column.name] = max(self._natural.get(column.name, 0), least, widest)
        fits = (column for column in self.columns if column.from_width <= width < column.below_width)
        shown = [column for column in fits if self._natural[column.name]]
        gap = 1 if width < _NARROW else 2
        while self._needed(shown, gap) > width and any(column.leaves for column in shown):
            shown.remove(max(shown, key=lambda column: column.leaves))
        return Lines(shown, self._widths(shown, gap, width), gap, cells)

    def _needed(self, columns: Sequence[Column[R]], gap: int) -> int:
        natural = self._natural
        least = [natural[each.name] if each.least is None else min(natural[each.name], each.least) for each in columns]
        return sum(least) + gap * (len(columns) - 1)

    def _widths(self, columns: Sequence[Column[R]], gap: int, width: int) -> dict[str, int]:
        widths = {column.name: self._natural[column.name] for column in columns}
        names = [column for column in columns if column.least is not None]
        over = sum(widths.values()) + gap * (len(columns) - 1) - width
        while over > 0 and names:
            widest = max(names, key=lambda column: widths[column.name] - (column.least or 0))
            if widths[widest.name] <= 1:
                break
            widths[widest.name] -= 1
            over -= 1
        return widths


@dataclass(frozen=True)
class Lines[R]:
    """Columns with their widths, and the cells of the rows."""

    columns: Sequence[Column[R]]
    widths: Mapping[str, int]
    gap: int
    cells: Sequence[Mapping[str, Text]]

    def heading(self, sort: str = "", descending: bool = True) -> Text:
        """The titles; the one that rows are sorted by is marked."""
        titles = {
            column.name: Text(column.title, style="bold underline" if column.name == sort else "bold")
            for column in self.columns
        }
        if sort in titles:
            mark = "▼" if descending else "▲"
            fits = self.widths[sort] > titles[sort].cell_len
            titles[sort] = titles[sort] + mark if fits else Text(mark, style="bold") + titles[sort][1:]
        return self.line(titles)

    def row(self, index: int) -> Text:
        """The line of one row."""
        return self.line(self.cells[index])

    def line(self, cells: Mapping[str, Text]) -> Text:
        """A line of these texts by the names of columns; those that have none stay empty."""
        line = Text(no_wrap=True)
        for column in self.columns:
            if column is not self.columns[0]:
                line.append(" " * self.gap)
            text, width = cells.get(column.name, Text()), self.widths[column.name]
            if text.cell_len > width:
                text = _cut(text, width, column.keeps_last)
            room = " " * (width - text.cell_len)
            line.append(text if column.left else room).append(room if column.left else text)
        return line

    def foot(self, name: str, column: str, amount: str) -> Text:
        """A sum: its amount stands below its column and is not cut; its name has all of the room before that."""
        before = 0
        for each in self.columns:
            if each.name == column:
                break
            before += self.widths[each.name] + self.gap
        end = before + self.widths[column]
        label = Text(no_wrap=True).append(name, style="dim")
        label.truncate(max(0, min(before, end - len(amount)) - self.gap), overflow="ellipsis", pad=True)
        return label.append(" " * max(1, end - label.cell_len - len(amount))).append(amount, style="bold")


def _cut(text: Text, width: int, keeps_last: bool) -> Text:
    """As much of it as fits; its last word too where that is to be kept."""
    before, gap, last = text.plain.rpartition(" ")
    kept = text[len(before) :] if keeps_last and gap and cell_len(last) + 2 < width else Text()
    cut = text[: len(before)] if kept else text.copy()
    cut.truncate(width - kept.cell_len, overflow="ellipsis")
    return cut.append(kept)
