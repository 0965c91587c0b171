"""Calls and timeline of a conversation in a real browser: sums, 5,000 spans, what grows, and text that stays text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from span_sender import SpanSender, fail
from viewer_process import Viewer, running_viewer

from openhands_otel import semconv
from otlp_sender import Sender

from .test_page import is_complaint, pytestmark  # noqa: F401

HOSTILE = '<img src=x onerror="document.title=1">'


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        yield viewer


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that may make no error, and ask nobody but its own server."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if is_complaint(said) else None)
    page.on("request", lambda asked: None if "//127.0.0.1:" in asked.url else wrong.append(asked.url))
    yield page
    page.close()
    assert wrong == []


def post(viewer: Viewer, sender: SpanSender) -> None:
    assert viewer.post(sender.body(), "/v1/traces").status_code == 200


def amounts(page: Page, rows: str) -> list[float]:
    return page.eval_on_selector_all(
        f".calls {rows} [data-value]", "all => all.map((one) => Number(one.dataset.value))"
    )


def names(page: Page) -> list[str]:
    """Of the rows in the document, from the top down."""
    found: list[Any] = page.eval_on_selector_all(
        ".span-row",
        "all => all.map((row) => [parseFloat(row.style.top), row.querySelector('.label-text').textContent])",
    )
    return [name for _, name in sorted(found)]


def test_calls_add_up_to_the_cost_and_are_sorted_by_any_column(viewer: Viewer, page: Page) -> None:
    sender = SpanSender()
    for number in range(1, 81):
        told = {semconv.USAGE_INPUT_TOKENS: number, semconv.REQUEST_MODEL: HOSTILE}
        sender.call(number, "calls", cost=number / 100, start=number, end=number + 0.5, attributes=told)
    fail(sender.call(90, "calls", start=99), "Timeout")
    post(viewer, sender)
    viewer.send(Sender("calls").introduce("calls").converse("calls", 40.0))
    page.goto(f"{viewer.url}/#/c/calls")
    rows = page.locator(".calls tbody tr")
    expect(rows).to_have_count(50)
    assert sum(amounts(page, "tbody")) + sum(amounts(page, "tfoot tr:not(:last-child)")) == pytest.approx(40.0)
    assert amounts(page, "tfoot")[-2:] == [pytest.approx(40.0 - 32.4), 40.0]
    expect(page.locator(".calls tfoot")).to_contain_text("31 calls more")
    page.locator(".calls thead button", has_text="$").click()
    expect(rows.first.locator(".dollars")).to_have_text("$0.8000")
    assert page.locator(".calls th[aria-sort=descending]").inner_text() == "$"
    page.get_by_role("button", name="Show more").last.click()
    expect(rows).to_have_count(81)
    # One more is there without a reload, and so is what it says.
    later = SpanSender()
    later.call(200, "calls", cost=7.6, start=200, attributes={"gen_ai.input.messages": f'[{{"text": "{HOSTILE}"}}]'})
    post(viewer, later)
    expect(rows).to_have_count(82)
    expect(page.locator(".calls tfoot")).not_to_contain_text("without a span")
    rows.first.get_by_role("button").click()
    expect(page.locator(".span-details:visible dd", has_text="onerror").first).to_be_visible()
    assert page.locator("main img").count() == 0
    page.locator(".span-details:visible").get_by_role("button", name="Close").click()
    expect(rows.first.get_by_role("button")).to_be_focused()


def test_five_thousand_spans_are_walked_by_keyboard_with_few_rows_in_the_document(viewer: Viewer, page: Page) -> None:
    sender = SpanSender()
    sender.run(1, "long", trace=2, end=5_000)
    for number in range(2, 5_001):
        sender.tool(
            number,
            "long",
            f"tool-{number}",
            trace=2,
            parent=1 if number < 4_000 else number - 1,
            start=number,
            end=number + 5,
        )
    post(viewer, sender)
    viewer.send(Sender("long").introduce("long").converse("long", 1.0))
    page.goto(f"{viewer.url}/#/c/long")
    expect(page.locator(".waterfall + .note")).to_have_text("5,000 rows")
    waterfall = page.locator(".waterfall")
    waterfall.focus()

    def active() -> str:
        found = "document.getElementById(document.activeElement.getAttribute('aria-activedescendant'))"
        return page.evaluate(f"{found}.querySelector('.label-text').textContent")

    def press(*keys: str) -> str:
        for key in keys:
            page.keyboard.press(key)
            assert page.locator(".span-row").count() <= 100
        return active()

    assert press("Home") == "invoke_agent Agent"
    assert press("ArrowDown", "ArrowDown") == "execute_tool tool-3"
    assert press("End") == "execute_tool tool-5000"
    assert press("ArrowLeft") == "execute_tool tool-4999"
    assert press("PageUp") != "execute_tool tool-4999"
    assert press("Home", "ArrowLeft") == "invoke_agent Agent \u00b7 4,999 below"
    assert names(page) == ["invoke_agent Agent \u00b7 4,999 below"]
    assert press("ArrowRight", "ArrowRight") == "execute_tool tool-2"
    width = "document.querySelector('[aria-selected=true] .lane i').getBoundingClientRect().width"
    before = page.evaluate(width)
    press("+", "+", "+", "+", "+", "+", "+", "+")
    assert page.evaluate(width) > before
    press("0")
    assert page.evaluate(width) == before
    page.mouse.move(*_middle(page))
    page.mouse.wheel(0, 28 * 2_090)
    expect(page.locator(".label-text", has_text="tool-2100")).to_have_count(1)
    assert page.locator(".span-row").count() <= 100


def _middle(page: Page) -> tuple[float, float]:
    box = page.locator(".waterfall").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + 40


def test_what_runs_grows_until_its_span_comes_and_the_view_follows(viewer: Viewer, page: Page) -> None:
    now = time.time()
    agent = (
        Sender("live").introduce("live").state("live", "running").now("live", HOSTILE, now - 3).converse("live", 0.5)
    )
    viewer.send(agent)
    page.goto(f"{viewer.url}/#/c/live")
    expect(page.locator(".span-row")).to_have_count(2)
    assert names(page) == ["invoke_agent Agent \u00b7 running", f"execute_tool {HOSTILE} \u00b7 running"]
    took = page.locator(".span-row .took").last
    first = took.inner_text()
    expect(took).not_to_have_text(first)
    sender = SpanSender(began=int((now - 60) * 1e9))
    sender.call(2, "live", trace=3, parent=1, start=55, end=56, cost=0.5)
    post(viewer, sender)
    expect(page.locator(".span-row")).to_have_count(3)
    over = Sender("live", start=agent.start).state("live", "running", ended=True).now("live", HOSTILE, None)
    viewer.send(over.state("live", "finished"))
    sender.run(1, "live", trace=3, start=54, end=62)
    post(viewer, sender)
    expect(page.locator(".span-row")).to_have_count(2)
    expect(page.locator(".waterfall + .note")).to_have_text("2 rows")
    assert names(page) == ["invoke_agent Agent", "chat gpt"]
    assert page.locator("main img").count() == 0
    # Gone elsewhere, nothing asks for it any more.
    page.goto(f"{viewer.url}/#/")
    expect(page.locator(".waterfall")).to_have_count(0)


def test_a_conversation_without_spans_says_so_and_nothing_is_wider_than_a_telephone(viewer: Viewer, page: Page) -> None:
    viewer.send(Sender("bare").introduce("bare").converse("bare", 0.25))
    page.goto(f"{viewer.url}/#/c/bare")
    expect(page.get_by_text("No spans of it are kept here.")).to_be_visible()
    expect(page.get_by_text("No spans of its calls are kept here.")).to_be_visible()
    assert amounts(page, "tfoot") == [0.25, 0.25]
    page.set_viewport_size({"width": 390, "height": 800})
    for name in ("live", "calls"):
        page.goto(f"{viewer.url}/#/c/{name}")
        expect(page.locator(".span-row").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
