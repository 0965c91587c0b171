"""Where the money of a period went: rows that add up to its total, whatever they are grouped by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from openhands_otel._internal.money import percent
from openhands_otel._internal.terminal.layout import Column
from openhands_otel._internal.terminal.words import LONGEST_TEXT, bar, cached, short, spent
from openhands_otel._internal.terminal_text import printable
from openhands_otel.stats import Spend, SpendGroup

BY_CONVERSATION: Final = "conversation"
_BAR: Final = 16
_SPECIAL: Final = re.compile(r"[*?\[]")


def condition(name: str, value: str) -> str:
    """That a fact or label has this very value: sources take patterns."""
    return f"{name}={_SPECIAL.sub(lambda found: f'[{found[0]}]', value)}"


@dataclass(frozen=True, slots=True)
class PartRow:
    """A row."""

    name: str
    group: SpendGroup
    total: SpendGroup
    is_total: bool = False

    @property
    def value(self) -> str | None:
        """What can be filtered by; None for the remainder and the total."""
        return None if self.is_total or self.group.remainder else self.name


def parts_of(spend: Spend) -> list[PartRow]:
    """Dearest first, all others together as a row, then the total."""
    by = spend.by[0]
    rows = [PartRow("all others" if group.remainder else group.keys[by], group, spend.total) for group in spend.groups]
    return [*rows, PartRow("total", spend.total, spend.total, is_total=True)]


def parts_columns(title: str) -> Sequence[Column[PartRow]]:
    """Columns of the rows; ``title`` says what they are grouped by."""
    return (
        Column("name", title, _name, least=12, left=True),
        Column("bar", "", _bar, 4, left=True, unless_empty=True),
        Column("cost", "$", lambda part, _: Text(_money(part.group), style="bold")),
        Column("share", "share", _share, 1),
        Column("calls", "calls", lambda part, _: Text(short(part.group.llm_calls)), 2),
        Column("in", "in", lambda part, _: Text(short(part.group.accumulated_token_usage.prompt_tokens)), 3),
        Column("cached", "cached", lambda part, _: Text(cached(part.group.accumulated_token_usage)), 6),
        Column("out", "out", lambda part, _: Text(short(part.group.accumulated_token_usage.completion_tokens)), 5),
        Column("each", "s/call", _each, 7, unless_empty=True),
    )


def _money(group: SpendGroup) -> str:
    return spent(group.accumulated_cost, group.unpriced_calls or group.read_cost)


def _name(part: PartRow, _: float) -> Text:
    style = "bold" if part.is_total else "italic" if part.group.remainder else ""
    return Text(printable(part.name, LONGEST_TEXT), style=style)


def _part(part: PartRow) -> float:
    whole = part.total.accumulated_cost
    return part.group.accumulated_cost / whole if whole > 0 else 0.0


def _bar(part: PartRow, _: float) -> Text:
    return Text() if part.is_total else bar(round(_BAR * _part(part)), _BAR, "cyan")


def _share(part: PartRow, _: float) -> Text:
    share = _part(part)
    return Text(percent(share, 1) if share else "")


def _each(part: PartRow, _: float) -> Text:
    group = part.group
    return Text(f"{group.llm_seconds / group.llm_calls:.1f}" if group.llm_calls and group.llm_seconds else "")
