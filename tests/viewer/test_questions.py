"""Questions that people come with, on a fresh viewer with 40 agents: each is answered by two clicks at most."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from math import fsum

import pytest
from playwright.sync_api import Page, expect
from span_sender import SpanSender
from viewer_process import Viewer, running_viewer

from openhands_otel._internal.money import money
from openhands_otel.semconv import LABEL_PREFIX

from .crowd import MODELS, PEOPLE, ended, midnight, play_crowd, sender
from .test_page import chip, page, pytestmark  # noqa: F401

MOST_CLICKS = 2
COUNT = """
window.clicks = 0;
addEventListener("click", (event) => {
  // Playwright stops a click that would meet something else, as the page moves, and clicks again.
  setTimeout(() => { window.clicks += !(event.defaultPrevented && event.cancelBubble); });
}, true);
"""


DAY_BUDGET = 30.26
"""A cent more than the forty have spent today: it ends at once, whatever the time of day."""
CALLS = tuple(tuple(1.0 + index / 10 + 7 * (call == 3) for call in range(5)) for index in range(40))
"""Seconds that each one's calls take."""


@pytest.fixture(scope="module")
def crowd() -> Iterator[Viewer]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENHANDS_OTEL_VIEWER_BUDGETS", f"day={DAY_BUDGET}")
        with running_viewer() as viewer:
            names = play_crowd(viewer)
            failed_yesterday(viewer)
            spans_of_calls(viewer, names)
            yield viewer


def spans_of_calls(viewer: Viewer, names: list[str]) -> None:
    """Five calls of each, of which the fourth is dearest and slowest."""
    for index, name in enumerate(names):
        spans = SpanSender(resource={f"{LABEL_PREFIX}host": f"machine-{index % 5}"})
        spans.began = int(max(midnight() + 1, spans.began / 1e9) * 1e9)
        for call, seconds in enumerate(CALLS[index]):
            cost = 0.03125 * (1 + 8 * (call == 3) + call % 2)
            spans.call(100 * index + call + 1, name, trace=index + 1, cost=cost, end=seconds)
        viewer.post(spans.body(), "/v1/traces").raise_for_status()


def failed_yesterday(viewer: Viewer) -> None:
    """A run that cost $32 and failed."""
    at = int((midnight(1) + 3_600) * 1e9)
    agent = sender("failing").introduce("failing", at=at).state("failing", "running", at=at)
    viewer.send(agent)
    viewer.send(agent.spend(32.0, at=at + 10**9).converse("failing", 32.0, at=at + 10**9))
    agent.state("failing", "running", ended=True, at=at + 2 * 10**9).state("failing", "error", at=at + 2 * 10**9)
    viewer.send(ended(agent, "failing", "error", "RateLimitError"))


@pytest.fixture
def asked(crowd: Viewer, page: Page) -> Iterator[Page]:  # noqa: F811
    page.add_init_script(COUNT)
    page.goto(crowd.url)
    expect(page.locator("#where tbody tr").first).to_be_visible()
    yield page
    assert page.evaluate("clicks") <= MOST_CLICKS


def costs(days: range) -> dict[int, float]:
    """What each of the forty spent on these days, as ``play_crowd`` has it."""
    return {index: fsum(0.125 * (1 + (index * 7 + day * 3) % 11) for day in days) for index in range(40)}


def by(names: tuple[str, ...], spent: dict[int, float]) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for index, cost in spent.items():
        sums[names[index % len(names)]] += cost
    return sums


def test_today_by_person(asked: Page) -> None:
    asked.locator("[data-by=user]").click()
    for person, cost in by(PEOPLE, costs(range(1))).items():
        expect(asked.locator(f"#where tr[data-name={person}] .dollars")).to_have_text(money(cost))


def test_this_week_by_model(asked: Page) -> None:
    asked.locator("[data-period='7d']").click()
    for model, cost in by(MODELS, costs(range(7))).items():
        expect(asked.locator(f"#where tr[data-name='{model}'] .dollars")).to_have_text(money(cost))


