"""docs/accessibility.md, walked with the keyboard alone in a real browser: what axe cannot see."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from span_sender import SpanSender, fail
from viewer_process import Viewer, running_viewer

from otlp_sender import Sender

from .crowd import play_crowd
from .test_page import page, pytestmark, row  # noqa: F401

CHECKLIST = Path(__file__).parents[2] / "docs" / "accessibility.md"
FIRST = "00000000-aaaa-4bbb-8ccc-000000000000"
VIEWS = {"the overview": "#/?period=own&where=model%3D*", "cards": "#/?as=cards", "a conversation": f"#/c/{FIRST}"}
WAITED_FOR = "tr.conversation .name, article.card, .span-row"

KEYS = """
() => {
window.stops = () => [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")]
  .filter((one) => one.checkVisibility() && !one.disabled);
window.keyOf = (one) => [one.tagName, one.id, one.getAttribute("href"), one.getAttribute("aria-label"), one.value,
  JSON.stringify(one.dataset), one.textContent.replace(/[\\d.,]+/g, "")].join(" ");
}
"""
"""What can have the focus, and a name for each that outlives its being drawn anew."""

FOCUSED = """
() => {
  const one = document.activeElement;
  if (one === document.body) return null;
  const { top, bottom, left, right } = one.getBoundingClientRect();
  const style = getComputedStyle(one);
  return {
    key: keyOf(one),
    place: stops().indexOf(one),
    seen: bottom > 0 && top < innerHeight && right > 0 && left < innerWidth,
    marked: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
  };
}
"""
"""Of what has the focus: the how manieth of those that could, whether it is in sight, whether that is marked."""


@pytest.fixture(scope="module")
def crowd() -> Iterator[Viewer]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENHANDS_OTEL_VIEWER_BUDGETS", "day=1")
        with running_viewer() as viewer:
            play_crowd(viewer, 10)
            viewer.send(Sender("p").introduce("below", parent=FIRST).converse("below", 0.5))
            spans = SpanSender()
            spans.call(2, FIRST, cost=0.25, attributes={"gen_ai.input.messages": "Go on."})
            fail(spans.tool(3, FIRST, start=2, end=9), "Timeout")
            viewer.post(spans.body(), "/v1/traces").raise_for_status()
            yield viewer


def opened(page: Page, viewer: Viewer, address: str) -> None:  # noqa: F811
    page.goto("about:blank")
    page.goto(f"{viewer.url}/{address}")
    expect(page.locator(".parts tfoot").first).to_be_visible()
    expect(page.locator(WAITED_FOR).first).to_be_visible()


@pytest.mark.parametrize("view", VIEWS)
def test_tab_goes_to_everything_in_the_order_of_reading(crowd: Viewer, page: Page, view: str) -> None:  # noqa: F811
    opened(page, crowd, VIEWS[view])
    page.evaluate(KEYS)
    # The page may have put the focus somewhere: from there to the end, then once through all of it.
    walk(page)
    found = walk(page)
    assert [each["key"] for each in found if not each["seen"]] == []
    assert [each["key"] for each in found if not each["marked"]] == []
    places = [each["place"] for each in found if each["place"] >= 0]
    assert places == sorted(places)
    left = set(page.evaluate("stops().map(keyOf)")) - {each["key"] for each in found}
    # Rows of a timeline are one stop: arrows go through them.
    assert [key for key in left if "timeline-row" not in key] == []


def walk(page: Page) -> list[dict[str, Any]]:  # noqa: F811
    """Press Tab until the page has no more stops; a field for a date has several inside."""
    found: list[dict[str, Any]] = []
    for _ in range(2 * page.evaluate("stops().length") + 10):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if focused is None:
            return found
        found.append(focused)
    raise AssertionError("Tab does not come to an end")


def test_the_first_stop_skips_to_the_conversations(crowd: Viewer, page: Page) -> None:  # noqa: F811
    opened(page, crowd, "#/")
    page.keyboard.press("Tab")
    expect(page.locator("#skip")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#conversations")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#filter")).to_be_focused()


def test_who_opens_a_conversation_is_there_and_who_comes_back_is_where_they_were(crowd: Viewer, page: Page) -> None:  # noqa: F811
    opened(page, crowd, "#/")
    link = row(page, FIRST).locator(".name")
    link.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#conversation h2")).to_be_focused()
    page.keyboard.press("Escape")
    expect(link).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#conversation h2")).to_be_focused()
    page.go_back()
    expect(link).to_be_focused()


def test_what_arrives_does_not_take_the_focus_away(crowd: Viewer, page: Page) -> None:  # noqa: F811
    opened(page, crowd, "#/")
    # Budgets, breakdown and rows are drawn anew by what follows.
    for place in (
        ".chip[data-budget]",
        "#where tbody tr[data-name='gpt-5'] button",
        f"[data-conversation='{FIRST}'] .name",
    ):
        page.locator(place).focus()
        before = page.locator("#total").inner_text()
        agent = Sender(f"late {place}").spend(0.75, model="gpt-5").converse("late", 1.0, model="gpt-5")
        crowd.send(agent.introduce("late"))
        expect(page.locator("#total")).not_to_have_text(before)
        expect(page.locator(place)).to_be_focused()


def test_the_chart_and_a_call_are_read_by_keys(crowd: Viewer, page: Page) -> None:  # noqa: F811
    opened(page, crowd, "#/?period=7d")
    page.locator("#over-time .plot").focus()
    page.keyboard.press("End")
    told = page.locator("#over-time .told")
    expect(told).to_contain_text("together")
    # What is told is told to those who listen, too.
    expect(told).to_have_attribute("role", "status")
    page.keyboard.press("Escape")
    expect(told).to_have_text("")
    opened(page, crowd, f"#/c/{FIRST}")
    call = page.locator(".calls tbody button").first
    call.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".span-details").first).to_be_focused()
    expect(page.locator(".span-details").first).to_contain_text("Go on.")
    page.keyboard.press("Escape")
    expect(call).to_be_focused()
    # And not back to the list yet.
    expect(page.locator("#conversation h2")).to_be_visible()


def test_no_state_is_told_by_its_colour_alone(crowd: Viewer, page: Page) -> None:  # noqa: F811
    opened(page, crowd, "#/")
    for place in ("tr.conversation .status", ".budget .said", "#needs .chip:visible"):
        texts = page.locator(place).all_inner_texts()
        assert texts
        assert all(re.search(r"\w", text) for text in texts)


def test_each_point_of_the_checklist_is_held_by_a_test_that_exists() -> None:
    tests = "\n".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", CHECKLIST.read_text())
    assert len(named) >= 10
    assert [name for name in named if f"def {name}(" not in tests] == []
