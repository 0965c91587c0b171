"""The live page in a real browser."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect
from viewer_process import Viewer, running_viewer, start_viewer

from openhands_otel import semconv
from openhands_otel._internal.money import money
from openhands_otel.semconv import TokenType
from otlp_sender import Sender

from .conftest import CHROMIUM

WIDE_ELEMENTS = """
[...document.querySelectorAll("body *")]
  .filter((one) => one.checkVisibility() && one.getBoundingClientRect().right > innerWidth && !one.matches(".skip"))
  .map((one) => one.className || one.id || one.tagName)
"""
"""What reaches beyond the right edge; more telling than the width of the whole."""

CUT_AMOUNTS = """
[...document.querySelectorAll("body *")]
  .filter((one) => !one.children.length && /\\$[\\d.,]+/.test(one.textContent) && one.checkVisibility()
    && one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflowX !== "visible")
  .map((one) => `${one.className || one.tagName}: ${one.textContent}`)
"""
"""Amounts of which a part is not seen."""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        yield viewer


@pytest.fixture
def fresh_viewer() -> Iterator[Viewer]:
    """A viewer that has seen nothing yet."""
    with running_viewer() as viewer:
        yield viewer


def is_complaint(message: ConsoleMessage) -> bool:
    """Whether the browser says that something is wrong; that a viewer is not there it says by itself."""
    refused = "Content Security Policy" in message.text
    return refused or (message.type in ("error", "warning") and "Failed to load resource" not in message.text)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that may make no error, and ask nobody but its own server."""
    page = browser.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if is_complaint(message) else None)
    page.on("request", lambda asked: None if "//127.0.0.1:" in asked.url else wrong.append(asked.url))
    yield page
    page.close()
    assert wrong == []


def cards(viewer: Viewer) -> str:
    """The address of the page with conversations as cards."""
    return f"{viewer.url}/#/?as=cards"


def card(page: Page, conversation: str) -> Any:
    return page.locator(f"article.card[data-conversation='{conversation}']")


def test_the_total_rises_when_a_point_arrives_without_a_reload(fresh_viewer: Viewer, page: Page) -> None:
    sender = Sender("p").spend(0.25).introduce("c-1").converse("c-1", 0.25).state("c-1", "running")
    fresh_viewer.send(sender)
    page.goto(cards(fresh_viewer))
    expect(page.locator("#total")).to_have_text("$0.2500")
    page.evaluate("window.notReloaded = true")
    fresh_viewer.send(sender.spend(0.75).converse("c-1", 0.75))
    expect(page.locator("#total")).to_have_text("$0.7500")
    expect(card(page, "c-1").locator(".cost")).to_have_text("$0.7500")
    assert page.evaluate("window.notReloaded")
    expect(page).to_have_title("$0.7500 OpenHands spend")
    expect(page.locator("#connection")).to_contain_text("live")


def test_a_card_tells_what_its_conversation_does(viewer: Viewer, page: Page) -> None:
    named = {semconv.CONVERSATION_ID: "abcdefgh-1"}
    sender = Sender("p", service="runner").introduce("abcdefgh-1").state("abcdefgh-1", "running")
    sender.converse("abcdefgh-1", 0.5).converse("abcdefgh-1", 0.125, role="condenser", model="mini")
    sender.now("abcdefgh-1", "terminal", time.time() - 30)
    for token_type, number in ((TokenType.INPUT, 9000), (TokenType.CACHE_READ, 4500), (TokenType.OUTPUT, 700)):
        sender.add(semconv.CONVERSATION_TOKENS, number, named | {semconv.TOKEN_TYPE: token_type})
    sender.add(semconv.CONVERSATION_CALLS, 12, named).add(semconv.CONVERSATION_RESTORED_COST, 1.5, named)
    sender.add(semconv.CONVERSATION_CONTEXT_TOKENS, 50_000, named)
    sender.add(semconv.CONVERSATION_FIRST_CALL, time.time() - 60, named)
    sender.add(semconv.CONVERSATION_LLM_TIME, 12.5, named).add(semconv.CONVERSATION_LONGEST_CALL, 4.0, named)
    sender.add(semconv.CONVERSATION_CONTEXT_LIMIT, 200_000, named)
    viewer.send(sender)
    page.goto(cards(viewer))
    shown = card(page, "abcdefgh-1")
    for text in ("abcdefgh", "Agent", "running", "terminal", "9,000 in", "50 % from cache", "700 out", "12 calls"):
        expect(shown).to_contain_text(text)
    expect(shown).to_contain_text(re.compile(r"first call 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d"))
    for text in ("12.5 s in LLM calls", "the slowest took 4.0 s"):
        expect(shown).to_contain_text(text)
    for text in ("50K of 200K (25 %)", "condenser · mini", "$0.1250", "$1.500 more was spent before", "runner"):
        expect(shown).to_contain_text(text)
    expect(shown.locator(".now")).to_contain_text("3")
    first = shown.locator(".now").inner_text()
    expect(shown.locator(".now")).not_to_have_text(first)


