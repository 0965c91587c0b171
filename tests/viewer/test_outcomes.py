"""Fault of the kind *what comes later overwrites what was found out*: an ending is no result, and takes none back.

How the last run of a conversation ended, with the class of its error, stays with it for good: over its closing, the end
of its series, other processes that take it up, a restart of the viewer. Only another run supersedes it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from telemetry.pipes import closed, opened, origin, pipeline, put, response, run_started
from viewer_process import Viewer, running_viewer, start_viewer

from openhands_otel import events
from openhands_otel._internal.process.pipeline import Pipeline
from openhands_otel.client import StatsClient, StatsError
from openhands_otel.events import Event
from openhands_otel.semconv import RunOutcome, Status

from .test_page import chip, page, pytestmark  # noqa: F401

HOW = {
    RunOutcome.ERROR: (150, Status.ERROR, "RateLimitError"),
    RunOutcome.STUCK: (18, Status.STUCK, None),
    RunOutcome.BUDGET: (20, Status.ERROR, "MaxBudgetReached"),
    RunOutcome.ITERATIONS: (12, Status.ERROR, "MaxIterationsReached"),
    RunOutcome.FINISHED: (100, Status.FINISHED, None),
}
"""Of 300 conversations, so many ended so, with this status and error: 168 have failed."""
FAILED = 168


def ended(conversation: str, outcome: RunOutcome) -> Event:
    _, status, error = HOW[outcome]
    return events.RunEnded(time.time_ns(), conversation, status, None, outcome, error)


def life(conversation: str, outcome: RunOutcome) -> Iterator[Event]:
    yield opened(conversation)
    yield run_started(conversation)
    yield from response(origin(conversation), 0.01)
    yield ended(conversation, outcome)
    yield closed(conversation)


def sending_to(viewer: Viewer) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{viewer.url}/v1/metrics"}


def flushed(target: Pipeline, each: Iterable[Event]) -> None:
    put(target, *each)
    assert target.flush(200)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    """A viewer that has seen 300 conversations end and close, and was started again since."""
    database = tmp_path_factory.mktemp("outcomes") / "history.db"
    viewer = start_viewer(database=database)
    with pipeline(sending_to(viewer)) as agent:
        for outcome, (number, _, _) in HOW.items():
            flushed(agent, (event for n in range(number) for event in life(f"{outcome.value}-{n}", outcome)))
    assert viewer.stop() == 0
    with running_viewer(database=database) as viewer:
        yield viewer


def test_the_api_says_how_each_of_300_closed_conversations_ended(crowd: Viewer) -> None:
    with StatsClient(crowd.url) as client:
        everybody = client.conversations()
        assert len(everybody) == 300
        assert all(stats.closed for stats in everybody)
        for outcome, (number, _, error) in HOW.items():
            found = client.conversations(outcome)
            assert {(stats.outcome, stats.error_type) for stats in found} == {(outcome, error)}
            assert len(found) == number
        assert sum(stats.outcome in ("error", "stuck") for stats in client.state().conversations) == FAILED
    refused = crowd.http.get("/api/v1/conversations?outcome=failed")
    assert refused.status_code == 400
    assert "error, stuck" in refused.json()["message"]
    with pytest.raises(StatsError):
        StatsClient(crowd.url).conversations("failed")


def test_watch_says_it(crowd: Viewer) -> None:
    command = [sys.executable, "-m", "openhands_otel", "watch", crowd.url, "--once"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "160"})
    rows = [line for line in shown.stdout.splitlines() if "closed" in line]
    assert len(rows) == 300
    assert sum("closed, error" in row or "closed, stuck" in row for row in rows) == FAILED
    assert sum("closed, over budget" in row for row in rows) == 20
    assert f"{FAILED} failed" in shown.stdout
    assert sum("RateLimitError" in row for row in rows) == 150


def test_the_page_says_it_and_shows_those_that_are_asked_for(crowd: Viewer, page: Page) -> None:  # noqa: F811
    page.goto(crowd.url)
    expect(chip(page, "ended")).to_have_text("ended300")
    expect(chip(page, "failed")).to_have_text("failed150")
    expect(chip(page, "stuck")).to_have_text("stuck18")
    expect(chip(page, "budget")).to_have_text("budget32")
    summed = page.locator(".rows tfoot th").first
    expect(summed).to_have_text("300 conversations")
    page.locator("#outcome").select_option("stuck")
    expect(summed).to_have_text("18 conversations")
    shown = page.locator("tr.conversation")
    expect(shown).to_have_count(18)
    expect(shown.first.locator(".status")).to_have_text("closed, stuck")
    expect(shown.first.locator(".status")).to_have_attribute("data-tone", "bad")
    page.locator("#outcome").select_option("budget")
    expect(summed).to_have_text("20 conversations")
    expect(shown.first).to_contain_text("closed, over budget")
    expect(shown.first.locator(".status")).to_have_attribute("title", "MaxBudgetReached")
    page.locator("#outcome").select_option("")
    page.locator("#filter").fill("ratelimiterror")
    expect(summed).to_have_text("150 conversations")
    page.locator("#as [data-as=cards]").click()
    expect(page.locator("article.card").first).to_contain_text("the last run ended with RateLimitError")


def test_another_run_supersedes_it_and_nothing_else_does(tmp_path: Path) -> None:
    """Over two processes and a restart: what the newest run came to, and nothing while it is under way."""
    database = tmp_path / "history.db"
    viewer = start_viewer(database=database)
    try:
        with pipeline(sending_to(viewer)) as first, pipeline(sending_to(viewer)) as second:
            steps: list[tuple[Pipeline, list[Event], tuple[str | None, str | None, bool]]] = [
                (first, [opened("c"), *response(origin("c")), run_started("c")], (None, None, False)),
                (first, [ended("c", RunOutcome.ERROR)], ("error", "RateLimitError", False)),
                (first, [closed("c")], ("error", "RateLimitError", True)),
                (second, [opened("c"), *response(origin("c"))], ("error", "RateLimitError", False)),
                (second, [run_started("c")], (None, None, False)),
                (second, [ended("c", RunOutcome.BUDGET)], ("budget", "MaxBudgetReached", False)),
                (second, [run_started("c")], (None, None, False)),
                (second, [ended("c", RunOutcome.FINISHED)], ("finished", None, False)),
                (second, [run_started("c")], (None, None, False)),
                # Closed in the middle: of that run there is no result, and the one before is not its.
                (second, [closed("c")], (None, None, True)),
                (first, [opened("c"), run_started("c"), ended("c", RunOutcome.STUCK)], ("stuck", None, False)),
                (first, [closed("c")], ("stuck", None, True)),
            ]
            for number, (target, each, expected) in enumerate(steps):
                flushed(target, each)
                (stats,) = viewer.state().conversations
                assert (stats.outcome, stats.error_type, stats.closed) == expected, number
        assert viewer.stop() == 0
        viewer = start_viewer(database=database)
        (stats,) = viewer.state().conversations
        assert (stats.outcome, stats.closed) == ("stuck", True)
    finally:
        if viewer.process.poll() is None:
            viewer.stop()
