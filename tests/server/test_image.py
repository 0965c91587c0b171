"""The image recipe in examples/remote_agent_server: its commands are run as they stand, only outside of a container."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from viewer_process import running_viewer, wait_for

from openhands_otel._internal.demo.llm_server import LLMServer

from .agent_server import AgentServer, RemoteClient, agent_server
from .scripts import playing, running

ROOT = Path(__file__).resolve().parent.parent.parent
DOCKERFILE = ROOT / "examples" / "remote_agent_server" / "Dockerfile"
INSTALL_S = 900
WAIT_S = 60


def instructions() -> list[tuple[str, str]]:
    """(instruction, rest) in the order of the file, lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def one(instruction: str) -> str:
    (rest,) = (rest for word, rest in instructions() if word == instruction)
    return rest


def test_it_is_for_the_release_that_is_tested() -> None:
    arguments = dict(rest.split("=", 1) for word, rest in instructions() if word == "ARG")
    release = version("openhands-agent-server")
    assert arguments["RELEASE"] == release
    assert arguments["BASE"] == f"ghcr.io/openhands/agent-server:{release}-python"


def test_what_it_copies_is_there() -> None:
    copied = [rest.split()[1:-1] for word, rest in instructions() if word == "COPY" and "--from" not in rest]
    assert all((ROOT / name).exists() for names in copied for name in names)


@pytest.mark.timeout(INSTALL_S + 120)
def test_its_commands_make_a_server_whose_spend_is_seen(
    client: RemoteClient, llm_server: LLMServer, tmp_path: Path
) -> None:
    if os.environ.get("TEST_IMAGE") != "1":
        pytest.skip("make test-compat does this: installing an agent server takes minutes where nothing is cached")
    places = str(Path(shutil.which("uv") or ROOT / ".cache" / "uv" / "bin" / "uv").parent)
    environment = os.environ | {
        "RELEASE": version("openhands-agent-server"),
        "PYTHON": sys.executable,
        "PATH": f"{places}{os.pathsep}{os.environ['PATH']}",
    }
    subprocess.run(["sh", "-ec", here(one("RUN"), tmp_path)], env=environment, check=True, timeout=INSTALL_S)
    tini, dashes, *entry = json.loads(here(one("ENTRYPOINT"), tmp_path))
    assert (tini, dashes) == ("tini", "--")
    llm_server.script("main", playing(running("echo one")))
    served = tmp_path / "served"
    served.mkdir()

    with (
        running_viewer() as viewer,
        agent_server(lambda words: [*entry, *words[2:]], served, OTEL_EXPORTER_OTLP_ENDPOINT=viewer.url) as server,
    ):
        converse(client, server, llm_server)
        wait_for(
            lambda: viewer.state().totals.accumulated_cost == pytest.approx(llm_server.bill.total, abs=1e-9),
            "the bill at the viewer",
            WAIT_S,
        )


def here(text: str, directory: Path) -> str:
    return text.replace("/home/openhands", str(directory)).replace("/tmp/openhands-otel", str(ROOT))


def converse(client: RemoteClient, server: AgentServer, llm_server: LLMServer) -> None:
    conversation = client.open(host=server.url, provider=llm_server.base_url("main"), tools=("terminal",))
    client.run(conversation=conversation, text="hello")
