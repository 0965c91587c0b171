"""The image of examples/remote_agent_server, built as it stands and started by OpenHands' own DockerWorkspace.

Rule: what the provider billed is what the viewer shows, and the agent's tools see nothing of us. Podman plays Docker;
what the recipe takes from registries is made of Debian's packages, what it takes from the package index is real.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from server.agent_server import environment
from server.scripts import look_around
from viewer_process import running_viewer, wait_for

from openhands_otel._internal.demo.llm_server import LLMServer

from . import debian
from .engine import LOADING_S, Podman

IMAGE = "localhost/agent-server-otel"
TOKEN = "planted-token-4712"
CLIENT = Path(__file__).parent / "programs" / "docker_workspace.py"
RUN_S, ARRIVAL_S = 400, 60
# No limit can be raised here, and DockerWorkspace asks for one.
DOCKER = """\
#!/bin/sh
for word; do
    shift
    case $word in --ulimit) dropped=1 ;; nofile=*) ;; *) set -- "$@" "$word" ;; esac
done
exec podman "$@"
"""


@pytest.fixture(scope="module")
def image(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> str:
    if os.environ.get("TEST_COMPOSE") != "full":
        pytest.skip("TEST_COMPOSE=full make test-compose does this: building an image takes minutes")
    if reason := debian.missing():
        pytest.skip(f"no image can be built here: {reason}")
    try:
        debian.make_bases(podman, tmp_path_factory.mktemp("image"))
    except OSError as error:
        pytest.skip(f"no image can be built here: {error}")
    # Whoever asks for the whole has an index: what fails now is the recipe.
    debian.build_agent_server(podman, IMAGE)
    return IMAGE


@pytest.mark.timeout(2 * LOADING_S + RUN_S)
def test_the_spend_of_a_docker_workspace_is_its_bill_and_its_tools_see_nothing(
    podman: Podman, image: str, llm_server: LLMServer, tmp_path: Path
) -> None:
    asked = look_around(llm_server)
    shim, token = tmp_path / "bin" / "docker", tmp_path / "token"
    shim.parent.mkdir()
    shim.write_text(DOCKER)
    shim.chmod(0o755)
    token.write_text(TOKEN)
    with running_viewer(token=TOKEN) as viewer:
        handed_on = {
            "OPENHANDS_OTEL_TOKEN_FILE": "/run/token",
            # The general one would start OpenHands' own tracing in the client as well.
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{viewer.url}/v1/metrics",
            "OTEL_SERVICE_NAME": "in-docker",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=tests",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        }
        variables = podman.environment | handed_on
        variables["PATH"] = f"{shim.parent}{os.pathsep}{variables['PATH']}"
        words = [sys.executable, str(CLIENT), image, llm_server.base_url("main"), str(token), *handed_on]
        done = subprocess.run(
            words,
            cwd=tmp_path,
            env=environment(tmp_path, **variables),
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        wait_for(
            lambda: viewer.state().totals.accumulated_cost == pytest.approx(llm_server.bill.total, abs=1e-9),
            "the bill at the viewer",
            ARRIVAL_S,
        )
        services = {conversation.service for conversation in viewer.state().conversations}
    assert llm_server.bill.total > 0
    assert services == {"in-docker"}
    assert any("named ''" in request for request in asked)
    assert not any(TOKEN in request or "_OPENHANDS_OTEL" in request for request in asked)
