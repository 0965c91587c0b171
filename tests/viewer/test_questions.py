"""Questions that people come with, on a fresh viewer with 40 agents: each is answered by two clicks at most."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import fsum

import pytest
from playwright.sync_api import Page, expect
from viewer_process import Viewer, running_viewer

from openhands_otel._internal.money import money

from .crowd import MODELS, PEOPLE, ended, midnight, play_crowd, sender
from .test_page import browser, chip, page, pytestmark  # noqa: F401

MOST_CLICKS = 2
COUNT = """
window.clicks = 0;
addEventListener("click", () => { window.clicks += 1; }, true);
"""


@pytest.fixture(scope="module")
def crowd() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        play_crowd(viewer)
        failed_yesterday(viewer)
        yield viewer


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
