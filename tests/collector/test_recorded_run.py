"""A recorded run of agents of before looks the same for ever: in the API, in ``/metrics``, on the page, in ``watch``.

``recorded/`` was made with commit d0c4ff5, the last one before the source moved into rooms and the facts into a table.
``requests.jsonl.gz`` has the metrics requests, in order of arrival, of four processes of that commit: the demo's agent
(a real OpenHands conversation under ``opentelemetry-instrument``) and its launcher, and two pipelines
in one test process, whose conversations end in each outcome, have a sub-agent at work, no price, a difference to
OpenHands' own total, and pass from one process to the other. Two requests come again at the end as a spool would
deliver them. All stamps were moved back as one so that the run begins with the year 2025. That commit's viewer then
took the requests as ``play`` sends them, and the four texts beside them are its answers.

What depends on the clock of the machine that plays the run is left out: stamps of arrival are 0 here, and durations
and rates are words. Requests from before say nothing of later facts: ``/metrics`` stays equal to the byte, in the API a
later field has its default (``LATER``), and page and ``watch``, which are laid out anew, say the same of each
conversation.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from itertools import batched, pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from viewer.conftest import open_browser
from viewer.test_page import page  # noqa: F401
from viewer.test_page import pytestmark as needs_chromium
from viewer_process import Viewer, running_viewer, wait_for

RECORDED = Path(__file__).parent / "recorded"
LATER: dict[str, Any] = {
    "cache_savings": 0.0,
    "llm_seconds": 0.0,
    "longest_call_seconds": None,
    "first_call_unix_s": None,
    "last_call_unix_s": None,
    "tool_calls": 0,
    "labels": {},
    "title": None,
}
"""Fields of ConversationStats that came after the record, with what they say of an agent that knows nothing of them."""

_DURATION = re.compile(r"(?<![\d.,$])[\d.]+ (?:d \d+ h|h \d\d min|min \d\d s|[hs])\b")
_WATCHED = re.compile(
    r"\s*(\S+)\s+\S+\s+(\S+(?: \S+)*)\s{2,}.*?(\S+-\S+|llama)\s+(\$[\d.]+|no price)(?:\s+\$[\d.]+)?\s+(\d+)\s"
)
"""Of a row of ``watch``: conversation, status, model, cost, calls."""
_LATER = re.compile(r"(?m) # \{.*$|^openhands_otel_collector_\w+_created .*\n")
"""What came into the exposition after the record: exemplars, and since when the collector counts."""
_RATE = re.compile(r"\$[\d.]+(?=\s*/ ?(?:h|min|hour)\b)|(?<=most: )\S+")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


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


def recorded_page() -> tuple[list[str], dict[str, str]]:
    """What the page of that commit said: lines of its head and of where it went, and by id each conversation's card."""
    head, _, cards = (RECORDED / "page.txt").read_text().partition("\nwaiting for you\nshared\n")
    # A little of something was rounded to nothing then.
    cards = re.sub(r"(?m)^([1-9].* of .*) \(0 %\)$", r"\1 (<1 %)", cards)
    names = [stats["conversation_id"] for stats in json.loads((RECORDED / "conversations.json").read_text())]
    # Every card begins with what its id begins with, alone in a line.
    beginnings = "|".join(re.escape(name[:8]) for name in names)
    found = re.split(rf"(?m)^({beginnings}|Closed \(.*\))$", "shared\n" + cards)
    texts: dict[str, str] = defaultdict(str)
    for name, text in zip(found[1::2], found[2::2], strict=True):
        # One is called as its own status.
        texts[name] += f"{name}{text}" if texts[name] else text
    return head.splitlines(), {name: f"{name[:8]}{texts[name[:8]]}".strip() for name in names}


