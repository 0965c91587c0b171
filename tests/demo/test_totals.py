"""Accounts agree only when cost, calls and every kind of token do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openhands_otel._internal.demo.answers import Usage
from openhands_otel._internal.demo.bill import Bill, Charge
from openhands_otel._internal.demo.totals import DemoTotals
from openhands_otel.stats import ConversationStats, TokenUsage

TOTALS = DemoTotals(cost=0.3, calls=2, input=900, cached=512, output=80, reasoning=64)


def test_the_bill_and_the_viewers_stats_are_read_alike() -> None:
    usage = Usage(input=450, cached=256, output=40, reasoning=32)
    bill = Bill(Charge(number, "s", "gpt-4o", None, usage, 0.15, 0) for number in range(2))
    tokens = TokenUsage(prompt_tokens=900, cache_read_tokens=512, completion_tokens=80, reasoning_tokens=64)
    stats = ConversationStats(conversation_id="c", accumulated_cost=0.3, llm_calls=2, accumulated_token_usage=tokens)

    assert DemoTotals.of_bill(bill.as_json()) == TOTALS
    assert DemoTotals.of_stats(stats) == TOTALS


def test_a_rounding_error_is_no_difference() -> None:
    assert TOTALS.differences(replace(TOTALS, cost=0.1 + 0.2)) == []


@pytest.mark.parametrize("name", ["calls", "input", "cached", "output", "reasoning"])
def test_one_token_or_call_too_many_is_a_difference(name: str) -> None:
    assert TOTALS.differences(replace(TOTALS, **{name: getattr(TOTALS, name) + 1})) == [name]


def test_a_cost_that_is_off_by_more_than_rounding_is_a_difference() -> None:
    assert TOTALS.differences(replace(TOTALS, cost=0.3 + 2e-9)) == ["cost"]