def test_children_stand_in_their_parents_card_and_count_in_its_tree(viewer: Viewer, page: Page) -> None:
    sender = Sender("p").introduce("parent").converse("parent", 0.5)
    viewer.send(sender)
    page.goto(cards(viewer))
    expect(card(page, "parent")).to_be_visible()
    viewer.send(sender.introduce("child", parent="parent").converse("child", 0.25))
    row = card(page, "parent").locator(".child[data-conversation='child']")
    expect(row).to_contain_text("$0.2500")
    expect(card(page, "parent")).to_contain_text("$0.7500 with 1 sub-agent")
    row.locator("summary").click()
    expect(row.locator(".body")).to_be_visible()


def test_conversations_that_name_each_other_as_parents_are_shown(viewer: Viewer, page: Page) -> None:
    sender = Sender("p").introduce("a", parent="b").converse("a", 0.5).introduce("b", parent="a").converse("b", 0.25)
    viewer.send(sender)
    page.goto(viewer.url)
    for name in "ab":
        expect(page.locator(f"[data-conversation='{name}']")).to_be_visible()


def row(page: Page, conversation: str) -> Any:
    return page.locator(f"tr.conversation[data-conversation='{conversation}']")


def chip(page: Page, name: str) -> Any:
    return page.locator(f".chip[data-show='{name}']")


def test_a_closed_conversation_keeps_its_place_and_money_and_counts_as_ended(fresh_viewer: Viewer, page: Page) -> None:
    sender = Sender("p").spend(0.5).introduce("c").converse("c", 0.5).introduce("other")
    fresh_viewer.send(sender)
    page.goto(fresh_viewer.url)
    expect(page.locator("tr.conversation")).to_have_count(2)
    order = page.locator("tr.conversation").evaluate_all("rows => rows.map(row => row.dataset.conversation)")
    expect(chip(page, "idle")).to_have_text("idle2")
    attributes = {semconv.CONVERSATION_ID: "c", semconv.AGENT_NAME: "Agent", semconv.SDK_VERSION: "1.58.0"}
    fresh_viewer.send(sender.add(semconv.CONVERSATION_INFO, None, attributes))
    expect(chip(page, "ended")).to_have_text("ended1")
    expect(chip(page, "idle")).to_have_text("idle1")
    expect(row(page, "c").locator(".status")).to_have_text("closed")
    assert page.locator("tr.conversation").evaluate_all("rows => rows.map(row => row.dataset.conversation)") == order
    chip(page, "ended").click()
    expect(page.locator("tr.conversation")).to_have_count(1)
    expect(row(page, "c").locator(".c-cost")).to_have_text("$0.5000")
    expect(page.locator("#total")).to_have_text("$0.5000")
    chip(page, "ended").click()
    expect(page.locator("tr.conversation")).to_have_count(2)


def test_when_all_are_closed_they_are_shown(fresh_viewer: Viewer, page: Page) -> None:
    sender = Sender("p").introduce("c").converse("c", 0.5)
    fresh_viewer.send(sender)
    attributes = {semconv.CONVERSATION_ID: "c", semconv.AGENT_NAME: "Agent", semconv.SDK_VERSION: "1.58.0"}
    fresh_viewer.send(sender.add(semconv.CONVERSATION_INFO, None, attributes))
    page.goto(fresh_viewer.url)
    expect(row(page, "c")).to_be_visible()
    expect(page.locator("#empty")).to_be_hidden()
    chip(page, "running").click()
    expect(row(page, "c")).to_have_count(0)
    expect(page.locator("#empty")).to_have_text(re.compile("No conversation matches"))


def test_the_filter_leaves_what_matches(fresh_viewer: Viewer, page: Page) -> None:
    sender = Sender("p")
    for name, model in (("one", "gpt"), ("two", "claude")):
        sender.introduce(name).converse(name, 0.5, model=model)
    fresh_viewer.send(sender)
    page.goto(cards(fresh_viewer))
    expect(page.locator("article.card")).to_have_count(2)
    page.locator("#filter").fill("CLAUDE")
    expect(page.locator("article.card")).to_have_count(1)
    expect(card(page, "two")).to_be_visible()


