"""The first lines: what was spent in the period, how fast, what runs, and how old all of this is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from typing import Final

from rich.text import Text

from openhands_otel._internal.money import money, percent
from openhands_otel._internal.terminal.durations import duration_text
from openhands_otel._internal.terminal.live import Live
from openhands_otel._internal.terminal.period import NamedPeriod
from openhands_otel._internal.terminal.words import bar, short, spent
from openhands_otel._internal.terminal_text import printable
from openhands_otel.stats import Budget, SpendGroup, Totals

_GAP: Final = "  "
_NEAR: Final = 0.8
"""Of a budget: from there on it is marked."""
_BAR: Final = 10
_PART_LIMIT: Final = 40


def joined(parts: Iterable[tuple[str, str] | Text], width: int) -> Text:
    """Texts (with their styles) in one line: as many as there is room for, in their order; none is cut."""
    line = Text(no_wrap=True)
    for part in parts:
        text = part if isinstance(part, Text) else Text(*part)
        gap = _GAP if line else ""
        if text and line.cell_len + len(gap) + text.cell_len <= width:
            line.append(gap).append(text)
    return line


def spent_line(
    totals: Totals,
    period: NamedPeriod | None,
    spend: SpendGroup | None,
    failed: int,
    width: int,
    before: SpendGroup | None = None,
) -> Text:
    """Money and work.

    Args:
        totals: Of all time, and of now.
        period: None where none was asked for.
        spend: What was spent in it; None where that is not known (yet).
        failed: Conversations whose last run failed.
        width: Columns of the terminal.
        before: What was spent in as much of the period before; None where there is none.
    """
    part = spend or SpendGroup(
        accumulated_cost=totals.accumulated_cost,
        accumulated_token_usage=totals.accumulated_token_usage,
        llm_calls=totals.llm_calls,
        unpriced_calls=totals.unpriced_calls,
    )
    tokens = part.accumulated_token_usage
    cached = f" ({percent(tokens.cache_read_tokens, tokens.prompt_tokens)} cached)" if tokens.cache_read_tokens else ""
    money_text = money(part.accumulated_cost) + ("+" if part.read_cost else "")
    if period is not None:
        money_text = f"{money_text if spend is not None else '$ …'} {period.spent}"
    return joined(
        [
            (money_text, "bold green"),
            (_before(period, before), "dim"),
            (f"{money(totals.burn.per_hour)}/h", "yellow"),
            (f"{part.unpriced_calls:,} calls without a price" if part.unpriced_calls else "", "red"),
            (f"{totals.conversations_running:,} running of {totals.conversations_open:,} open", ""),
            (f"{failed:,} failed" if failed else "", "red"),
            (f"{short(tokens.prompt_tokens)} in{cached} {short(tokens.completion_tokens)} out", ""),
            (f"{part.llm_calls:,} calls", ""),
        ],
        width,
    )


def _before(period: NamedPeriod | None, before: SpendGroup | None) -> str:
    if period is None or before is None or not before.accumulated_cost > 0:
        return ""
    return f"({period.before} {spent(before.accumulated_cost, before.unpriced_calls or before.read_cost)})"


def connection(live: Live, width: int) -> Text:
    """How old what is shown is; where the connection broke, since when and why."""
    if live.problem:
        since = duration_text(live.now() - live.cut_off)
        text = Text(f"CUT OFF {since}: figures are old, trying again", style="bold red", no_wrap=True)
        if text.cell_len + _PART_LIMIT <= width:
            text.append(f" ({printable(live.problem, width - text.cell_len - 3)})")
        return text
    if not live.started:
        return Text("connecting", style="dim")
    received = live.totals.received_unix_nano
    if not received:
        return Text("live, no data yet", style="green")
    return Text(f"live, last data {duration_text(live.now() - received / 1e9)} ago", style="green")


def budget_lines(budgets: Sequence[Budget], zone: tzinfo, width: int) -> list[Text]:
    """A line for each budget: how much of it is spent, and when it ends."""
    return [_budget_line(budget, zone, width) for budget in budgets]


def _budget_line(budget: Budget, zone: tzinfo, width: int) -> Text:
    share = budget.spent / budget.amount if budget.amount > 0 else 1.0
    near = share >= _NEAR or budget.exhausted_unix_s is not None
    style = "red" if budget.exhausted else "yellow" if near else ""
    ends = ""
    if budget.exhausted:
        ends = "spent"
    elif budget.exhausted_unix_s is not None:
        moment = datetime.fromtimestamp(budget.exhausted_unix_s, zone)
        ends = f"ends {moment:%a %H:%M} at {money(budget.per_hour)}/h"
    return joined(
        [
            (f"budget {printable(budget.name, _PART_LIMIT)}", ""),
            (f"{spent(budget.spent, 0)} of {money(budget.amount)}", style),
            bar(min(_BAR, int(share * _BAR)), _BAR, style),
            (percent(share, 1), style),
            (ends, style),
        ],
        width,
    )
