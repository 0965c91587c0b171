"""examples/remote_agent_server, run as its README says, against the scripted provider."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from viewer_process import Viewer, wait_for

from openhands_otel._internal.demo.llm_server import LLMServer

from .agent_server import PYTHON, AgentServer, RemoteClient, environment, script
from .scripts import playing, running

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "remote_agent_server"
WAIT_S = 300


def as_its_readme_says(viewer: Viewer) -> tuple[dict[str, str], list[str]]:
    """Variables and words of the command that has the client's own stats live."""
    lines = (EXAMPLE / "README.md").read_text().splitlines()
    (line,) = (line for line in lines if "OPENHANDS_OTEL_REMOTE_STATS=" in line)
    variable, *words = shlex.split(line.replace("http://127.0.0.1:4318", viewer.url))
    name, _, value = variable.partition("=")
    here = {"openhands-otel": script("openhands-otel"), "python": PYTHON}
    return {name: value}, [here.get(word, word) for word in words]


def test_the_example_shows_its_cost_while_it_runs_and_a_viewer_agrees(
    server: AgentServer,
    client: RemoteClient,
    viewer: Viewer,
    token_file: Path,
    llm_server: LLMServer,
    tmp_path: Path,
) -> None:
    if not client.waits_for_runs():
        pytest.skip("RemoteConversation.run of this release does not wait for the end")
    variables, command = as_its_readme_says(viewer)
    llm_server.script("example", playing(running("ls"), running("sleep 2")))
    model = {"LLM_API_KEY": "x", "LLM_BASE_URL": llm_server.base_url("example")}
    # The README's server stands on its default port, without a token.
    elsewhere = {"OPENHANDS_OTEL_TOKEN_FILE": str(token_file)}
    done = subprocess.run(
        [*command, "--host", server.url],
        cwd=EXAMPLE,
        env=environment(tmp_path, **variables, **model, **elsewhere),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    shown = [float(cost) for cost in re.findall(r"^so far \$([\d.]+)$", done.stdout, re.MULTILINE)]
    assert len(set(shown)) >= 2, "it rose before the end"
    assert shown == sorted(shown)
    bill = llm_server.bill.total
    assert shown[-1] == pytest.approx(bill, abs=1e-6)

    conversation = done.stdout.partition("conversation ")[2].split()[0]

    def agrees() -> bool:
        found = {stats.conversation_id: stats.accumulated_cost for stats in viewer.state().conversations}
        return found.get(conversation) == pytest.approx(bill, abs=1e-9)

    wait_for(agrees, "the bill at the viewer", WAIT_S)
