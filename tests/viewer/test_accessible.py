"""In a real browser: every view by axe, light and dark, wide and narrow, and still where motion is not wanted."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, expect
from span_sender import SpanSender, fail
from viewer_process import Viewer, running_viewer

from openhands_otel import semconv
from otlp_sender import Sender

from .crowd import play_crowd
from .test_page import WIDE_ELEMENTS, pytestmark  # noqa: F401

AXE = """
async () => {
  const runOnly = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
  const { violations } = await axe.run(document, { runOnly });
  return violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.target} ${node.failureSummary}`));
}
"""
VIEWS = {
    "the overview": "#/",
    "seven days by person": "#/?period=7d&by=user&stack=user",
    "a filter": "#/?period=own&from=2020-01-01&to=2090-01-01&where=model%3Dgpt-5&show=stuck",
    "nothing found": "#/?search=nothing-is-called-so",
    "cards": "#/?as=cards",
    "a conversation": "#/c/00000000-aaaa-4bbb-8ccc-000000000000",
    "one that nobody knows": "#/c/nobody",
}


@pytest.fixture(scope="module")
def crowd() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        play_crowd(viewer, 20)
        agent = Sender("p").spend(0.5).introduce("unpriced", parent="00000000-aaaa-4bbb-8ccc-000000000000")
        viewer.send(agent.converse("unpriced", 0.5))
        # Something that the page has to complain of.
        viewer.post(Sender("rogue").add(semconv.COST, 1e300).body())
        spans = SpanSender()
        name = "00000000-aaaa-4bbb-8ccc-000000000000"
        spans.call(2, name, parent=1, cost=0.25, attributes={"gen_ai.input.messages": "Go on."})
        fail(spans.tool(3, name, parent=1, start=2, end=9), "Timeout")
        viewer.post(spans.body(), "/v1/traces")
        yield viewer


def opened(browser: Browser, scheme: Literal["light", "dark"], width: int, **more: Any) -> Page:
    return browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 844}, **more)


@pytest.mark.parametrize("width", [390, 1360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_any_view(
    crowd: Viewer,
    browser: Browser,
    scheme: Literal["light", "dark"],
    width: int,
) -> None:
    script = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text()
    found: dict[str, list[str]] = {}
    page = opened(browser, scheme, width, reduced_motion="reduce")
    for view, address in VIEWS.items():
        page.goto("about:blank")
        page.goto(f"{crowd.url}/{address}")
        expect(page.locator("#connection-text")).to_contain_text("live")
        expect(page.locator(".parts tfoot").first).to_be_attached()
        expect(page.locator("tr.conversation, article.card, #empty, #conversation .note").first).to_be_attached()
        page.locator("#columns").evaluate("each => { each.open = true }")
        if view == "a conversation":
            page.locator(".span-row", has_text="chat").click()
            expect(page.locator(".span-details dd").first).to_be_visible()
        page.evaluate(script)
        found[view] = [*page.evaluate(AXE), *map(str, page.evaluate(WIDE_ELEMENTS))]
    page.close()
    assert {view: wrong for view, wrong in found.items() if wrong} == {}


def test_nothing_moves_for_those_who_want_no_motion(crowd: Viewer, browser: Browser) -> None:
    page = opened(browser, "light", 1360, reduced_motion="reduce")
    page.goto(crowd.url)
    expect(page.locator("tr.conversation").first).to_be_visible()
    moving = "document.getAnimations().length"
    assert page.evaluate(moving) == 0
    # The total is what it is, at once.
    page.evaluate(
        "window.texts = new Set();"
        " new MutationObserver(() => texts.add(total.textContent)).observe(total, { childList: true })"
    )
    before = page.locator("#total").inner_text()
    crowd.send(Sender("late").spend(64.0))
    expect(page.locator("#total")).not_to_have_text(before)
    assert page.evaluate("[...texts]") == [page.locator("#total").inner_text()]
    assert page.evaluate(moving) == 0
    page.close()
