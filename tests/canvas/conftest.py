"""One Canvas, one viewer and one provider for the tests that need no other: Canvas takes most of a minute to start."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from viewer_process import Viewer, running_viewer

from openhands_otel._internal.demo.llm_server import LLMServer

from .agent_canvas import AgentCanvas, NotInstalled, Tools, agent_canvas, free_port, install

PATIENCE_S = 900


@pytest.fixture(scope="session")
def tools() -> Tools:
    try:
        return install()
    except NotInstalled as error:
        pytest.skip(f"Agent Canvas cannot be installed here: {error}")


@pytest.fixture(scope="session")
def provider() -> Iterator[LLMServer]:
    """Its bill is that of all conversations so far."""
    with LLMServer() as server:
        yield server


@pytest.fixture(scope="session")
def port() -> int:
    """Where Canvas listens, each time that it is started: its page has this origin."""
    return free_port()


@pytest.fixture(scope="session")
def viewer(port: int) -> Iterator[Viewer]:
    with running_viewer("--origins", f"http://127.0.0.1:{port}") as viewer:
        yield viewer


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("canvas-home")


def with_us(viewer: Viewer) -> list[str]:
    return [str(Path(sys.executable).parent / "openhands-otel"), "run", "--endpoint", viewer.url, "--"]


@pytest.fixture(scope="module")
def canvas(tools: Tools, viewer: Viewer, provider: LLMServer, home: Path, port: int) -> Iterator[AgentCanvas]:
    """``openhands-otel run -- agent-canvas``."""
    with agent_canvas(tools, home, port, with_us(viewer)) as canvas:
        canvas.use(provider.base_url())
        yield canvas
