"""The columns of the table of conversations: what each says, what it is sorted by, and which leaves first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from rich.text import Text

from openhands_otel._internal import facts
from openhands_otel._internal.facts import FACTS, NEEDS, Fact, Format
from openhands_otel._internal.money import money, percent
from openhands_otel._internal.terminal.attention import life_of, need_of
from openhands_otel._internal.terminal.durations import duration_text
from openhands_otel._internal.terminal.layout import Column
from openhands_otel._internal.terminal.listing import BY_COST, Row, SortKey
from openhands_otel._internal.terminal.period import NAMED_PERIODS
from openhands_otel._internal.terminal.words import (
    LONGEST_TEXT,
    STYLES,
    brief,
    cached,
    lasting,
    short,
    short_id,
    spent,
    state_text,
    whose,
    worst_text,
)
from openhands_otel._internal.terminal_text import printable
from openhands_otel.semconv import LLM_ACTIVITY, UNKNOWN
from openhands_otel.stats import ConversationStats

_DEEPEST: Final = 4
_ROOM: Final = 60
"""In narrower terminals a status and an outcome have no room beside each other."""
_MUCH: Final = 0.8
"""Of a context window: what is above it is marked."""


def _name(row: Row, _: float) -> Text:
    stats = row.entry.stats
    text = Text("  " * min(row.depth, _DEEPEST))
    text.append(short_id(stats.conversation_id), style="dim").append(" ")
    if row.children:
        text.append(f"{'+' if row.folded else '-'}{row.children} ", style="cyan")
    text.append(printable(stats.name or stats.agent or "", LONGEST_TEXT))
    if row.beside:
        text.append(" sub-agent", style="dim")
    text.rstrip()
    return text


def _now(row: Row, now: float) -> Text:
    """What runs, or since when a person is waited for."""
    stats = row.entry.stats
    if life_of(stats) == "running" and stats.activity is not None:
        doing = "model" if stats.activity == LLM_ACTIVITY else printable(stats.activity, LONGEST_TEXT)
        since = "" if stats.activity_since is None else f" {brief(now - stats.activity_since)}"
        return Text(doing + since)
    need = need_of(stats, 0.0)
    if not need or not stats.updated_unix_nano:
        return Text()
    return Text(f"for {brief(now - stats.updated_unix_nano / 1e9)}", style=STYLES[NEEDS[need]])


def _model(row: Row, _: float) -> Text:
    name = row.entry.stats.model_name
    return Text("" if name == UNKNOWN else printable(name, LONGEST_TEXT))


def _burn(row: Row, now: float) -> Text:
    burn = row.entry.burn(now)
    return Text("" if burn is None else money(burn))


def _context_share(stats: ConversationStats) -> float | None:
    usage = stats.accumulated_token_usage
    return usage.per_turn_token / usage.context_window if usage.context_window else None


def _context(row: Row, _: float) -> Text:
    share = _context_share(row.entry.stats)
    if share is None:
        return Text()
    return Text(percent(share, 1), style="yellow" if share > _MUCH else "")


def _tokens(stats: ConversationStats) -> int:
    return stats.accumulated_token_usage.prompt_tokens + stats.accumulated_token_usage.completion_tokens


def _age(row: Row, now: float) -> Text:
    began = row.entry.stats.started_unix_nano
    return Text(brief(now - began / 1e9) if began else "")


def _cost(row: Row, _: float) -> Text:
    cost = row.cost
    return Text("…" if cost is None else spent(cost, row.unpriced_calls), style="bold")


def _of_fact(fact: Fact, column: facts.WatchColumn) -> Column[Row]:
    field = fact.field or ""
    nothing = ConversationStats.model_fields[field].default
    read = _FORMATS[fact.format]

    def cell(row: Row, now: float) -> Text:
        value = getattr(row.entry.stats, field)
        return Text() if value == nothing else Text(read(value, now))

    is_text = fact.format is Format.TEXT
    return Column(
        field,
        column.title,
        cell,
        leaves=column.from_width,
        least=8 if is_text else None,
        left=is_text,
        from_width=column.from_width,
        unless_empty=True,
    )


_FORMATS: Final[dict[Format, Callable[[Any, float], str]]] = {
    Format.MOMENT: lambda moment, now: f"{duration_text(now - moment)} ago",
    Format.SECONDS: lambda seconds, _: lasting(seconds),
    Format.TEXT: lambda text, _: printable(text, LONGEST_TEXT),
}

COLUMNS: Final[tuple[Column[Row], ...]] = (
    Column("name", "conversation", _name, least=26, left=True),
    Column("whose", "whose", lambda row, _: Text(whose(row.entry.stats)), 6, least=10, left=True, unless_empty=True),
    Column("state", "status", lambda row, _: state_text(row.entry.stats), left=True, from_width=_ROOM),
    Column("worst", "status", lambda row, _: worst_text(row.entry.stats), left=True, below_width=_ROOM),
    Column("now", "now", _now, 3, least=12, left=True, keeps_last=True, unless_empty=True),
    Column("model", "model", _model, 4, least=12, left=True),
    Column(BY_COST, "$", _cost),
    Column("burn", "$/h", _burn, 1),
    Column("tokens", "tokens", lambda row, _: Text(short(_tokens(row.entry.stats))), 5),
    Column("cached", "cached", lambda row, _: Text(cached(row.entry.stats.accumulated_token_usage)), 9, from_width=110),
    Column("context", "ctx", _context, 7),
    Column("calls", "calls", lambda row, _: Text(short(row.entry.stats.llm_calls)), 8),
    Column("age", "age", _age, 2),
    *(_of_fact(fact, fact.column) for fact in FACTS if fact.column is not None),
)
"""Where there is no room, the facts leave first, then what is cached, calls, context, whose it is, tokens, the model,
what runs now, the age, the burn rate. Name, status and cost stay."""


def columns_of(period: str) -> Sequence[Column[Row]]:
    """All of them, with the period that costs are of above these; an empty text: of all time."""
    if not period:
        return COLUMNS
    return [replace(each, title=NAMED_PERIODS[period].column) if each.name == BY_COST else each for each in COLUMNS]


SORT_KEYS: Final[Mapping[str, SortKey]] = {
    "name": lambda entry, _: (entry.stats.name or entry.stats.conversation_id).casefold(),
    "state": lambda entry, _: state_text(entry.stats).plain,
    "model": lambda entry, _: entry.stats.model_name,
    BY_COST: lambda entry, _: entry.stats.accumulated_cost,
    "burn": lambda entry, now: _or_less(entry.burn(now)),
    "tokens": lambda entry, _: _tokens(entry.stats),
    "context": lambda entry, _: _or_less(_context_share(entry.stats)),
    "calls": lambda entry, _: entry.stats.llm_calls,
    "age": lambda entry, _: -entry.stats.started_unix_nano,
}
TEXTS: Final = frozenset({"name", "state", "model"})
"""Columns that are sorted from a to z first; of the others the largest comes first."""


def _or_less(value: float | None) -> float:
    return -1.0 if value is None else value
