"""Canvas with an agent server that runs the viewer: by the server's own Python, and again when Canvas is opened."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright
from viewer.conftest import CHROMIUM, FLAGS
from viewer_process import PROTOBUF, wait_for

from otlp_sender import Sender

from .agent_canvas import ANSWER_S, Tools, agent_canvas
from .conftest import PATIENCE_S

pytestmark = pytest.mark.timeout(2 * PATIENCE_S)

SERVER = "1.58.2"
OVERRIDE = "agent-client-protocol>=0.11"
"""Canvas 1.20.0 asks for an older one, with which this server does not work."""
VIEWER = "http://127.0.0.1:4318"


def listens(port: int) -> bool:
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0


def said(home: Path, *words: str, **variables: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "openhands_otel", "canvas", *words],
        env=os.environ | {"HOME": str(home), **variables},
        capture_output=True,
        text=True,
        timeout=ANSWER_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: apt-get install chromium)")
@pytest.mark.skipif(listens(4318) or listens(4317), reason="a viewer runs here already")
def test_the_servers_python_runs_the_viewer_and_to_open_canvas_starts_it_again(
    tools: Tools, tmp_path: Path, port: int
) -> None:
    home, folder, override = tmp_path / "home", tmp_path / "extension", tmp_path / "override.txt"
    override.write_text(OVERRIDE)
    newer = {"OH_AGENT_SERVER_VERSION": SERVER, "UV_OVERRIDE": str(override), "UV_CONSTRAINT": ""}
    said(home, "write", str(folder), "--viewer", OPENHANDS_OTEL_VIEWER_ORIGINS=f"http://127.0.0.1:{port}")
    with agent_canvas(tools, home, port, **newer) as canvas:
        last = said(home, "install", canvas.url, "--source", str(folder))[-1]
        assert last.startswith("the agent server runs the viewer now")
        backend = canvas.ask("GET", "/api/canvas-extensions/installed/openhands-otel/backend")
        python = Path(f"/proc/{backend['pid']}/cmdline").read_bytes().split(b"\0")[0].decode()
        assert "openhands_otel" not in subprocess.run(
            [python, "-c", "from importlib.metadata import distributions; print([d.name for d in distributions()])"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.replace("-", "_")
        body = Sender("p").spend(0.25).converse("c-1", 0.25).body()
        httpx.post(f"{VIEWER}/v1/metrics", content=body, headers=PROTOBUF, trust_env=False).raise_for_status()
    wait_for(lambda: not listens(4318), "the viewer's end with its server's", ANSWER_S)
    with agent_canvas(tools, home, port, **newer) as canvas, sync_playwright() as playwright:
        assert not listens(4318)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.add_init_script("localStorage['openhands-onboarded'] = 'true'")
        page.goto(f"{canvas.url}/")
        wait_for(lambda: page.wait_for_timeout(100) or listens(4318), "a viewer", ANSWER_S)
        page.goto(f"{canvas.url}/extensions/openhands-otel/spend")
        consent = page.get_by_role("button", name="Confirm")
        total = page.locator(".total")
        expect(consent.or_(total).first).to_be_visible(timeout=60_000)
        if consent.is_visible():
            consent.click()
        expect(total).to_have_attribute("data-value", "0.25", timeout=60_000)
        browser.close()
        said(home, "uninstall", canvas.url)
        assert not listens(4318)
