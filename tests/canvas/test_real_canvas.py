"""The real Agent Canvas under ``openhands-otel run``: its spend is what its provider charged, and is there at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from compat import acp_stub
from playwright.sync_api import expect, sync_playwright
from server.scripts import calling, playing, running
from viewer.conftest import CHROMIUM, FLAGS
from viewer_process import Viewer, wait_for

from openhands_otel._internal.demo.answers import Answer, LLMRequest
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel.stats import ConversationStats

from .agent_canvas import ANSWER_S, ROOT, AgentCanvas
from .conftest import PATIENCE_S

pytestmark = pytest.mark.timeout(PATIENCE_S)

EXACT = 1e-9


def of(viewer: Viewer, conversation: str) -> ConversationStats | None:
    wanted = conversation.replace("-", "")
    found = (one for one in viewer.state().conversations if one.conversation_id.replace("-", "") == wanted)
    return next(found, None)


def settled(viewer: Viewer, provider: LLMServer, extra: float = 0.0) -> None:
    """The viewer has what was charged, to 1e-9."""

    def equal() -> bool:
        return abs(viewer.state().totals.accumulated_cost - provider.bill.total - extra) <= EXACT

    wait_for(equal, "the bill in the viewer", ANSWER_S)


def test_a_cost_is_there_before_the_tool_behind_it_ends(
    canvas: AgentCanvas, viewer: Viewer, provider: LLMServer, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    provider.script("waits", playing(running(f"while [ ! -e {go} ]; do sleep 0.05; done; echo gone")))
    conversation = canvas.start("[[script:waits]] wait for it", tmp_path / "work")
    wait_for(lambda: (one := of(viewer, conversation)) and one.activity == "terminal", "the tool", ANSWER_S)
    # The tool runs until we say so: the first answer is charged, and nothing else.
    settled(viewer, provider)
    assert provider.bill.total > 0
    assert canvas.status(conversation) == "running"
    go.touch()
    canvas.finish(conversation)
    settled(viewer, provider)


def test_titles_and_sub_agents_are_in_the_bill(
    canvas: AgentCanvas, viewer: Viewer, provider: LLMServer, tmp_path: Path
) -> None:
    titled = threading.Event()
    plays = playing(
        calling("task", prompt="[[script:helps]] look", subagent_type="general-purpose", description="look")
    )

    def answer(request: LLMRequest) -> Answer:
        if not request.body.get("tools"):
            titled.set()
        return plays(request) if callable(plays) else plays[0]

    provider.script("leads", answer)
    provider.script("helps", playing(running("true")))
    conversation = canvas.start("[[script:leads]] delegate", tmp_path / "work", autotitle=True)
    canvas.finish(conversation)
    wait_for(titled.is_set, "a title", ANSWER_S)
    settled(viewer, provider)
    assert [charge for charge in provider.bill.entries if charge.script == "helps"]
    roles = {cost.role for one in viewer.state().conversations for cost in one.costs}
    assert "title" in roles
    parent = of(viewer, conversation)
    assert parent is not None
    assert parent.descendants == 1
    # Canvas shows one, and nobody has allowed content.
    assert parent.title is None


def test_what_an_acp_agent_reports_is_in_it(
    canvas: AgentCanvas, viewer: Viewer, provider: LLMServer, tmp_path: Path
) -> None:
    script = tmp_path / "turns.json"
    script.write_text(
        json.dumps([{"input": 900, "output": 30, "cost": 0.0125}, {"input": 10, "output": 1, "cost": 0.02}])
    )
    command = [sys.executable, acp_stub.__file__, str(script)]
    conversation = canvas.start(
        "hello",
        tmp_path / "work",
        agent_kind="acp",
        acp_server="claude-code",
        acp_command=command,
        acp_model="claude-sonnet-5",
    )
    canvas.finish(conversation)
    settled(viewer, provider, 0.0125)
    canvas.say(conversation, "again")
    settled(viewer, provider, 0.02)
    one = of(viewer, conversation)
    assert one is not None
    assert one.accumulated_cost == pytest.approx(0.02, abs=EXACT)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: apt-get install chromium)")
def test_the_page_inside_canvas_shows_the_bill(
    canvas: AgentCanvas, viewer: Viewer, provider: LLMServer, tmp_path: Path
) -> None:
    """``TEST_PICTURES`` has it take the picture of docs/canvas.md."""
    conversation = canvas.start("[[script:default]] hello", tmp_path / "work")
    canvas.finish(conversation)
    done = subprocess.run(
        [sys.executable, "-m", "openhands_otel", "canvas", "install", canvas.url],
        env=os.environ | {"HOME": str(canvas.home), "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=ANSWER_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    wait_for(lambda: (one := of(viewer, conversation)) and one.llm_calls == 1, "its cost in the viewer", ANSWER_S)
    total = viewer.state().totals.accumulated_cost
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.add_init_script(
            f"localStorage['openhands-onboarded'] = 'true'; localStorage['openhands-otel-viewer'] = '{viewer.url}'"
        )
        page.goto(f"{canvas.url}/")
        consent = page.get_by_role("button", name="Confirm")
        link = page.get_by_role("link", name="Spend")
        expect(consent.or_(link).first).to_be_visible(timeout=60_000)
        if consent.is_visible():
            consent.click()
        link.click(timeout=60_000)
        shown = page.locator(".total")
        expect(shown).to_have_attribute("data-value", str(total), timeout=60_000)
        rows = "table:has(caption:text-is('Spend by conversation'))"
        expect(page.locator(f"{rows} tfoot .dollars")).to_have_attribute("data-value", str(total))
        if os.environ.get("TEST_PICTURES"):
            page.screenshot(path=ROOT / "docs" / "images" / "canvas.png")
        browser.close()