def test_names_are_text_whatever_they_hold(viewer: Viewer, page: Page) -> None:
    name = "<img src=x onerror=alert(1)>"
    viewer.send(Sender(name, service=name).introduce(name).converse(name, 0.5, model=name).now(name, name, 1.0))
    page.goto(cards(viewer))
    expect(page.locator("article.card").filter(has_text="<img src")).to_have_count(1)
    assert page.locator("article img").count() == 0
    page.locator("#as [data-as=table]").click()
    expect(page.locator("tr.conversation").filter(has_text="<img src")).to_have_count(1)
    page.locator("tr.conversation").filter(has_text="<img src").locator(".name").click()
    expect(page.locator("#conversation h2")).to_contain_text("<img src")
    expect(page.locator("#conversation .runs").first).to_be_visible()
    assert page.locator("main img").count() == 0


def test_the_page_finds_its_viewer_again_after_a_restart(page: Page) -> None:
    viewer = start_viewer()
    port = int(viewer.url.rpartition(":")[2])
    viewer.send(Sender("p").spend(0.25))
    page.goto(viewer.url)
    expect(page.locator("#total")).to_have_text("$0.2500")
    viewer.stop()
    expect(page.locator("#connection")).to_contain_text("connection lost")
    with running_viewer(port=port) as viewer:
        viewer.send(Sender("q").spend(0.5))
        expect(page.locator("#total")).to_have_text("$0.5000")
        expect(page.locator("#connection")).to_contain_text("live")


def test_a_token_in_the_address_opens_the_page_and_leaves_the_address(page: Page) -> None:
    with running_viewer(token="s3cret") as viewer:
        viewer.send(Sender("p").spend(0.25))
        page.goto(f"{viewer.url}/#token=s3cret")
        expect(page.locator("#total")).to_have_text("$0.2500")
        assert "s3cret" not in page.url
        page.reload()
        expect(page.locator("#total")).to_have_text("$0.2500")


def test_without_a_token_the_page_asks_for_it(page: Page) -> None:
    with running_viewer(token="s3cret") as viewer:
        viewer.send(Sender("p").spend(0.25))
        page.goto(viewer.url)
        page.locator("#token").fill("wrong")
        page.locator("#token-form button").click()
        expect(page.locator("#token-error")).to_have_text("That is not the token.")
        page.locator("#token").fill("s3cret")
        page.locator("#token-form button").click()
        expect(page.locator("#total")).to_have_text("$0.2500")


@pytest.mark.parametrize("width", [360, 768, 1360])
def test_the_page_fits_its_window(viewer: Viewer, page: Page, width: int) -> None:
    sender = Sender("p", service="a-service-with-quite-a-long-name-that-goes-on").spend(1234.5)
    for number in range(4):
        name = f"conversation-{number}"
        sender.introduce(name).converse(name, 123.0, model="a-model-with-a-very-long-name-indeed-2026-11-22").state(
            name, "waiting_for_confirmation"
        )
    viewer.send(sender)
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(cards(viewer))
    expect(card(page, "conversation-3")).to_be_visible()
    assert page.evaluate(WIDE_ELEMENTS) == []
    page.locator("#as [data-as=table]").click()
    expect(row(page, "conversation-3")).to_be_visible()
    expect(page.locator(".parts tbody tr").first).to_be_visible()
    assert page.evaluate(WIDE_ELEMENTS) == []
    row(page, "conversation-3").locator(".name").click()
    expect(page.locator("#conversation .parts tbody tr").first).to_be_visible()
    assert page.evaluate(WIDE_ELEMENTS) == []


def test_amounts_are_shown_as_the_table_says_that_the_terminal_is_held_to(viewer: Viewer, page: Page) -> None:
    """Kind of fault: page and terminal show one amount as two, or as none. tests/test_money.py has the terminal's."""
    cases = json.loads((Path(__file__).parent.parent / "money_cases.json").read_text())
    page.goto(viewer.url)
    script = 'async (amounts) => { const { money } = await import("/assets/format.js"); return amounts.map(money); }'
    amounts = [str(amount) for amount, _ in cases]
    shown = page.evaluate(script.replace("amounts.map(money)", "amounts.map((text) => money(Number(text)))"), amounts)
    assert shown == [text for _, text in cases]
    nothing = script.replace("amounts.map(money)", "[money(undefined), money(null), money('x')]")
    assert page.evaluate(nothing, []) == ["$?"] * 3


