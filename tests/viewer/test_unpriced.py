"""Kind of fault: a model without a price is nowhere by name, and looks free.

Model, provider and calls come from the calls and not from the cost rows: in the API, on the page (totals and card), in
``watch``, of an agent's own pipeline.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect
from telemetry.pipes import call, opened, origin, pipeline, put
from viewer_process import Viewer, running_viewer, wait_for

from openhands_otel import events, semconv
from openhands_otel.client import StatsClient
from openhands_otel.events import Origin
from openhands_otel.semconv import Role
from otlp_sender import Sender
from viewer.conftest import CHROMIUM
from viewer.test_page import cards


def unpriced(whose: Origin) -> Iterator[events.Event]:
    now = time.time_ns()
    yield events.TokensUsed(now, whose, 100, 10, 0, 0, 0, 128_000, "r")
    yield events.LatencyRecorded(now, whose, 0.1, "r")
    yield events.ResponseRecorded(now, whose, False, None)


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer, pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": viewer.url}) as pipe:
        for name in ("own-only", "both-aaa"):
            put(pipe, opened(name), *unpriced(origin(name, "my-own-model", provider="vllm", role=Role.AGENT)))
        put(pipe, *unpriced(origin("both-aaa", "my-own-model", provider="vllm", role=Role.CONDENSER)))
        put(pipe, *call(origin("both-aaa", "gpt-4o"), 0.5))
        assert pipe.flush(50)
        yield viewer


def test_the_api_knows_model_provider_and_calls(viewer: Viewer) -> None:
    with StatsClient(viewer.url) as client:
        own, both = client.conversation("own-only"), client.conversation("both-aaa")
        totals = client.totals()
    assert (own.model_name, own.provider_name, own.llm_calls, own.unpriced_calls) == ("my-own-model", "vllm", 1, 1)
    assert own.costs == ()
    assert {usage.model_name for usage in own.usage_to_metrics.values()} == {"my-own-model"}
    assert (both.model_name, both.provider_name) == ("gpt-4o", "openai"), "where the money went"
    assert [(part.model, part.provider, part.llm_calls, part.unpriced_calls) for part in both.calls_by_model] == [
        ("my-own-model", "vllm", 2, 2),
        ("gpt-4o", "openai", 1, 0),
    ]
    assert sum(part.llm_calls for part in both.calls_by_model) == both.llm_calls
    for shares, name in ((totals.by_model, "my-own-model"), (totals.by_provider, "vllm")):
        (share,) = (share for share in shares if share.name == name)
        assert (share.llm_calls, share.unpriced_calls) == (3, 3)


def test_watch_shows_its_name_and_that_there_is_no_price(viewer: Viewer) -> None:
    command = [sys.executable, "-m", "openhands_otel", "watch", viewer.url, "--once"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=100).stdout.splitlines()
    (own,) = (line for line in shown if "own-only" in line)
    (both,) = (line for line in shown if "both-aaa" in line)
    assert "my-own-model" in own
    assert "no price" in own
    assert "$0.5000+" in both


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: apt-get install chromium)")
def test_the_page_shows_its_name_and_that_there_is_no_price(viewer: Viewer, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(cards(viewer))
    own = page.locator("article.card[data-conversation='own-only']")
    expect(own.locator(".cost")).to_have_text("no price")
    expect(own.locator(".costs")).to_contain_text("my-own-model · vllmno price")
    both = page.locator("article.card[data-conversation='both-aaa']")
    expect(both.locator(".cost")).to_have_text("$0.5000+")
    expect(both.locator(".costs")).to_contain_text("my-own-model · vllmno price")
    page.locator("#filter").fill("vllm")
    expect(page.locator("article.card")).to_have_count(2)
    page.close()


def test_agents_that_do_not_say_it_are_read_as_before() -> None:
    with running_viewer() as viewer:
        named = {semconv.CONVERSATION_ID: "old"}
        sender = Sender("p").introduce("old").converse("old", 0.25, model="gpt")
        viewer.send(sender.add(semconv.CONVERSATION_CALLS, 3, named).add(semconv.CONVERSATION_UNPRICED, 1, named))
        with StatsClient(viewer.url) as client:
            wait_for(lambda: client.state().conversations, "the conversation")
            stats = client.conversation("old")
    assert (stats.model_name, stats.provider_name, stats.llm_calls, stats.unpriced_calls) == ("gpt", None, 3, 1)
    assert [part.model for part in stats.calls_by_model] == [semconv.UNKNOWN]
