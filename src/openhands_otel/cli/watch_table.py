"""What ``watch`` draws: the totals in one line, a table of conversations under it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Self

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from openhands_otel.stats import (
    ConversationStats,
    ConversationUpdate,
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

    @classmethod
    def of(cls, state: State) -> Self:
        return cls(state.totals, {stats.conversation_id: stats for stats in state.conversations})

    def apply(self, update: Update) -> None:
        if isinstance(update, SnapshotUpdate):
            fresh = LiveState.of(update.state)
            self.totals, self.conversations = fresh.totals, fresh.conversations
        elif isinstance(update, ConversationUpdate):
            # A new dictionary, for another thread may be drawing the old one.
            stats = update.conversation
            self.conversations = self.conversations | {stats.conversation_id: stats}
        elif isinstance(update, TotalsUpdate):
            self.totals = update.totals
        else:
            self.conversations = {
                key: stats for key, stats in self.conversations.items() if key != update.conversation_id
            }


def cost_text(cost: float) -> str:
    """Four decimals under a dollar, where cents say too little."""
    return f"${cost:,.2f}" if cost >= 100 else f"${cost:,.4f}"


@dataclass(frozen=True)
class _Column:
    title: str
    cell: Callable[[ConversationStats, float], Text]
    from_width: int = 0
    """Terminals narrower than this do without."""
    number: bool = True


def render(state: LiveState, now: float, rows: int | None, width: int) -> Group:
    """The whole picture; ``rows`` is how many conversations fit, None shows all."""
    ordered = _families(state.conversations)
    shown = ordered[:rows]
    columns = [column for column in _COLUMNS if width >= column.from_width]
    table = Table(box=SIMPLE_HEAD, expand=True, pad_edge=False, header_style="bold")
    for column in columns:
        if column.number:
            table.add_column(column.title, justify="right", no_wrap=True, min_width=len(column.title))
        else:
            table.add_column(column.title, no_wrap=True)
    for stats in shown:
        table.add_row(*(column.cell(stats, now) for column in columns))
    parts = [_headline(state.totals, now), table]
    if len(ordered) > len(shown):
        parts.append(Text(f"and {len(ordered) - len(shown)} more", style="dim"))
    return Group(*parts)


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


def _headline(totals: Totals, now: float) -> Text:
    tokens = totals.accumulated_token_usage
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(cost_text(totals.accumulated_cost), style="bold green")
    line.append(f"  {cost_text(totals.burn.per_hour)}/h", style="yellow")
    line.append(f"  {totals.llm_calls:,} calls  {tokens.prompt_tokens:,} in  {tokens.completion_tokens:,} out")
    line.append(f"  {totals.conversations_running} running of {totals.conversations_seen}")
    if totals.unpriced_calls:
        line.append(f"  {totals.unpriced_calls:,} calls without a price", style="red")
    if totals.received_unix_nano:
        line.append(f"  last data {duration_text(now - totals.received_unix_nano / 1e9)} ago", style="dim")
    return line


def _name(stats: ConversationStats, _: float) -> Text:
    indent = "  " if stats.parent_id else ""
    return Text(f"{indent}{stats.conversation_id[:8]} {stats.agent or ''}".rstrip())


def _status(stats: ConversationStats, _: float) -> Text:
    status = "closed" if stats.closed else "silent" if stats.stale else stats.status or "open"
    return Text(status, style=_STATUS_STYLES.get(status, ""))


def _doing(stats: ConversationStats, now: float) -> Text:
    if stats.activity is None:
        return Text()
    since = "" if stats.activity_since is None else f" {duration_text(now - stats.activity_since)}"
    return Text(stats.activity + since)


def _share(part: int, whole: int) -> Text:
    return Text(f"{part / whole:.0%}" if whole else "")


_STATUS_STYLES: Final = {"running": "green", "error": "red", "stuck": "red", "silent": "yellow", "closed": "dim"}
_COLUMNS: Final = (
    _Column("conversation", _name, number=False),
    _Column("status", _status, number=False),
    _Column("now", _doing, number=False, from_width=70),
    _Column("model", lambda stats, _: Text(stats.model_name), number=False, from_width=120),
    _Column("cost", lambda stats, _: Text(cost_text(stats.accumulated_cost), style="bold")),
    _Column("in tree", lambda stats, _: Text(cost_text(stats.tree_cost) if stats.descendants else ""), from_width=90),
    _Column("calls", lambda stats, _: Text(f"{stats.llm_calls:,}")),
    _Column("in", lambda stats, _: Text(f"{stats.accumulated_token_usage.prompt_tokens:,}"), from_width=100),
    _Column("out", lambda stats, _: Text(f"{stats.accumulated_token_usage.completion_tokens:,}"), from_width=100),
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


def duration_text(seconds: float) -> str:
    """``5 s``, ``3 min``, ``2.5 h``."""
    seconds = max(0.0, seconds)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
