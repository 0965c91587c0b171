"""In a real browser: which columns the table of conversations shows, by pointer, keyboard, address and habit."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect
from viewer_process import Viewer, running_viewer

from .crowd import play_crowd
from .test_page import WIDE_ELEMENTS, page, pytestmark, row  # noqa: F401

USUAL = ["conversation", "now", "model", "$", "$/h", "tokens", "context", "calls", "age"]
FIRST = "00000000-aaaa-4bbb-8ccc-000000000000"


@pytest.fixture(scope="module")
def crowd() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        play_crowd(viewer, 12)
        yield viewer


def shows(page: Page, *titles: str) -> None:  # noqa: F811
    """The table has these columns in this order, in head, rows and foot."""
    expect(page.locator(".rows thead th")).to_have_text(list(titles))
    for place in (".rows tfoot tr >> nth=0", f"tr[data-conversation='{FIRST}']"):
        expect(page.locator(f"{place} >> th, td")).to_have_count(len(titles))


def test_columns_are_chosen_in_a_menu_and_kept_in_address_and_browser(crowd: Viewer, browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    page = context.new_page()  # noqa: F811
    page.goto(crowd.url)
    shows(page, *USUAL)
    page.locator("#columns summary").focus()
    page.keyboard.press("Enter")
    menu = page.locator("#columns")
    menu.get_by_label("tokens").press("Space")
    menu.get_by_label("machine").check()
    menu.get_by_label("last change").check()
    chosen = [*(each for each in USUAL if each != "tokens"), "last change", "machine"]
    shows(page, *chosen)
    expect(row(page, FIRST).locator(".c-label")).to_have_text("machine-0")
    expect(menu.get_by_label("tokens")).not_to_be_checked()
    # Escape closes the menu, and leaves the focus where it came from.
    page.keyboard.press("Escape")
    expect(menu.get_by_label("tokens")).to_be_hidden()
    expect(page.locator("#columns summary")).to_be_focused()
    address = page.url
    assert "columns=" in address
    page.reload()
    shows(page, *chosen)
    # Sorted by what was chosen, a label too, and the whole still adds up.
    page.locator(".rows thead th", has_text="machine").locator("button").click()
    machines = page.locator("tr.conversation .c-label")
    expect(machines.first).to_have_text("machine-0")
    assert machines.all_inner_texts() == sorted(machines.all_inner_texts())
    # Another visit of this browser has them too; another browser only by the address.
    again = context.new_page()
    again.goto(crowd.url)
    shows(again, *chosen)
    other = browser.new_page()
    other.goto(crowd.url)
    shows(other, *USUAL)
    other.goto(address)
    shows(other, *chosen)
    again.locator("#columns summary").click()
    again.get_by_role("button", name="As usual").click()
    shows(again, *USUAL)
    again.reload()
    shows(again, *USUAL)
    other.close()
    context.close()


def test_any_column_can_be_shown_and_none_makes_the_page_wider(crowd: Viewer, page: Page) -> None:  # noqa: F811
    """Kinds: each there is, all at once, names that are none, labels nobody has or called like a method."""
    page.goto(crowd.url)
    page.locator("#columns summary").click()
    boxes = page.locator("#columns input")
    expect(boxes).to_have_count(21)
    names = [*boxes.evaluate_all("all => all.map(each => each.value)"), "label:toString", "label:nobody"]
    page.set_viewport_size({"width": 1000, "height": 800})
    page.goto(f"{crowd.url}/#/?columns={quote(','.join([*names, 'no-such-column', 'cost']))}")
    expect(page.locator(".rows thead th")).to_have_count(24)
    assert page.evaluate("document.documentElement.scrollWidth") <= 1000
    # What does not fit is reached by scrolling sideways.
    last = page.locator(".rows thead th").last
    last.locator("button").focus()
    expect(last).to_be_in_viewport()
    # Where there is hardly any room only what matters most is left.
    page.set_viewport_size({"width": 390, "height": 800})
    expect(page.locator(".rows thead th:visible")).to_have_text(["conversation", "$", "age"])
    assert page.evaluate(WIDE_ELEMENTS) == []
