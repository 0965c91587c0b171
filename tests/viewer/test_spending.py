"""In a real browser: what was spent, in any period, over time and by anything, to the last digit of the bill."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import fsum

import pytest
from collector.test_real_spend import bill, folder, viewer  # noqa: F401
from playwright.sync_api import Page, expect
from viewer_process import Viewer, running_viewer

from openhands_otel._internal.money import money

from .crowd import midnight, sender
from .test_page import chip, page, pytestmark, row  # noqa: F401

WAYS = ("model", "service", "provider", "role", "agent", "conversation", "outcome", "instance", "team")


def values(page: Page, cells: str) -> list[float]:  # noqa: F811
    return [float(text) for text in page.locator(cells).evaluate_all("all => all.map(each => each.dataset.value)")]


def shown(page: Page, by: str) -> dict[str, str]:  # noqa: F811
    """Where it went, as the table says it once it is there."""
    page.locator(f"#where [data-by='{by}']").click()
    expect(page.locator("#where thead th").first).to_have_text(
        {"outcome": "how runs ended", "user": "person"}.get(by, by)
    )
    texts = page.locator("#where tbody tr").evaluate_all(
        "rows => rows.map(row => [row.dataset.name, row.querySelector('.dollars').textContent])"
    )
    return dict(texts)


@pytest.mark.parametrize("period", ["hour", "today", "7d", "30d", "all"])
def test_a_real_run_costs_what_the_provider_billed(
    viewer: Viewer,  # noqa: F811
    bill: dict[str, float],  # noqa: F811
    page: Page,  # noqa: F811
    period: str,
) -> None:
    page.goto(f"{viewer.url}/#/?period={period}")
    expect(page.locator("#total")).to_have_text(money(bill["total"]))
    expect(page.locator("#calls")).to_have_text("5")
    for by in WAYS:
        shown(page, by)
        assert fsum(values(page, "#where tbody .dollars")) == pytest.approx(bill["total"], abs=1e-12)
        expect(page.locator("#where tfoot .dollars")).to_have_text(money(bill["total"]))
    # All conversations, and what was spent outside of any, is all.
    expect(page.locator(".rows tfoot th").first).to_have_text("2 conversations")
    expect(page.locator(".rows tfoot tr").nth(1)).to_be_visible()
    rows = values(page, ".conversation .c-cost")
    [sum_of_rows, rest] = values(page, ".rows tfoot .c-cost")
    assert fsum(rows) == pytest.approx(sum_of_rows, abs=1e-12)
    assert sum_of_rows + rest == pytest.approx(bill["total"], abs=1e-12)


def test_a_model_costs_what_it_was_billed_and_a_click_on_it_filters_everywhere(
    viewer: Viewer,  # noqa: F811
    page: Page,  # noqa: F811
) -> None:
    page.goto(viewer.url)
    by_model = shown(page, "model")
    expected = {group["keys"]["model"]: group for group in viewer.http.get("/api/v1/spend?by=model").json()["groups"]}
    assert by_model == {name: money(group["accumulated_cost"]) for name, group in expected.items()}
    expect(page.locator("tr.conversation")).to_have_count(2)
    page.locator("#where button.name", has_text=re.compile("^gpt-4o$")).click()
    expect(page.locator("#total")).to_have_text(by_model["gpt-4o"])
    # That was a call of no conversation.
    expect(page.locator("tr.conversation")).to_have_count(0)
    assert set(shown(page, "role").values()) == {by_model["gpt-4o"]}
    expect(page.locator(".filter")).to_have_text(re.compile("^model = gpt-4o"))
    page.locator(".filter").click()
    expect(page.locator("tr.conversation")).to_have_count(2)
    expect(page.locator("#where tbody tr")).to_have_count(2)
    assert len(shown(page, "role")) == 2


@pytest.fixture(scope="module")
def days() -> Iterator[Viewer]:
    """$1 today, $2 yesterday, $4 three days ago, $8 twenty days ago and $16 forty days ago, of two models."""
    with running_viewer() as spent:
        agent, other = sender("p"), sender("q", service="other")
        one = two = 0.0
        for ago, cost in ((40, 16), (20, 8), (3, 4), (1, 2), (0, 1)):
            at = int((midnight(ago) + 1) * 1e9)
            one, two = one + 0.75 * cost, two + 0.25 * cost
            spent.send(agent.spend(one, model="large", at=at).introduce("c").converse("c", one, model="large", at=at))
            spent.send(other.spend(two, model="small", at=at))
        yield spent


@pytest.mark.parametrize(
    ("period", "total", "before", "columns"),
    [
        ("today", "$1.000", "yesterday by now $2.000", None),
        ("yesterday", "$2.000", "", 24),
        ("7d", "$7.000", "", 7),
        ("30d", "$15.000", "the 30 days before, by now $16.000", 30),
        ("all", "$31.000", "", None),
    ],
)
def test_each_period_has_its_spend_the_one_before_and_its_stretches(
    days: Viewer,
    page: Page,  # noqa: F811
    period: str,
    total: str,
    before: str,
    columns: int | None,
) -> None:
    page.goto(f"{days.url}/#/?period=today")
    page.locator(f"#periods [data-period='{period}']").click()
    expect(page.locator("#total")).to_have_text(total)
    expect(page.locator("#before")).to_have_text(before)
    assert f"period={period}" in page.url or period == "today"
    if columns is not None:
        expect(page.locator("#over-time .column")).to_have_count(columns)


def test_own_days_are_asked_for_by_their_dates(days: Viewer, page: Page) -> None:  # noqa: F811
    page.goto(days.url)
    page.locator("#periods [data-period='own']").click()
    first, last = (page.evaluate(f"new Date({midnight(ago)} * 1000).toISOString().slice(0, 10)") for ago in (3, 1))
    page.locator("#from").fill(first)
    page.locator("#to").fill(last)
    page.locator("#own-period button").click()
    expect(page.locator("#total")).to_have_text("$6.000")
    expect(page.locator("#period-name")).to_contain_text(f"{first} to {last}")
    page.reload()
    expect(page.locator("#total")).to_have_text("$6.000")
    expect(page.locator("#over-time .column")).to_have_count(3)


def test_a_period_that_cannot_be_is_said_to_be_none(days: Viewer, page: Page) -> None:  # noqa: F811
    page.goto(f"{days.url}/#/?period=own&from=2026-01-02&to=2026-01-01")
    expect(page.locator("#spend-error")).to_have_text("until must be after since")
    page.locator("[data-period=all]").click()
    expect(page.locator("#total")).to_have_text("$31.000")
    expect(page.locator("#spend-error")).to_be_hidden()


def test_the_chart_tells_each_columns_values_by_pointer_and_by_keyboard(days: Viewer, page: Page) -> None:  # noqa: F811
    page.goto(f"{days.url}/#/?period=7d&stack=model")
    expect(page.locator("#over-time .column")).to_have_count(7)
    expect(page.locator("#legend span")).to_have_text(["large", "small"])
    page.locator("#over-time .plot").focus()
    told = page.locator("#over-time .told")
    for key, texts in (
        ("End", ["small$0.2500", "large$0.7500", "together$1.000"]),
        ("ArrowLeft", ["small$0.5000", "large$1.500", "together$2.000"]),
        ("ArrowLeft", ["together$0.00"]),
        ("ArrowLeft", ["small$1.000", "large$3.000", "together$4.000"]),
    ):
        page.keyboard.press(key)
        expect(told.locator("p:not(.when)")).to_have_text(texts)
    page.keyboard.press("Escape")
    expect(told).to_be_hidden()
    box = page.locator("#over-time .plot").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 10, box["y"] + 60)
    expect(told.locator("p:not(.when)").last).to_have_text("together$1.000")
    page.locator("#stack").select_option("service")
    expect(page.locator("#legend span")).to_have_text(["agent", "other"])
    page.locator("#stack").select_option("")
    expect(page.locator("#legend span")).to_have_count(0)
    expect(page.locator("#over-time .column rect")).to_have_count(3)


def test_the_address_says_what_is_shown_so_back_reload_and_links_work(days: Viewer, page: Page) -> None:  # noqa: F811
    page.goto(days.url)
    expect(page.locator("#total")).to_have_text("$1.000")
    page.locator("#periods [data-period='7d']").click()
    expect(page.locator("#total")).to_have_text("$7.000")
    shown(page, "service")
    page.locator("#where button.name", has_text="other").click()
    expect(page.locator("#total")).to_have_text("$1.750")
    address = page.url
    page.reload()
    expect(page.locator("#total")).to_have_text("$1.750")
    expect(page.locator("#where [data-by=service]")).to_have_attribute("aria-pressed", "true")
    page.go_back()
    expect(page.locator("#total")).to_have_text("$7.000")
    expect(page.locator(".filter")).to_have_count(0)
    page.go_back()
    page.go_back()
    expect(page.locator("#total")).to_have_text("$1.000")
    page.go_forward()
    expect(page.locator("#total")).to_have_text("$7.000")
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator("#total")).to_have_text("$1.750")


def test_what_is_left_out_is_a_row_and_can_be_shown(page: Page) -> None:  # noqa: F811
    with running_viewer() as viewer:  # noqa: F811
        agent = sender("p")
        for number in range(12):
            agent.spend(2.0**-number, model=f"model-{number}")
        viewer.send(agent)
        page.goto(viewer.url)
        whole = fsum(2.0**-number for number in range(12))
        expect(page.locator("#where tbody tr")).to_have_count(9)
        expect(page.locator("#where tbody tr").last).to_contain_text("all others")
        assert fsum(values(page, "#where tbody .dollars")) == whole
        page.locator("#where .quiet-button").click()
        expect(page.locator("#where tbody tr")).to_have_count(12)
        assert fsum(values(page, "#where tbody .dollars")) == whole
        # In the chart too: seven are told apart, and the others stand together.
        expect(page.locator("#legend span")).to_have_text([*(f"model-{number}" for number in range(7)), "others"])


def test_names_with_signs_of_patterns_filter_for_themselves_alone(page: Page) -> None:  # noqa: F811
    with running_viewer() as viewer:  # noqa: F811
        viewer.send(sender("p").spend(1.0, model="a*[x]?").spend(2.0, model="abx").spend(4.0, model="a*[x]?b=c"))
        page.goto(viewer.url)
        for name, amount in (("a*[x]?", "$1.000"), ("a*[x]?b=c", "$4.000")):
            page.locator(f"#where tr[data-name='{name}'] button").click()
            expect(page.locator("#total")).to_have_text(amount)
            page.reload()
            expect(page.locator("#total")).to_have_text(amount)
            page.locator(".filter").click()
            expect(page.locator("#total")).to_have_text("$7.000")


def test_budgets_are_bars_with_their_end(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_BUDGETS", "day=4,month=1000000,week:service=agent=1")
    with running_viewer() as viewer:  # noqa: F811
        viewer.send(sender("p").spend(1.0, model="large").spend(0.5, model="small"))
        page.goto(viewer.url)
        known = viewer.http.get("/api/v1/budgets").json()
        shown_budgets = page.locator(".budget")
        expect(shown_budgets).to_have_count(len(known))
        for place, budget in enumerate(known):
            expect(shown_budgets.nth(place)).to_contain_text(f"budget {budget['name']} {money(budget['amount'])}")
            expect(shown_budgets.nth(place)).to_contain_text(f"{money(budget['spent'])}, ")
        [spent] = [place for place, budget in enumerate(known) if budget["exhausted"]]
        expect(shown_budgets.nth(spent).locator(".said")).to_have_attribute("data-tone", "bad")
        expect(shown_budgets.nth(spent)).to_contain_text("150 %: spent")


def test_budgets_that_are_nearly_spent_are_chips_that_show_what_they_count(
    page: Page,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(
        "OPENHANDS_OTEL_VIEWER_BUDGETS", "day=2,month=1.6,week:service=agent=1,day:model=large=1.25,day:model=small=1"
    )
    with running_viewer() as viewer:  # noqa: F811
        agent = sender("p").introduce("c").spend(0.5, model="small").converse("c", 0.5, model="small")
        viewer.send(agent.spend(1.0, model="large").converse("c", 1.0, model="large"))
        page.goto(viewer.url)
        # From 80 % on, and over it; not what has half of its money left, nor what is just below.
        chips = page.locator(".chip[data-budget]")
        expect(chips).to_have_text(["budget month94 %", "budget week service=agent150 %", "budget day model=large80 %"])
        assert chips.evaluate_all("all => all.map(each => each.dataset.tone)") == ["wait", "bad", "wait"]
        expect(page.locator("#calm")).to_be_hidden()
        counted = [("own", "", "$1.500"), ("own", "service = agent", "$1.500"), ("today", "model = large", "$1.000")]
        for place, (period, condition, total) in enumerate(counted):
            chips.nth(place).focus()
            page.keyboard.press("Enter")
            expect(chips.nth(place)).to_have_attribute("aria-pressed", "true")
            expect(page.locator(f"#periods [data-period='{period}']")).to_have_attribute("aria-pressed", "true")
            expect(page.locator("#filters")).to_contain_text(condition)
            expect(page.locator("#total")).to_have_text(total)
        expect(chips.nth(2)).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#total")).to_have_text("$1.500")
        expect(page.locator("#filters")).to_be_hidden()
