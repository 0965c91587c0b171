"""In a real browser: the conversations, what of them needs a person, and all of the past."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect
from viewer_process import Viewer, running_viewer, start_viewer, wait_for

from otlp_sender import Sender

from .crowd import closed, ended, play_crowd
from .test_page import chip, page, pytestmark, row  # noqa: F401

ORDER = "rows => rows.map(row => row.dataset.conversation)"


def order(page: Page) -> list[str]:  # noqa: F811
    found: list[str] = page.locator("tr.conversation").evaluate_all(ORDER)
    return found


@pytest.fixture(scope="module")
def crowd() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        play_crowd(viewer)
        yield viewer


def test_what_needs_a_person_is_counted_and_a_click_shows_it(crowd: Viewer, page: Page) -> None:  # noqa: F811
    page.goto(crowd.url)
    counts = {"waiting": 4, "stuck": 4, "failed": 4, "running": 24, "idle": 16, "ended": 0}
    for name, number in counts.items():
        expect(chip(page, name)).to_have_text(f"{name}{number}")
    for name in ("gone", "silent", "budget", "calm"):
        expect(page.locator(f".chip[data-show={name}], #{name}")).to_be_hidden()
    # They come first, whatever else there is.
    assert [page.locator("tr.conversation .word").nth(place).inner_text() for place in (0, 4, 8)] == [
        "waiting for you",
        "stuck",
        "error",
    ]
    for name, number in counts.items():
        chip(page, name).click()
        expect(chip(page, name)).to_have_attribute("aria-pressed", "true")
        expect(page.locator("tr.conversation")).to_have_count(number)
    page.locator(".chip[data-show=stuck]").click()
    for each in page.locator("tr.conversation").all():
        expect(each.locator(".status")).to_have_attribute("data-tone", "bad")
        # And since when.
        expect(each.locator(".since")).to_have_text(re.compile(r"^(\d+m)?\d+s$"))
    page.go_back()
    expect(chip(page, "ended")).to_have_attribute("aria-pressed", "true")


def test_what_went_wrong_before_the_period_needs_nobody_any_more(page: Page) -> None:  # noqa: F811
    """Else a number of old failures would be the first thing that is read for ever."""
    with running_viewer() as viewer:
        for outcome in ("error", "stuck", "budget"):
            viewer.send(closed(ended(Sender(outcome).introduce(outcome), outcome, outcome), outcome))
        page.goto(f"{viewer.url}/#/?period=today")
        for name in ("failed", "stuck", "budget"):
            expect(chip(page, name)).to_have_text(f"{name}1")
        page.goto(f"{viewer.url}/#/?period=own&from=2020-01-01&to=2020-01-02")
        expect(chip(page, "failed")).to_be_visible()
        page.evaluate("location.hash = '#/?period=own&from=2090-01-01&to=2090-01-02'")
        expect(page.locator("#calm")).to_be_visible()
        for name in ("failed", "stuck", "budget"):
            expect(chip(page, name)).to_be_hidden()
        expect(chip(page, "ended")).to_have_text("ended3")


def test_rows_hold_still_and_what_is_new_is_announced(page: Page) -> None:  # noqa: F811
    with running_viewer() as viewer:
        agents = [Sender(f"p{number}") for number in range(6)]
        for number, agent in enumerate(agents):
            viewer.send(
                agent.introduce(f"c{number}").converse(f"c{number}", 1.0 + number).state(f"c{number}", "running")
            )
        page.goto(f"{viewer.url}/#/?sort=-cost")
        expect(page.locator("tr.conversation")).to_have_count(6)
        before = order(page)
        assert before == ["c5", "c4", "c3", "c2", "c1", "c0"]
        for turn in range(3):
            for number in (turn, turn + 3):
                viewer.send(agents[number].converse(f"c{number}", 100.0 * (turn + 1)))
                expect(row(page, f"c{number}").locator(".c-cost")).to_have_text(f"${100 * (turn + 1)}.00")
            assert order(page) == before
        viewer.send(Sender("new").introduce("new").converse("new", 150.0))
        expect(page.locator("#fresh")).to_have_text("1 new: show")
        assert order(page) == before
        page.locator("#fresh").click()
        expect(page.locator("#fresh")).to_be_hidden()
        assert order(page) == ["c5", "c2", "c4", "c1", "new", "c3", "c0"]
        expect(row(page, "c5").locator(".name")).to_be_focused()


def test_rows_hold_still_when_the_viewer_is_killed_and_back(page: Page, tmp_path: Path) -> None:  # noqa: F811
    database = tmp_path / "history.sqlite3"
    viewer = start_viewer(database=database)
    agents = [Sender(f"p{number}").introduce(f"c{number}").converse(f"c{number}", 1.0 + number) for number in range(5)]
    for agent in agents:
        viewer.send(agent)
    page.goto(f"{viewer.url}/#/?sort=-cost")
    expect(page.locator("tr.conversation")).to_have_count(5)
    before = order(page)
    viewer.process.kill()
    viewer.process.wait()
    expect(page.locator("#connection")).to_contain_text("connection lost", timeout=30_000)
    with running_viewer(database=database, port=int(viewer.url.rpartition(":")[2])) as viewer:
        viewer.send(agents[0].converse("c0", 300.5))
        expect(row(page, "c0").locator(".c-cost")).to_have_text("$300.50", timeout=30_000)
        assert order(page) == before
        viewer.send(agents[0].converse("c0", 100.0, role="condenser"))
        expect(row(page, "c0").locator(".c-cost")).to_have_text("$400.50")
        assert order(page) == before


def test_columns_sort_both_ways_and_give_the_order_back(crowd: Viewer, page: Page) -> None:  # noqa: F811
    page.goto(crowd.url)
    expect(page.locator("tr.conversation")).to_have_count(40)
    usual = order(page)
    head = page.locator("th[data-sort=cost]")
    for direction, sign in (("descending", -1), ("ascending", 1)):
        head.locator("button").click()
        expect(head).to_have_attribute("aria-sort", direction)
        costs = page.locator("tr.conversation .c-cost").evaluate_all(
            "all => all.map(each => Number(each.dataset.value))"
        )
        assert costs == sorted(costs, key=lambda cost: sign * cost)
    head.locator("button").click()
    expect(head).to_have_attribute("aria-sort", "none")
    assert order(page) == usual


def test_sub_agents_are_under_their_parent_and_count_once(page: Page) -> None:  # noqa: F811
    with running_viewer() as viewer:
        agent = Sender("p").spend(0.875).introduce("parent").converse("parent", 0.5)
        viewer.send(agent.introduce("a", parent="parent").converse("a", 0.25))
        viewer.send(agent.introduce("b", parent="a").converse("b", 0.125))
        page.goto(viewer.url)
        expect(page.locator("tr.conversation")).to_have_count(1)
        expect(row(page, "parent").locator(".c-cost")).to_have_text("$0.8750")
        summed = page.locator(".rows tfoot .c-cost").first
        for depth, (opens, costs) in enumerate(
            [("parent", {"parent": "$0.5000", "a": "$0.3750"}), ("a", {"a": "$0.2500", "b": "$0.1250"})]
        ):
            row(page, opens).locator(".fold").click()
            for name, cost in costs.items():
                expect(row(page, name).locator(".c-cost")).to_have_text(cost)
            expect(page.locator("tr.conversation")).to_have_count(depth + 2)
            expect(summed).to_have_text("$0.8750")
        # Found by itself it is a row like others, and costs what it alone spent.
        page.locator("#filter").fill("sub-agent-that-is-not")
        expect(page.locator("#empty")).to_have_text("No conversation matches.", use_inner_text=True)
        page.goto(f"{viewer.url}/#/?sort=-cost")
        expect(page.locator("tr.conversation")).to_have_count(3)
        expect(row(page, "b")).to_contain_text("sub-agent")
        expect(summed).to_have_text("$0.8750")


def test_the_keyboard_reaches_everything(crowd: Viewer, page: Page) -> None:  # noqa: F811
    page.goto(crowd.url)
    expect(page.locator("tr.conversation")).to_have_count(40)
    ids = order(page)
    page.keyboard.press("/")
    expect(page.locator("#filter")).to_be_focused()
    page.keyboard.type("caro")
    expect(page.locator("tr.conversation")).to_have_count(10)
    page.locator("#filter").fill("")
    expect(page.locator("tr.conversation")).to_have_count(40)
    row(page, ids[0]).locator(".name").focus()
    for key, place in (("ArrowDown", 1), ("j", 2), ("k", 1), ("ArrowUp", 0), ("End", 39), ("Home", 0), ("ArrowUp", 0)):
        page.keyboard.press(key)
        expect(row(page, ids[place]).locator(".name")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#conversation h2")).to_be_visible()
    assert f"#/c/{ids[0]}" in page.url
    page.keyboard.press("Escape")
    expect(page.locator("#conversation")).to_be_hidden()
    expect(row(page, ids[0])).to_be_visible()
    # Who comes back finds the list where it was left.
    row(page, ids[30]).locator(".name").focus()
    place = page.evaluate("scrollY")
    assert place > 500
    page.keyboard.press("Enter")
    expect(page.locator("#conversation article")).to_be_visible()
    page.go_back()
    expect(row(page, ids[30])).to_be_in_viewport()
    assert page.evaluate("scrollY") == place
    assert order(page) == ids


def test_two_thousand_are_a_hundred_rows_at_most(page: Page) -> None:  # noqa: F811
    with running_viewer() as viewer:
        for part in range(20):
            agent = Sender(f"p{part}")
            for number in range(100):
                name = f"c-{part:02}{number:02}"
                agent.introduce(name).converse(name, 0.5).state(name, "running" if number % 2 else "idle")
            viewer.send(agent)
        page.goto(viewer.url)
        expect(page.locator(".rows tfoot th").first).to_have_text("2,000 conversations")
        expect(page.locator(".rows tfoot .c-cost").first).to_have_text("$1,000.00")
        expect(chip(page, "running")).to_have_text("running1,000")
        row(page, order(page)[0]).locator(".name").focus()
        for key in ("PageDown", "PageDown", "End", "PageUp", "Home", "End"):
            page.keyboard.press(key)
            assert page.locator("tr.conversation").count() <= 100
        last = page.locator("tr.conversation").last
        expect(last).to_be_in_viewport()
        expect(last).to_have_attribute("aria-rowindex", "2001")
        expect(last.locator(".name")).to_be_focused()
        page.locator("#filter").fill("c-1942")
        expect(page.locator("tr.conversation")).to_have_count(1)


@pytest.fixture(scope="module")
def past() -> Iterator[Viewer]:
    """130 conversations of which memory holds ten."""
    os.environ["OPENHANDS_OTEL_VIEWER_CONVERSATION_LIMIT"] = "10"
    try:
        with running_viewer() as viewer:
            for number in range(130):
                name = f"old-{number:03}"
                agent = Sender(f"p{number}", service=f"service-{number % 3}")
                agent.resource = {"openhands.label.user": "ana" if number % 10 else "ben"}
                viewer.send(agent.spend(1.0).introduce(name).converse(name, 1.0))
                outcome = "error" if number % 13 == 0 else "finished"
                viewer.send(closed(ended(agent, name, outcome, "Broken" if outcome == "error" else None), name))
            wait_for(lambda: len(viewer.state().conversations) <= 10, "that old ones leave memory")
            yield viewer
    finally:
        del os.environ["OPENHANDS_OTEL_VIEWER_CONVERSATION_LIMIT"]


def test_all_of_the_past_is_searched_and_listed(past: Viewer, page: Page) -> None:  # noqa: F811
    page.goto(past.url)
    expect(chip(page, "ended")).to_have_text("ended130")
    summed = page.locator(".rows tfoot th").first
    # By scrolling to the end more and more of it is there, and it always adds up.
    for _ in range(4):
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        page.wait_for_timeout(100)
    expect(summed).to_have_text("130 conversations")
    expect(page.locator(".rows tfoot .c-cost").first).to_have_text("$130.00")
    expect(page.locator(".rows tfoot tr").nth(1)).to_be_hidden()
    for words, number in (("old-007", 1), ("broken", 10), ("ben", 13), ("service-2 ana", 39), ("nobody", 0)):
        page.locator("#filter").fill(words)
        expect(summed).to_have_text(f"{number} conversation{'' if number == 1 else 's'}")
    page.locator("#filter").fill("")
    page.locator("#outcome").select_option("error")
    expect(summed).to_have_text("10 conversations")
    page.locator("#outcome").select_option("")
    page.locator("th[data-sort=name] button").click()
    expect(page.locator("tr.conversation").first).to_be_visible()
    # One of them has a page as every other has.
    page.goto(f"{past.url}/#/c/old-003")
    expect(page.locator("#conversation article .cost")).to_have_text("$1.000")
    expect(page.locator("#conversation")).to_contain_text("closed, finished")


def test_the_past_is_filtered_by_labels_roles_and_patterns_too(past: Viewer, page: Page) -> None:  # noqa: F811
    """Kind: what left memory and what is in it are filtered alike, by whatever a breakdown names."""
    summed = page.locator(".rows tfoot th").first
    for where, number in (
        (["user=ben"], 13),
        (["user=ana", "user=ben"], 130),
        (["user!=ana"], 13),
        (["user=a*", "service=service-2"], 39),
        (["role=agent"], 130),
        (["role=title"], 0),
        (["user=none"], 0),
        (["model=g?t", "user=[!a]en"], 13),
    ):
        query = "&".join(f"where={quote(each)}" for each in where)
        page.goto(f"{past.url}/#/?{query}")
        # Of more than a page the others come by scrolling.
        expect(summed).to_have_text(re.compile(rf"(^|, of ){number}( conversations)?$"))
    # By hand, from where it went.
    page.goto(f"{past.url}/#/?by=user")
    page.locator("#where tr[data-name=ben] button").click()
    expect(summed).to_have_text("13 conversations")
    expect(page.locator(".rows tfoot .c-cost").first).to_have_text("$13.000")
    expect(page.locator(".rows tfoot tr").nth(1)).to_be_hidden()


def test_a_filter_of_the_breakdown_holds_for_conversations_too(crowd: Viewer, page: Page) -> None:  # noqa: F811
    page.goto(f"{crowd.url}/#/?period=7d")
    page.locator("[data-by=user]").click()
    page.locator("#where tr[data-name=ana] button").click()
    expect(page.locator("tr.conversation")).to_have_count(10)
    page.locator("[data-by=model]").click()
    expect(page.locator("#where tbody tr")).to_have_count(1)
    page.locator(".filter").click()
    expect(page.locator("tr.conversation")).to_have_count(40)


def test_a_context_that_is_nearly_full_and_a_person_are_told(crowd: Viewer, page: Page) -> None:  # noqa: F811
    page.goto(f"{crowd.url}/#/?sort=-context")
    first = page.locator("tr.conversation").first
    expect(first.locator(".c-context")).to_have_text("80 %")
    expect(first.locator(".whose")).to_contain_text("dimitri · checkout")
