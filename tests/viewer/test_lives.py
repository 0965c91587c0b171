"""In a real browser: a dead process is shown as gone, one that said farewell as ended, and a page logs in once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from collector.test_connections import in_this_process
from playwright.sync_api import Browser, Page, expect
from viewer_process import PROTOBUF, Viewer, running_viewer

from openhands_otel._internal.host.state_folder import own_token
from otlp_sender import Sender

from .test_page import card, cards, page, pytestmark  # noqa: F401

PROCESS = """
import sys
from telemetry.pipes import opened, origin, pipeline, put, response, run_started
with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": sys.argv[1]}) as pipe:
    for name in sys.argv[2:]:
        put(pipe, opened(name), run_started(name), *response(origin(name), 0.25))
    assert pipe.flush(50)
    print("sent", flush=True)
    sys.stdin.read()
"""


@contextmanager
def process(viewer: Viewer, *conversations: str) -> Iterator[subprocess.Popen[str]]:
    """A process with open conversations, on its way until its standard input is closed."""
    command = [sys.executable, "-c", PROCESS, viewer.url, *conversations]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    ) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "sent\n"
            yield running
        finally:
            running.kill()


def test_the_page_tells_the_dead_from_those_that_said_farewell(page: Page) -> None:  # noqa: F811
    """Kind: a death that is seen late: "running" for two and a half minutes beside "waiting for the model"."""
    with running_viewer() as viewer, process(viewer, "dies") as dies, process(viewer, "leaves") as leaves:
        page.goto(cards(viewer))
        for name in ("dies", "leaves"):
            expect(card(page, name).locator(".status")).to_have_text("running")
        dies.send_signal(signal.SIGKILL)
        expect(card(page, "dies").locator(".status")).to_have_text("its process is gone")
        expect(card(page, "dies").locator(".what")).to_have_text("nothing right now")
        assert leaves.stdin is not None
        leaves.stdin.close()
        expect(card(page, "leaves").locator(".status")).to_have_text("its process ended")
        # What they spent stays, and so they do after a reload.
        page.reload()
        for name, status in (("dies", "its process is gone"), ("leaves", "its process ended")):
            expect(card(page, name).locator(".status")).to_have_text(status)
            expect(card(page, name).locator(".cost")).to_have_text("$0.2500")
        with process(viewer, "dies"):
            expect(card(page, "dies").locator(".status")).to_have_text("running")


def test_an_address_that_logs_in_once_does_so_wherever_it_is_opened(
    browser: Browser,
    page: Page,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on macOS and Windows, where nobody can tell whose browser it is."""
    monkeypatch.setattr(
        "openhands_otel._internal.collector.receive.connections.owner_of_peer", lambda here, there: None
    )
    monkeypatch.setattr("openhands_otel._internal.host.state_folder.tells_owners", lambda: False)
    with in_this_process() as collector:
        token, address = own_token(), f"{collector.url}/#login={collector.login_code}"
        assert token is not None
        sent = httpx.post(
            f"{collector.url}/v1/metrics",
            content=Sender("p").spend(0.5).body(),
            headers={**PROTOBUF, "authorization": f"Bearer {token}"},
            trust_env=False,
        )
        assert sent.status_code == 200
        # A tab that has been open and asks for the token already: the new address changes nothing but what is behind #.
        page.goto(collector.url)
        expect(page.locator("#token-dialog")).to_be_visible()
        page.goto(address)
        expect(page.locator("#total")).to_have_text("$0.5000")
        expect(page.locator("#token-dialog")).to_be_hidden()
        assert "login" not in page.url
        page.reload()
        expect(page.locator("#total")).to_have_text("$0.5000")
        # It was good for once, and says what to do.
        other = browser.new_page()
        other.goto(address)
        expect(other.locator("#token-error")).to_contain_text("used before")
        other.locator("#token").fill(token)
        other.locator("#token-form button").click()
        expect(other.locator("#total")).to_have_text("$0.5000")
        other.close()
