"""On a terminal the numbers move in place, elsewhere each new cost is a line; the table fits a terminal."""

from __future__ import annotations

import io
import math

from rich.console import Console

from openhands_otel._internal.demo.display import comparison, delays, display_for
from openhands_otel._internal.demo.freshness import Freshness
from openhands_otel._internal.demo.totals import DemoTotals
from openhands_otel.stats import ConversationStats, TokenUsage


def stats(cost: float, calls: int, activity: str | None = None) -> ConversationStats:
    tokens = TokenUsage(prompt_tokens=1000 * calls, completion_tokens=234 * calls)
    return ConversationStats(
        conversation_id="c",
        accumulated_cost=cost,
        llm_calls=calls,
        accumulated_token_usage=tokens,
        activity=activity,
    )


def test_elsewhere_each_new_cost_is_one_plain_line() -> None:
    output = io.StringIO()

    with display_for(Console(file=output), 11) as display:
        for elapsed, seen in ((1.0, stats(0.25, 1)), (1.2, stats(0.25, 1, "terminal")), (2.0, stats(0.5, 2))):
            display.show(elapsed, seen)

    assert output.getvalue().splitlines() == [
        "  1.0 s  $0.250000   1/11 calls  1,234 tokens",
        "  2.0 s  $0.500000   2/11 calls  2,468 tokens",
    ]


def test_on_a_terminal_cost_calls_tokens_and_what_runs_now_are_drawn() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=100, color_system=None)

    with display_for(console, 11) as display:
        display.show(1.0, stats(0.25, 3, "terminal"))

    drawn = output.getvalue()
    for part in ("$0.250000", "3/11 calls", "3,702 tokens", "terminal"):
        assert part in drawn


def test_the_table_shows_every_digit_that_is_compared_in_80_columns() -> None:
    output = io.StringIO()
    totals = DemoTotals(cost=0.039723650, calls=11, input=173_745, cached=163_872, output=12_122, reasoning=11_792)

    Console(file=output, width=80).print(comparison({"OpenHands' total": totals}))

    for part in ("OpenHands' total", "$0.039723650", "11", "173,745", "163,872", "12,122", "11,792", "reasoning"):
        assert part in output.getvalue()


def test_freshness_is_told_in_milliseconds_or_as_what_never_came() -> None:
    assert "median 2.0 ms, worst 4.0 ms (3 costs)" in delays(Freshness((0.001, 0.002, 0.004)))
    assert "1 of 2 costs never arrived" in delays(Freshness((0.001, math.inf)))
    assert "nothing was measured" in delays(Freshness(()))
