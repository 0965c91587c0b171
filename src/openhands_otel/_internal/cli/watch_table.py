"""What ``watch`` draws: the totals in one line, a table of conversations under it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from rich.box import SIMPLE_HEAD
from rich.cells import set_cell_size
from rich.console import Group
from rich.table import Table
from rich.text import Text

from openhands_otel._internal.cli.durations import duration_text
from openhands_otel._internal.cli.trouble import trouble_lines
from openhands_otel._internal.facts import FACTS, FAILURES, OUTCOMES, STATES, Column, Fact, Format, Tone, Word
from openhands_otel._internal.money import money
from openhands_otel._internal.terminal_text import printable
from openhands_otel.stats import (
    ConversationStats,
    ConversationUpdate,
    ReceiverStats,
    SnapshotUpdate,
    State,
    Totals,
    TotalsUpdate,
    Update,
)


@dataclass
class LiveState:
    """The newest of everything that a stream told."""

    totals: Totals = field(default_factory=Totals)
    conversations: dict[str, ConversationStats] = field(default_factory=dict[str, ConversationStats])
    receiver: ReceiverStats | None = None
    """Problems and refusals; None where there are none."""
    problem: str = ""
    """What is wrong with the connection: then all of this is as old as that."""

    @classmethod
    def of(cls, state: State) -> Self:
        return cls(state.totals, {stats.conversation_id: stats for stats in state.conversations}, state.receiver)

    def note_connection(self, problem: Exception | None) -> None:
        self.problem = "" if problem is None else str(problem)

    def apply(self, update: Update) -> None:
        if isinstance(update, SnapshotUpdate):
            fresh = LiveState.of(update.state)
            self.totals, self.conversations, self.receiver = fresh.totals, fresh.conversations, fresh.receiver
        elif isinstance(update, ConversationUpdate):
            # A new dictionary, for another thread may be drawing the old one.
            stats = update.conversation
            self.conversations = self.conversations | {stats.conversation_id: stats}
        elif isinstance(update, TotalsUpdate):
            self.totals, self.receiver = update.totals, update.receiver
        else:
            self.conversations = {
                key: stats for key, stats in self.conversations.items() if key != update.conversation_id
            }


_Cell = Callable[[ConversationStats, float], Text]


@dataclass(frozen=True)
class _Column:
    """``least`` makes a column of names, which gives way to numbers down to that width; others are never cut."""

    title: str
    cell: _Cell
    from_width: int = 0
    """Terminals narrower than this do without."""
    least: int | None = None

    @property
    def number(self) -> bool:
        return self.least is None and self.title != "status"


def render(state: LiveState, now: float, rows: int | None, width: int) -> Group:
    """The whole picture; ``rows`` is how many conversations fit, None shows all."""
    trouble = trouble_lines(state.receiver, now, width)
    ordered = _families(state.conversations)
    shown = ordered[: None if rows is None else max(1, rows - len(trouble))]
    columns = [column for column in (*_COLUMNS, *_FACT_COLUMNS) if width >= column.from_width]
    cells = {column: [column.cell(stats, now) for stats in shown] for column in columns}
    cells = {column: texts for column, texts in cells.items() if column not in _FACT_COLUMNS or any(texts)}
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    widths = _widths(cells, width)
    for column, column_width in widths.items():
        justify = "right" if column.number else "left"
        table.add_column(column.title, justify=justify, no_wrap=True, width=column_width, overflow="ellipsis")
    for row in zip(*(cells[column] for column in widths), strict=True):
        table.add_row(*row)
    failed = sum(stats.outcome in FAILURES for stats in state.conversations.values())
    parts = [_headline(state.totals, failed, now, width), *trouble, table]
    if state.problem:
        words = f"cut off, trying again: {printable(state.problem, width)}"
        parts.insert(0, Text(words, style="bold red", no_wrap=True, overflow="ellipsis"))
    if len(ordered) > len(shown):
        parts.append(Text(f"and {len(ordered) - len(shown)} more", style="dim"))
    return Group(*parts)


def _widths(cells: Mapping[_Column, list[Text]], width: int) -> dict[_Column, int]:
    """How wide each column is; from the right, those that can be done without go where there is no room."""
    natural = {
        column: max(len(column.title), *(cell.cell_len for cell in column_cells), 0)
        for column, column_cells in cells.items()
    }
    columns = list(natural)
    while _needed(columns, natural) > width and any(column.from_width for column in columns):
        columns.remove(max(columns, key=lambda column: column.from_width))
    widths = {column: natural[column] for column in columns}
    names = [column for column in columns if column.least is not None]
    while sum(widths.values()) + _GAP * (len(columns) - 1) > width:
        widest = max(names, key=lambda column: widths[column] - (column.least or 0))
        if widths[widest] <= 1:
            break
        widths[widest] -= 1
    return widths


def _needed(columns: list[_Column], natural: Mapping[_Column, int]) -> int:
    least = (natural[column] if column.least is None else min(natural[column], column.least) for column in columns)
    return sum(least) + _GAP * (len(columns) - 1)


def _families(conversations: dict[str, ConversationStats]) -> list[ConversationStats]:
    """Latest change first, children under their parents."""
    newest = sorted(conversations.values(), key=lambda stats: stats.received_unix_nano, reverse=True)
    children: dict[str, list[ConversationStats]] = {}
    roots: list[ConversationStats] = []
    for stats in newest:
        if stats.parent_id in conversations:
            children.setdefault(stats.parent_id, []).append(stats)
        else:
            roots.append(stats)
    ordered: list[ConversationStats] = []
    waiting = roots[::-1]
    while waiting:
        stats = waiting.pop()
        ordered.append(stats)
        waiting += reversed(children.pop(stats.conversation_id, []))
    # Conversations that name each other as parents have no root; they are shown all the same.
    return ordered + [stats for orphans in children.values() for stats in orphans]


def _headline(totals: Totals, failed: int, now: float, width: int) -> Text:
    """As much of it as there is room for; no number is cut."""
    tokens = totals.accumulated_token_usage
    parts = [
        (money(totals.accumulated_cost), "bold green"),
        (f"{money(totals.burn.per_hour)}/h", "yellow"),
        (f"{totals.unpriced_calls:,} calls without a price" if totals.unpriced_calls else "", "red"),
        (f"{totals.conversations_running} running of {totals.conversations_seen}", ""),
        (f"{failed:,} failed" if failed else "", "red"),
        (f"{totals.llm_calls:,} calls  {tokens.prompt_tokens:,} in  {tokens.completion_tokens:,} out", ""),
        (_last_data(totals, now), "dim"),
    ]
    line = Text(no_wrap=True)
    for text, style in parts:
        gap = "  " if line else ""
        if text and line.cell_len + len(gap) + len(text) <= width:
            line.append(gap).append(text, style=style)
    return line


def _last_data(totals: Totals, now: float) -> str:
    received = totals.received_unix_nano
    return f"last data {duration_text(now - received / 1e9)} ago" if received else ""


def _name(stats: ConversationStats, _: float) -> Text:
    indent = "  " if stats.parent_id else ""
    return Text(f"{indent}{short_id(stats.conversation_id)} {printable(stats.agent or '', _LONGEST)}".rstrip())


def short_id(conversation_id: str) -> str:
    """The beginning of an id, in eight columns of a terminal whatever it is made of."""
    return set_cell_size(printable(conversation_id[:8]), 8)


def _status(stats: ConversationStats, _: float) -> Text:
    status = "closed" if stats.closed else left_alone(stats) or stats.status or "open"
    word = _word(STATES, status)
    text = Text(word.in_terminal, style="dim" if stats.closed else _STYLES[word.tone])
    outcome = _word(OUTCOMES, stats.outcome)
    if outcome.in_terminal not in {"", text.plain}:
        # An ending takes no result back.
        text.append(", ", style="dim").append(outcome.in_terminal, style=_STYLES[outcome.tone])
    return text


def outcome_of(stats: ConversationStats) -> str:
    """How its last run ended, in a word or two; nothing where that is not known."""
    return _word(OUTCOMES, stats.outcome).in_terminal


def _word(words: Mapping[str, Word], value: str | None) -> Word:
    return words.get(value or "") or Word(printable(value or "", 16))


def left_alone(stats: ConversationStats) -> str:
    """What became of the process of an open conversation, if it is not there."""
    return "gone" if stats.gone else "ended" if stats.ended else "silent" if stats.stale else ""


def _doing(stats: ConversationStats, now: float) -> Text:
    if stats.activity is None:
        return Text()
    since = "" if stats.activity_since is None else f" {duration_text(now - stats.activity_since)}"
    return Text(printable(stats.activity, _LONGEST) + since)


def cost_of(stats: ConversationStats) -> str:
    """What it cost as far as prices are known."""
    if not stats.unpriced_calls:
        return money(stats.accumulated_cost)
    return f"{money(stats.accumulated_cost)}+" if stats.accumulated_cost else "no price"


def _share(part: int, whole: int) -> Text:
    return Text(f"{part / whole:.0%}" if whole > 0 else "")


_GAP: Final = 2
"""Columns of the terminal between two of ours: a space of padding, and the line that the box has there."""
_LONGEST: Final = 120
"""Characters of a name that are looked at."""
_STYLES: Final = {Tone.RUN: "green", Tone.WAIT: "yellow", Tone.BAD: "red", Tone.REST: ""}
_COLUMNS: Final = (
    _Column("conversation", _name, least=9),
    _Column("status", _status),
    _Column("now", _doing, from_width=70, least=10),
    _Column("model", lambda stats, _: Text(printable(stats.model_name, _LONGEST)), from_width=60, least=8),
    _Column("cost", lambda stats, _: Text(cost_of(stats), style="bold")),
    _Column("in tree", lambda stats, _: Text(money(stats.tree_cost) if stats.descendants else ""), from_width=90),
    _Column("calls", lambda stats, _: Text(f"{stats.llm_calls:,}"), from_width=50),
    _Column("in", lambda stats, _: Text(f"{stats.accumulated_token_usage.prompt_tokens:,}"), from_width=100),
    _Column("out", lambda stats, _: Text(f"{stats.accumulated_token_usage.completion_tokens:,}"), from_width=101),
    _Column(
        "cached",
        lambda stats, _: _share(
            stats.accumulated_token_usage.cache_read_tokens, stats.accumulated_token_usage.prompt_tokens
        ),
        from_width=110,
    ),
    _Column(
        "context",
        lambda stats, _: _share(
            stats.accumulated_token_usage.per_turn_token, stats.accumulated_token_usage.context_window
        ),
        from_width=80,
    ),
)


def _fact_column(fact: Fact, column: Column) -> _Column:
    field = fact.field or ""
    nothing = ConversationStats.model_fields[field].default
    read = _FORMATS[fact.format]

    def cell(stats: ConversationStats, now: float) -> Text:
        value = getattr(stats, field)
        return Text() if value == nothing else Text(read(value, now))

    return _Column(column.title, cell, column.from_width, least=8 if fact.format is Format.TEXT else None)


_FORMATS: Final[dict[Format, Callable[[Any, float], str]]] = {
    Format.MOMENT: lambda moment, now: f"{duration_text(now - moment)} ago",
    Format.SECONDS: lambda seconds, _: f"{seconds:.1f} s" if seconds < 100 else duration_text(seconds),
    Format.TEXT: lambda text, _: printable(text, _LONGEST),
}
_FACT_COLUMNS: Final = tuple(_fact_column(fact, fact.column) for fact in FACTS if fact.column is not None)
