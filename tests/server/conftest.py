"""One viewer, one agent server and one client for all tests here: each takes seconds to start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from viewer_process import Viewer, running_viewer

from openhands_otel._internal.demo.llm_server import LLMServer

from .agent_server import AgentServer, RemoteClient, agent_server, by_run, remote_client

TOKEN = "planted-token-4711"
HEADER_TOKEN = "planted-header-4711"
"""In a variable that OpenHands itself lets tools see; the file wins over it."""
CLIENT_SERVICE = "the-client"


@pytest.fixture(scope="session")
def viewer() -> Iterator[Viewer]:
    """One that wants a token."""
    with running_viewer(token=TOKEN) as viewer:
        yield viewer


@pytest.fixture(scope="session")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    return file


@pytest.fixture(scope="session")
def server(viewer: Viewer, token_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentServer]:
    """``openhands-otel run --token-file token -- python -m openhands.agent_server``."""
    launch = by_run("--endpoint", viewer.url, "--token-file", str(token_file))
    headers = {"OTEL_EXPORTER_OTLP_METRICS_HEADERS": f"authorization=Bearer {HEADER_TOKEN}"}
    with agent_server(launch, tmp_path_factory.mktemp("server"), **headers) as server:
        yield server


@pytest.fixture(scope="session")
def client(viewer: Viewer, token_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteClient]:
    """A client with the bridge on."""
    variables = {
        "WITH_OUR_INSTRUMENTATION": "1",
        "OPENHANDS_OTEL_REMOTE_STATS": viewer.url,
        "OPENHANDS_OTEL_TOKEN_FILE": str(token_file),
        "OTEL_SERVICE_NAME": CLIENT_SERVICE,
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{viewer.url}/v1/metrics",
    }
    with remote_client(tmp_path_factory.mktemp("client"), **variables) as client:
        yield client


Open = Callable[..., str]


@pytest.fixture
def opened(server: AgentServer, client: RemoteClient, llm_server: LLMServer) -> Open:
    """Open a conversation on the server: ``opened(script, tools=[...])``; returns its id."""

    def open_one(script: str = "main", tools: tuple[str, ...] = ("terminal",)) -> str:
        provider = llm_server.base_url() if script == "by-marker" else llm_server.base_url(script)
        conversation: str = client.open(host=server.url, provider=provider, tools=tools)
        return conversation

    return open_one
