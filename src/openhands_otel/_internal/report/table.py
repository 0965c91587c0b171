"""A report for a terminal of any width: figures are never cut, names give way, columns go where there is no room."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

from openhands_otel._internal.report.figures import (
    AT_LEAST,
    FIGURE_COLUMNS,
    FigureColumn,
    Line,
    LineKind,
    filled,
    lines,
    notes,
    period_text,
)
from openhands_otel._internal.terminal_text import cells, fitted, printable
from openhands_otel.stats import Spend

LEAST_WIDTH: Final = 20
_GAP: Final = "  "
_INDENT: Final = 2
_NAME_LEAST: Final = 12
"""Columns of a terminal that names keep as long as there is another column of figures that can go."""
_NAME_FEWEST: Final = 3
_NAME_MOST: Final = 60


def table(spend: Spend, width: int) -> str:
    """The whole report, lines of no more than ``width`` columns unless an amount of money alone is wider."""
    width = max(width, LEAST_WIDTH)
    shown = list(lines(spend))
    names = [" " * (_INDENT * line.depth) + printable(line.name, _NAME_MOST) for line in shown]
    title = ", ".join(spend.by)
    name_width = max(cells(each) for each in (*names, printable(title)))
    texts = _aligned(filled([column for column in FIGURE_COLUMNS if width >= column.from_width], shown, spend.total))
    widths = {column: max(cells(each) for each in (column.title, *texts[column])) for column in texts}
    while len(widths) > 1 and min(name_width, _NAME_LEAST) + _room(widths) > width:
        del widths[max(widths, key=lambda column: column.from_width)]
    room = Room(name_width, _room(widths), width)
    written = [*wrapped(f"Spend {period_text(spend)}", width), ""]
    written += room.lines(title, [f"{column.title:>{widths[column]}}" for column in widths])
    for at, (name, line) in enumerate(zip(names, shown, strict=True)):
        if line.kind is LineKind.TOTAL and at:
            written.append("")
        figures = [_right(texts[column][at], widths[column]) for column in widths]
        written += room.lines(_name(name, line, room.for_name), figures)
    said = [sentence for note in notes(spend) for sentence in wrapped(note, width)]
    return "\n".join(each.rstrip() for each in [*written, *([""] if said else []), *said])


def grid(rows: Sequence[Sequence[str]], width: int = sys.maxsize) -> str:
    """A table of texts, the first column left-aligned, of which alone something may be cut."""
    columns = list(zip(*rows, strict=True))
    widths = [max(cells(printable(each)) for each in column) for column in columns]
    room = Room(widths[0], sum(widths[1:]) + len(_GAP) * (len(widths) - 1), max(width, LEAST_WIDTH))
    return "\n".join(
        line.rstrip()
        for row in rows
        for line in room.lines(
            row[0], [_right(printable(each), size) for each, size in zip(row[1:], widths[1:], strict=True)]
        )
    )


class Room:
    """How a name and its figures share a line; where so little is left that no name can be read, they have two.

    Args:
        name: Columns of the longest name.
        figures: Columns that all figures take, with the gaps before each.
        width: Columns of the terminal.
    """

    def __init__(self, name: int, figures: int, width: int) -> None:
        self._apart = width - figures < min(name, _NAME_FEWEST)
        self._width = width
        self.for_name = width if self._apart else min(name, width - figures)

    def lines(self, name: str, figures: Sequence[str]) -> list[str]:
        """One line, or two."""
        if self._apart:
            return [fitted(name, self._width), _right(_GAP.join(figures), self._width)]
        return [_GAP.join([fitted(name, self.for_name), *figures])]


def _aligned(texts: Mapping[FigureColumn, list[str]]) -> dict[FigureColumn, list[str]]:
    """With the digits of amounts under each other, also where some are lower bounds."""
    cost = FIGURE_COLUMNS[0]
    marked = any(each.endswith(AT_LEAST) for each in texts[cost])
    return dict(texts) | {cost: [each if not marked or each.endswith(AT_LEAST) else f"{each} " for each in texts[cost]]}


def _room(widths: Mapping[FigureColumn, int]) -> int:
    return sum(widths.values()) + len(_GAP) * len(widths)


def _name(name: str, line: Line, width: int) -> str:
    """In a narrow terminal the indent gives way before the name does."""
    if cells(name) > width:
        name = " " * min(line.depth, max(0, width - 4)) + name.lstrip()
    return fitted(name, width)


def _right(text: str, width: int) -> str:
    return " " * (width - cells(text)) + text


def wrapped(text: str, width: int) -> list[str]:
    """A sentence in lines that fit."""
    return textwrap.wrap(printable(text), width)
