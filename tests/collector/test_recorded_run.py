"""A recorded run of agents of before looks the same for ever: in the API, in ``/metrics``, on the page, in ``watch``.

``recorded/`` was made with commit d0c4ff5, the last one before the source moved into rooms and the facts into a table.
``requests.jsonl.gz`` has the metrics requests, in order of arrival, of four processes of that commit: the demo's agent
(a real OpenHands conversation under ``opentelemetry-instrument``) and its launcher, and two pipelines
in one test process, whose conversations end in each outcome, have a sub-agent at work, no price, a difference to
OpenHands' own total, and pass from one process to the other. Two requests come again at the end as a spool would
deliver them. All stamps were moved back as one so that the run begins with the year 2025. That commit's viewer then
took the requests as ``play`` sends them, and the four texts beside them are its answers.

What depends on the clock of the machine that plays the run is left out: stamps of arrival are 0 here, and durations
and rates are words. Requests from before say nothing of later facts: page, ``watch`` and ``/metrics`` stay equal to
the byte, and in the API a later field has its default (``LATER``).
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from viewer.test_page import browser, page  # noqa: F401
from viewer.test_page import pytestmark as needs_chromium
from viewer_process import Viewer, running_viewer, wait_for

RECORDED = Path(__file__).parent / "recorded"
LATER: dict[str, Any] = {
    "cache_savings": 0.0,
    "llm_seconds": 0.0,
    "longest_call_seconds": None,
    "first_call_unix_s": None,
    "last_call_unix_s": None,
    "labels": {},
}
"""Fields of ConversationStats that came after the record, with what they say of an agent that knows nothing of them."""

LATER_COLUMNS = ("error", "slowest", "last call")
"""Of ``watch``."""

_DURATION = re.compile(r"(?<![\d.,$])[\d.]+ (?:d \d+ h|h \d\d min|min \d\d s|[hs])\b")
_LATER = re.compile(r"(?m) # \{.*$|^openhands_otel_collector_\w+_created .*\n")
"""What came into the exposition after the record: exemplars, and since when the collector counts."""
_RATE = re.compile(r"\$[\d.]+(?=\s*/ ?(?:h|min|hour)\b)|(?<=most: )\S+")


def play(viewer: Viewer) -> None:
    """Send the recorded requests, one after the other."""
    with gzip.open(RECORDED / "requests.jsonl.gz", "rt") as lines:
        for line in lines:
            request = json.loads(line)
            replayed = {"openhands_otel_replayed": "1"} if request["replayed"] else {}
            response = viewer.post(base64.b64decode(request["body"]), **replayed)
            assert (response.status_code, response.content) == (200, b"")
    # A process is held for ended a moment after it said so.
    wait_for(lambda: {stats.conversation_id for stats in viewer.state().conversations if stats.ended}, "an end")


def conversations(viewer: Viewer) -> list[dict[str, Any]]:
    """What the API says, a stamp of arrival being 0."""
    found: list[dict[str, Any]] = viewer.http.get("/api/v1/conversations").raise_for_status().json()
    for stats in found:
        assert stats["received_unix_nano"]
        stats["received_unix_nano"] = 0
    return found


def exposition(viewer: Viewer) -> str:
    """``/metrics`` in both formats."""
    openmetrics = viewer.http.get("/metrics", headers={"accept": "application/openmetrics-text"}).raise_for_status()
    return viewer.http.get("/metrics").raise_for_status().text + _LATER.sub("", openmetrics.text)


def shown(viewer: Viewer, page: Page) -> str:  # noqa: F811
    """All text of the page, everything unfolded."""
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(viewer.url)
    unfold = "all => all.forEach(each => { each.dataset.touched = 'yes'; each.open = true; })"
    page.locator("details").evaluate_all(unfold)
    expect(page.locator("article.card")).to_have_count(10)
    expect(page.locator("#breakdown")).to_contain_text("Service")
    page.locator("details").evaluate_all(unfold)
    # What came onto the page after the record.
    page.locator("#today").evaluate("today => { today.style.display = 'none'; }")
    text: str = page.evaluate("document.body.innerText")
    return without_clock(text)


def watched(viewer: Viewer) -> str:
    """The table of ``watch --once``."""
    command = [sys.executable, "-m", "openhands_otel", "watch", viewer.url, "--once"]
    environment = os.environ | {"COLUMNS": "180"}
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    return without_clock(without_later_columns(shown))


def without_later_columns(table: str) -> str:
    """``watch`` draws columns that came after the record behind the others: each line ends before them."""
    lines = table.splitlines()
    begin = min((lines[1].find(f"  {title}") for title in LATER_COLUMNS if f"  {title}" in lines[1]), default=None)
    return "\n".join([lines[0], *(line[:begin].rstrip() for line in lines[1:])]) + "\n"


def without_clock(text: str) -> str:
    return _RATE.sub("(some rate)", _DURATION.sub("(some time)", text))


@pytest.fixture(scope="module")
def played() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        play(viewer)
        yield viewer


def test_metrics_are_equal(played: Viewer) -> None:
    assert exposition(played) == gzip.decompress((RECORDED / "metrics.txt.gz").read_bytes()).decode()


def test_the_api_is_equal(played: Viewer) -> None:
    found = conversations(played)
    assert all(stats.pop(name) == default for stats in found for name, default in LATER.items())
    for stats in found:
        began = datetime.fromtimestamp(stats["started_unix_nano"] / 1e9)
        assert stats.pop("name") == f"{stats['service']} {began:%H:%M}"
    assert as_text(found) == (RECORDED / "conversations.json").read_text()


def as_text(found: list[dict[str, Any]]) -> str:
    return json.dumps(found, indent=1) + "\n"


@needs_chromium
def test_the_page_is_equal(played: Viewer, page: Page) -> None:  # noqa: F811
    assert shown(played, page) == (RECORDED / "page.txt").read_text()


def test_watch_is_equal(played: Viewer) -> None:
    assert watched(played) == (RECORDED / "watch.txt").read_text()