def test_a_million_dollars_and_a_hundredth_of_a_cent_have_room(fresh_viewer: Viewer, page: Page) -> None:
    """At any width nothing that counts is cut, and each amount has its digits."""
    million, little = 1_234_567.891, 0.0000123
    for name, cost in (("million", million), ("little", little)):
        agent = Sender(name).spend(cost, model=f"a-model-with-a-long-name-{name}").introduce(name)
        fresh_viewer.send(agent.converse(name, cost, model=f"a-model-with-a-long-name-{name}").state(name, "running"))
    for width in (390, 760, 1100, 1360):
        page.set_viewport_size({"width": width, "height": 900})
        for address in ("#/", "#/?as=cards", "#/c/million", "#/c/little"):
            page.goto(f"{fresh_viewer.url}/{address}")
            expect(page.locator(".parts tfoot:visible").first).to_be_visible()
            expect(page.locator("tr.conversation:visible, article.card:visible").first).to_be_visible()
            assert page.evaluate(WIDE_ELEMENTS) == []
            assert page.evaluate(CUT_AMOUNTS) == []
        page.goto(fresh_viewer.url)
        for name, cost in (("million", million), ("little", little)):
            expect(row(page, name).locator(".c-cost")).to_have_text(money(cost))
            expect(page.locator(f"#where tr[data-name$='{name}'] .dollars")).to_have_text(money(cost))
        expect(page.locator("#total")).to_have_text(money(million + little))


def test_what_is_refused_and_what_does_not_work_is_said_only_then(page: Page, tmp_path: Path) -> None:
    """The kind of fault: the receiver knows, and nobody who watches does."""
    database = tmp_path / "history.sqlite3"
    with running_viewer(database=database) as viewer:
        page.goto(viewer.url)
        expect(page.locator("#connection-text")).to_contain_text("live")
        expect(page.locator("#trouble")).to_be_hidden()
        viewer.post(Sender("<b>evil</b>\u202e", service="rogue").add(semconv.COST, 1e300).body())
        line = page.locator("#trouble p")
        expect(line).to_contain_text("Not taken from rogue, <b>evil</b>\\u{202e}: 1 point, last ")
        expect(line).to_contain_text("openhands.llm.cost has the value 1e+300, and at most 1e+09 USD is taken")
        database.chmod(0o400)
        expect(page.locator("#trouble .bad")).to_contain_text("is read-only", timeout=60_000)
        database.chmod(0o600)
        expect(page.locator("#trouble .bad")).to_have_count(0, timeout=60_000)
        expect(line).to_have_count(1)
        assert page.evaluate(WIDE_ELEMENTS) == []


def test_all_that_the_page_loads_is_small(viewer: Viewer, page: Page) -> None:
    page.goto(viewer.url)
    expect(page.locator("#connection")).to_contain_text("live")
    loaded = """
        [performance.getEntriesByType("navigation")[0], ...performance.getEntriesByType("resource")]
          .filter(({ name }) => !name.includes("/api/")).map(({ encodedBodySize }) => encodedBodySize)
    """
    sizes = page.evaluate(loaded)
    assert len(sizes) > 15
    assert all(sizes)
    assert sum(sizes) < 150_000


def test_the_page_works_wherever_a_proxy_puts_it(browser: Browser) -> None:
    """Every address that it asks for is under the one at which it was opened."""
    with running_viewer() as viewer:
        viewer.send(Sender("p").spend(0.25).introduce("c").converse("c", 0.25))
        page = browser.new_page()
        asked: list[str] = []

        def put_elsewhere(route: Any) -> None:
            asked.append(route.request.url)
            assert route.request.url.startswith("http://proxy.test/some/where/")
            answer = viewer.http.get(route.request.url.removeprefix("http://proxy.test/some/where"))
            kept = ("content-type", "content-security-policy")
            route.fulfill(
                status=answer.status_code,
                body=answer.content,
                headers={name: answer.headers.get(name, "") for name in kept},
            )

        page.route("http://proxy.test/**", put_elsewhere)
        # The stream never ends, so it cannot be fulfilled from here; what else is asked tells as much.
        page.route("**/api/v1/events?*", lambda route: route.abort())
        page.goto("http://proxy.test/some/where/#/?by=role")
        expect(page.locator("#total")).to_have_text("$0.2500")
        expect(page.locator("#where tr[data-name=agent] .dollars")).to_have_text("$0.2500")
        assert any("/assets/facts.js" in url for url in asked)
        page.close()
