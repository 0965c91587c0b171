"""The pictures in docs/images: taken here, of a team's day, so that they show what the page is now.

`make pictures` puts them there; otherwise they go to the test's own folder, and docs and files are compared by name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, expect
from viewer_process import Viewer, running_viewer

from .scene import BUDGETS, MAIN, play_scene
from .test_page import WIDE_ELEMENTS, pytestmark  # noqa: F401

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"


@dataclass(frozen=True)
class Picture:
    """What is to be seen, and how large; ``part`` is all that is shown where it is given."""

    address: str = ""
    scheme: Literal["light", "dark"] = "light"
    width: int = 1200
    height: int = 900
    part: str | None = None


PICTURES = {
    "page-light": Picture(),
    "page-dark": Picture(scheme="dark"),
    "page-narrow": Picture(width=390, height=844),
    "conversation": Picture(f"#/c/{MAIN}", height=1000),
    "timeline": Picture(f"#/c/{MAIN}", part="section:has(> h3:text-is('Timeline'))"),
}


@pytest.fixture(scope="module")
def team() -> Iterator[Viewer]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OPENHANDS_OTEL_VIEWER_BUDGETS", BUDGETS)
        with running_viewer() as viewer:
            play_scene(viewer)
            yield viewer


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_shows_the_page_as_it_is(team: Viewer, browser: Browser, tmp_path: Path, name: str) -> None:
    picture = PICTURES[name]
    page = browser.new_page(
        color_scheme=picture.scheme,
        viewport={"width": picture.width, "height": picture.height},
        reduced_motion="reduce",
    )
    page.goto(f"{team.url}/{picture.address}")
    awaited = ".span-row, .calls tfoot" if picture.address else "#where tfoot, tr.conversation, .chip[data-budget]"
    if not picture.address:
        expect(page.locator("[data-show=running] b")).not_to_have_text("0")
    for each in awaited.split(", "):
        expect(page.locator(each).first).to_be_visible()
    expect(page.locator(".column rect").first).to_be_visible()
    assert page.evaluate(WIDE_ELEMENTS) == []
    path = (IMAGES if os.environ.get("TEST_PICTURES") else tmp_path) / f"{name}.png"
    if picture.part is None:
        page.screenshot(path=path)
    else:
        page.locator(picture.part).screenshot(path=path)
    page.close()
    assert path.stat().st_size > 10_000


def test_each_picture_is_shown_somewhere_and_no_other() -> None:
    kept = {path.stem for path in IMAGES.glob("*.png")}
    texts = [(ROOT / "README.md").read_text(), *(path.read_text() for path in (ROOT / "docs").glob("*.md"))]
    shown = {name for text in texts for name in re.findall(r"images/([\w-]+)\.png", text)}
    # That of the page inside Canvas is taken where Canvas is: tests/canvas.
    assert kept == shown == {*PICTURES, "canvas"}
