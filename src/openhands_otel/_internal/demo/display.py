"""What the demo shows while the agent works: a progress display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Protocol, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from openhands_otel._internal.demo.freshness import Freshness
from openhands_otel._internal.demo.totals import DemoTotals
from openhands_otel._internal.terminal_text import printable
from openhands_otel.stats import ConversationStats


class Display(Protocol):
    """Shows the agent's numbers as they come."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, elapsed: float, stats: ConversationStats) -> None: ...


def display_for(console: Console, expected_calls: int) -> Display:
    """The one that suits where the output goes."""
    return _Bar(console, expected_calls) if console.is_terminal else _Lines(console, expected_calls)


class _Bar:
    def __init__(self, console: Console, expected_calls: int) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold green]${task.fields[cost]:.6f}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} calls  {task.fields[tokens]:,} tokens"),
            TextColumn("{task.fields[now]}", style="cyan", markup=False),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._progress.add_task("agent", total=expected_calls, cost=0.0, tokens=0, now="starting")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, elapsed: float, stats: ConversationStats) -> None:
        self._progress.update(
            self._task,
            completed=stats.llm_calls,
            cost=stats.accumulated_cost,
            tokens=_tokens(stats),
            now=printable(stats.activity or stats.status or "", 40),
        )


class _Lines:
    def __init__(self, console: Console, expected_calls: int) -> None:
        self._console = console
        self._expected_calls = expected_calls
        self._shown = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, elapsed: float, stats: ConversationStats) -> None:
        if stats.accumulated_cost == self._shown:
            return
        self._shown = stats.accumulated_cost
        calls = f"{stats.llm_calls}/{self._expected_calls} calls"
        line = f"{elapsed:5.1f} s  ${stats.accumulated_cost:.6f}  {calls:>11}  {_tokens(stats):,} tokens"
        self._console.print(line, highlight=False)


def _tokens(stats: ConversationStats) -> int:
    tokens = stats.accumulated_token_usage
    return tokens.prompt_tokens + tokens.completion_tokens


def comparison(accounts: dict[str, DemoTotals]) -> Table:
    """The table at the end: whose account, and what it says. Fits into 80 columns."""
    caption = "cached is part of input, reasoning is part of output"
    table = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 0, 0, 1),
        caption=caption,
        caption_justify="left",
    )
    for heading in ("", "cost", "calls", "input", "cached", "output", "reasoning"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for name, totals in accounts.items():
        tokens = (totals.input, totals.cached, totals.output, totals.reasoning)
        table.add_row(name, f"${totals.cost:.9f}", str(totals.calls), *(f"{count:,}" for count in tokens))
    return table


def delays(measured: Freshness) -> str:
    """The line about freshness."""
    if not measured.delays:
        return "From add_cost to the viewer: nothing was measured"
    lost = measured.delays.count(math.inf)
    if lost:
        return f"From add_cost to the viewer: {lost} of {len(measured.delays)} costs never arrived"
    median, worst = (f"{seconds * 1000:.1f} ms" for seconds in (measured.median, measured.worst))
    return f"From add_cost to the viewer: median {median}, worst {worst} ({len(measured.delays)} costs)"
