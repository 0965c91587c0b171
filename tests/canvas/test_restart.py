"""Canvas started again, with us and without: the bill goes on, and the agent's tools see the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from server.scripts import playing, running
from viewer_process import Viewer, wait_for

from openhands_otel._internal.demo.llm_server import LLMServer

from .agent_canvas import ANSWER_S, AgentCanvas, Tools, agent_canvas
from .conftest import PATIENCE_S, with_us
from .test_real_canvas import settled

pytestmark = pytest.mark.timeout(2 * PATIENCE_S)

OWN_TO_EACH_START = ("TMUX",)
"""Variables whose value is another one in each shell that OpenHands starts."""
LOOK = (
    "env > {0}/env; python3 -m pip list > {0}/pip 2>&1; "
    "python3 -c 'import importlib.metadata as m, sys; "
    "print(sys.path, sorted(sys.modules), sorted(d.name for d in m.distributions()))' > {0}/python; touch {0}/done"
)


def seen(folder: Path) -> tuple[dict[str, str], str, str]:
    """What a tool saw: its environment, pip's list, a Python's path and modules."""
    lines = (folder / "env").read_text().splitlines()
    variables = dict(line.split("=", 1) for line in lines if "=" in line)
    kept = {name: value for name, value in variables.items() if not name.startswith(OWN_TO_EACH_START)}
    return kept, (folder / "pip").read_text(), (folder / "python").read_text()


def look(canvas: AgentCanvas, provider: LLMServer, folder: Path, work: Path, conversation: str | None = None) -> str:
    """Have a tool look around, in a new conversation or one that goes on."""
    folder.mkdir()
    provider.script("looks", playing(running(LOOK.format(folder))))
    if conversation is None:
        conversation = canvas.start("[[script:looks]] look around", work)
    else:
        canvas.say(conversation, "look around again")
    wait_for(lambda: (folder / "done").exists(), "a look", ANSWER_S)
    canvas.finish(conversation)
    return conversation


def test_a_conversation_goes_on_after_a_restart_and_tools_see_nothing_of_us(
    tools: Tools, viewer: Viewer, provider: LLMServer, tmp_path: Path, port: int
) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    before = viewer.state().totals.accumulated_cost - provider.bill.total
    with agent_canvas(tools, home, port, with_us(viewer)) as canvas:
        canvas.use(provider.base_url())
        conversation = look(canvas, provider, tmp_path / "first", work)
        settled(viewer, provider, before)
    with agent_canvas(tools, home, port, with_us(viewer)) as canvas:
        look(canvas, provider, tmp_path / "second", work, conversation)
        settled(viewer, provider, before)
    with_us_spent = viewer.state().totals.accumulated_cost
    with agent_canvas(tools, home, port) as canvas:
        look(canvas, provider, tmp_path / "without", work)
    assert viewer.state().totals.accumulated_cost == with_us_spent
    without = seen(tmp_path / "without")
    assert "PATH" in without[0]
    assert "openhands-sdk" in without[2]
    assert seen(tmp_path / "first") == without
    assert seen(tmp_path / "second") == without
