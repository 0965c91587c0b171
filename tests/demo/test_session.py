"""The demo's verdict: three accounts, and what they do not agree on."""

from __future__ import annotations

from dataclasses import replace

from openhands_otel._internal.demo.freshness import Freshness
from openhands_otel._internal.demo.session import SessionResult
from openhands_otel._internal.demo.totals import DemoTotals

BILL = DemoTotals(cost=0.3, calls=2, input=900, cached=512, output=80, reasoning=64)


def test_accounts_that_agree_leave_nothing_to_say() -> None:
    assert SessionResult(BILL, BILL, replace(BILL, cost=0.1 + 0.2), Freshness((0.01,)), []).differences == []


def test_whichever_account_is_off_is_found_and_each_difference_named_once() -> None:
    own, viewer = replace(BILL, cost=0.4), replace(BILL, cost=0.2, cached=0)

    assert SessionResult(BILL, own, BILL, Freshness(()), []).differences == ["cost"]
    assert SessionResult(BILL, BILL, viewer, Freshness(()), []).differences == ["cost", "cached"]
    assert SessionResult(BILL, own, viewer, Freshness(()), []).differences == ["cost", "cached"]
