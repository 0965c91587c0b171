"""A bundle as the OpenTelemetry Operator's image for Python: copied as it copies, named as it names it in PYTHONPATH.

What it does to a pod is in its internal/instrumentation/python.go and sdk.go; here Podman plays the pod.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from server.agent_server import START_S, RemoteClient, free_port, remote_client
from server.scripts import look_around
from viewer_process import running_viewer, wait_for

from deploy.native.stack import ROOT
from openhands_otel._internal.demo.llm_server import LLMServer

from . import images, machine
from .engine import Podman

IMAGE = "localhost/openhands-otel-autoinstrumentation"
MOUNTED = "/otel-auto-instrumentation-python"
PREFIX = f"{MOUNTED}/opentelemetry/instrumentation/auto_instrumentation"
WAIT_S = 60.0


@pytest.fixture(scope="module")
def volume(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The volume that the init container has filled."""
    bundle = tmp_path_factory.mktemp("image") / "autoinstrumentation"
    command = Path(sys.executable).with_name("openhands-otel")
    subprocess.run([str(command), "bundle", str(bundle)], check=True, capture_output=True)
    recipe = ("--file", str(ROOT / "deploy" / "kubernetes" / "Dockerfile"), "--build-arg", f"BASE={images.BUSYBOX}")
    podman("build", "--quiet", *recipe, "--tag", IMAGE, str(bundle))
    mounted = ("--volume", f"opentelemetry-auto-instrumentation-python:{MOUNTED}")
    podman("run", "--rm", *mounted, IMAGE, "cp", "-r", "/autoinstrumentation/.", MOUNTED)
    return "opentelemetry-auto-instrumentation-python"


@pytest.fixture(scope="module")
def python(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment that has OpenHands, and nothing of us."""
    machine.build(podman, tmp_path_factory.mktemp("machine"))
    return machine.environment_without_us(tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[RemoteClient]:
    directory = tmp_path / "client"
    directory.mkdir()
    with remote_client(directory) as client:
        yield client


def injected(endpoint: str, theirs: str = "") -> dict[str, str]:
    """The variables that the Operator puts into a container."""
    path = f"{PREFIX}:{theirs}:{MOUNTED}" if theirs else f"{PREFIX}:{MOUNTED}"
    attributes = "k8s.container.name=agent-server,k8s.deployment.name=agents,k8s.namespace.name=default"
    return {
        "PYTHONPATH": path,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_SERVICE_NAME": "agents",
        "OTEL_RESOURCE_ATTRIBUTES": attributes,
    }


def options(python: Path, volume: str, variables: dict[str, str]) -> list[str]:
    given = [option for name, value in variables.items() for option in ("--env", f"{name}={value}")]
    return [*machine.mounts(python.parents[1]), "--volume", f"{volume}:{MOUNTED}", *given]


@contextmanager
def agent_server(podman: Podman, python: Path, volume: str, variables: dict[str, str]) -> Iterator[str]:
    """A container with a server in it, on this process' network; its address."""
    port = free_port()
    quiet = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OPENHANDS_SUPPRESS_BANNER": "1",
        "OH_ENABLE_VSCODE": "false",
        "OH_PRELOAD_TOOLS": "false",
    }
    words = [str(python), "-m", "openhands.agent_server", "--host", "127.0.0.1", "--port", str(port)]
    started = ("run", "--detach", "--network", "host", "--workdir", "/home", "--name", "agent-server")
    podman(*started, *options(python, volume, quiet | variables), machine.IMAGE, *words)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: healthy(url), "the server", START_S)
        yield url
    finally:
        # As a pod is ended: SIGTERM first.
        podman("stop", "--time", "30", "agent-server")
        print(podman.logs("agent-server")[-2000:])
        podman("rm", "agent-server")


def healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).is_success
    except httpx.TransportError:
        time.sleep(0.1)
        return False


@pytest.mark.timeout(300)
def test_an_agent_server_s_spend_is_its_bill_and_its_tools_see_nothing(
    podman: Podman, python: Path, volume: str, client: RemoteClient, llm_server: LLMServer, tmp_path: Path
) -> None:
    asked = look_around(llm_server)
    with running_viewer() as viewer, agent_server(podman, python, volume, injected(viewer.url)) as url:
        conversation = client.open(host=url, provider=llm_server.base_url("main"), tools=("terminal",))
        client.run(conversation=conversation, text="hello")
        wait_for(
            lambda: viewer.state().totals.accumulated_cost == pytest.approx(llm_server.bill.total, abs=1e-9),
            "the bill at the viewer",
            WAIT_S,
        )
    assert llm_server.bill.total > 0
    assert any("named ''" in request for request in asked)
    assert not any(MOUNTED in request or "OPENHANDS_OTEL" in request for request in asked)


ASKS = """
import os, sys
import opentelemetry.instrumentation.auto_instrumentation as theirs
print(sys.path, os.environ.get("PYTHONPATH"), theirs.__file__)
"""


@pytest.mark.parametrize("theirs", ["", "/home/theirs"])
def test_a_python_finds_what_it_found_without_us(podman: Podman, python: Path, volume: str, theirs: str) -> None:
    def asked(variables: dict[str, str]) -> str:
        given = options(python, volume, variables)
        return podman("run", "--rm", "--network", "none", *given, machine.IMAGE, str(python), "-c", ASKS)

    with_us = asked(injected("http://127.0.0.1:9", theirs))
    named = f"{MOUNTED}/site"
    assert with_us.replace(f"{named}:{theirs}" if theirs else named, theirs or "None") == asked(
        {"PYTHONPATH": theirs} if theirs else {}
    )