def test_who_waits(asked: Page) -> None:
    chip(asked, "waiting").click()
    expect(asked.locator("tr.conversation")).to_have_count(4)
    expect(asked.locator("tr.conversation .whose").first).to_contain_text("caro")


def test_who_is_stuck_and_since_when(asked: Page) -> None:
    chip(asked, "stuck").click()
    expect(asked.locator("tr.conversation")).to_have_count(4)
    for each in asked.locator("tr.conversation .since").all():
        assert each.inner_text().endswith("s")


def test_what_yesterdays_failed_runs_cost(asked: Page) -> None:
    asked.locator("[data-period=yesterday]").click()
    asked.locator("[data-by=outcome]").click()
    # That one, and what four others whose runs have failed since spent in them.
    failed = 32.0 + fsum(costs(range(1, 2))[index] for index in (8, 18, 28, 38))
    expect(asked.locator("#where tr[data-name=error] .dollars")).to_have_text(money(failed))


def test_the_dearest_call_of_a_conversation(asked: Page) -> None:
    asked.locator("tr.conversation .name").first.click()
    asked.locator(".calls th button", has_text="$").click()
    costs_shown = asked.locator(".calls tbody .dollars")
    expect(costs_shown).to_have_text([money(0.03125 * times) for times in (10, 2, 1, 1, 1)])
    # When, by what model, how long it took.
    expect(asked.locator(".calls tbody tr").first).to_contain_text(re.compile(r":\d\d\D.*gpt.*\d s"))


def test_when_the_budget_ends(asked: Page) -> None:
    expect(asked.locator(".budget")).to_have_text(
        re.compile(rf"^budget day {re.escape(money(DAY_BUDGET))}.*>99 %, ends \d\d:\d\d at \$[\d.]+/h$")
    )


def test_how_long_calls_take(asked: Page) -> None:
    took = sorted(seconds for calls in CALLS for seconds in calls)
    half, most = (took[math.ceil(part * len(took)) - 1] for part in (0.5, 0.95))
    expect(asked.locator("#latency")).to_have_text(f"p50 {half:.1f} s")
    expect(asked.locator("#latency-note")).to_have_text(f"p95 {most:.1f} s, longest {took[-1]:.1f} s")
    # Of one model, say, or on one machine: a filter holds for them too.
    asked.locator("[data-by=host]").click()
    asked.locator("#where tr[data-name='machine-0'] button").click()
    some = sorted(seconds for calls in CALLS[::5] for seconds in calls)
    expect(asked.locator("#latency")).to_have_text(f"p50 {some[len(some) // 2 - 1]:.1f} s")


def test_what_runs_now_on_a_machine_by_where_it_went(asked: Page) -> None:
    asked.locator("[data-by=host]").click()
    asked.locator("#where tr[data-name='machine-2'] button").click()
    expect(asked.locator("tr.conversation")).to_have_count(8)
    expect(asked.locator("tr.conversation .status[data-tone=run]")).to_have_count(4)


def test_what_runs_now_on_a_machine(asked: Page) -> None:
    asked.locator("#filter").click()
    asked.keyboard.type("machine-2")
    expect(asked.locator("tr.conversation")).to_have_count(8)
    chip(asked, "running").click()
    expect(asked.locator("tr.conversation")).to_have_count(4)


def test_whether_cost_went_up_on_a_day(asked: Page) -> None:
    asked.locator("[data-period='7d']").click()
    expect(asked.locator("#over-time .column")).to_have_count(7)
    asked.locator("#over-time .plot").focus()
    for day in range(4):
        asked.keyboard.press("ArrowLeft")
        spent = fsum(costs(range(day, day + 1)).values()) + (32.0 if day == 1 else 0.0)
        expect(asked.locator("#over-time .told p").last).to_have_text(f"together{money(spent)}")