def shown(viewer: Viewer, page: Page) -> dict[str, str]:  # noqa: F811
    """The text of each conversation's card, everything unfolded, without its title, which the record did not have."""
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(f"{viewer.url}/#/?as=cards&period=all")
    expect(page.locator("[data-conversation]:not(tr)")).to_have_count(11)
    page.locator("#cards details").evaluate_all("all => all.forEach(each => { each.open = true; })")
    page.locator("#cards .title").evaluate_all("all => all.forEach(each => { each.style.display = 'none'; })")
    found: dict[str, str] = {}
    for each in page.locator("[data-conversation]:not(tr)").all():
        inside = each.locator(":scope > .children").inner_text()
        text = each.inner_text()
        found[each.get_attribute("data-conversation") or ""] = without_clock(text.removesuffix(inside)).strip()
    return found


def watched(viewer: Viewer) -> str:
    """The table of ``watch --once``."""
    command = [sys.executable, "-m", "openhands_otel", "watch", viewer.url, "--once"]
    environment = os.environ | {"COLUMNS": "180"}
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    return without_clock(shown)


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
def test_the_page_says_of_each_conversation_what_it_said(played: Viewer, page: Page) -> None:  # noqa: F811
    assert shown(played, page) == recorded_page()[1]


@needs_chromium
def test_the_page_says_of_all_together_what_it_said(played: Viewer, page: Page) -> None:  # noqa: F811
    """The head of the page, and where it went: all of it, since there was no period then."""
    lines = recorded_page()[0]
    page.goto(f"{played.url}/#/?period=all")
    # Now an amount of which calls are without a price looks like the lower bound that it is.
    expect(page.locator("#total")).to_have_text(f"{lines[lines.index('Total spend') + 2]}+")
    expect(page.locator("#total-note")).to_have_text("$0.0719 saved by caching")
    for fact, title in (("running", "Running"), ("calls", "LLM calls"), ("tokens-in", "Tokens in")):
        expect(page.locator(f"#{fact}")).to_have_text(lines[lines.index(title) + 1])
    expect(page.locator("#seen")).to_have_text("5 open, 11 seen")
    expect(page.locator("#calls-note")).to_contain_text("2 without a price")
    expect(page.locator("#tokens-in-note")).to_have_text("82 % from cache")
    expect(page.locator("#tokens-out")).to_have_text("2,694")
    expect(page.locator("#tokens-out-note")).to_have_text("1,892 reasoning")
    titles = ["Model", "Role", "Provider", "Agent", "Service", "Conversations"]
    for title, after in pairwise(titles):
        # "Agent" is a service's name as well as a title.
        begin = lines.index(title) + 1
        rows = lines[begin : lines.index(after, begin + (after == "Service"))]
        page.locator(f"[data-by={title.lower()}]").click()
        expect(page.locator("#where thead th").first).to_have_text(title.lower())
        for name, amount in batched(rows, 2, strict=True):
            expect(page.locator(f"#where tr[data-name='{name}'] .dollars")).to_have_text(amount)
        expect(page.locator("#where tbody tr")).to_have_count(len(rows) // 2)
    page.locator("#outcome").focus()
    for text in (
        "any outcome",
        "finished",
        "failed",
        "stuck",
        "over budget",
        "out of turns",
        "paused",
        "waiting for you",
    ):
        expect(page.locator("#outcome")).to_contain_text(text)


def test_watch_says_of_each_conversation_what_it_said(played: Viewer) -> None:
    """Its table has other columns now, and its rows another order; what the record says of a conversation stands."""
    shown = watched(played)
    head, *rows = shown.splitlines()
    for figure in ("$3.112", "(some rate)/h", "2 running", "2 failed", "26 calls", "2,694 out"):
        assert figure in head
    now = {row.split()[0]: row for row in rows if row.strip()}
    recorded = [line for line in (RECORDED / "watch.txt").read_text().splitlines() if _WATCHED.match(line)]
    assert len(recorded) == 11
    for line in recorded:
        cells = _WATCHED.match(line)
        assert cells is not None
        name, status, *others = cells.groups()
        assert [
            said for said in (f" {status} ", *(f" {other} " for other in others)) if said not in f"{now[name]} "
        ] == []
