"""The viewer that a real agent server from 1.58 on starts, ends and finds again: ``openhands-otel canvas install``."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from viewer_process import PROTOBUF, wait_for

from openhands_otel._internal.canvas.extension import EXTENSION_NAME
from otlp_sender import Sender

from .agent_server import PATIENCE_S, PYTHON, AgentServer, agent_server, free_port
from .test_canvas import KEY, api, canvas, installed, said

pytestmark = pytest.mark.timeout(PATIENCE_S)

BACKEND = f"/api/canvas-extensions/installed/{EXTENSION_NAME}/backend"
RUNS = "the agent server runs the viewer now, and starts it again when somebody opens Canvas"


class Place:
    """A user's home with Canvas' key in it, and the ports of a viewer of theirs."""

    def __init__(self, home: Path) -> None:
        self.home = home
        file = home / ".openhands" / "agent-canvas" / "api-key.txt"
        file.parent.mkdir(parents=True)
        file.write_text(KEY)
        self.port = free_port()
        self.ports = {
            "OPENHANDS_OTEL_VIEWER_PORT": str(self.port),
            "OPENHANDS_OTEL_VIEWER_GRPC_PORT": str(free_port()),
        }

    def install(self, server: AgentServer, **variables: str) -> list[str]:
        return said(canvas(self.home, "install", server.url, **self.ports, **variables))

    def reaches(self) -> bool:
        with socket.socket() as trying:
            return trying.connect_ex(("127.0.0.1", self.port)) == 0

    def send(self, dollars: float) -> None:
        body = Sender("p").spend(dollars).converse("c-1", dollars).body()
        url = f"http://127.0.0.1:{self.port}/v1/metrics"
        httpx.post(url, content=body, headers=PROTOBUF, trust_env=False).raise_for_status()


def total(port: int) -> float:
    state = httpx.get(f"http://127.0.0.1:{port}/api/v1/state", trust_env=False).raise_for_status().json()
    return float(state["totals"]["accumulated_cost"])


def status(server: AgentServer) -> dict[str, Any]:
    return api(server).get(BACKEND).raise_for_status().json()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[AgentServer]:
    keys = {"SESSION_API_KEY": KEY, "OH_SESSION_API_KEYS_0": KEY}
    with agent_server(lambda words: [PYTHON, *words], place.home, **keys) as server:
        if api(server).get(BACKEND).status_code == 404:
            pytest.skip("this release starts no programs of extensions")
        yield server


@pytest.fixture(autouse=True)
def nothing_is_left(server: AgentServer) -> Iterator[None]:
    yield
    if installed(server):
        api(server).delete(f"/api/canvas-extensions/installed/{EXTENSION_NAME}").raise_for_status()


def test_the_agent_server_runs_the_viewer_with_the_history_of_whoever_installed_it(
    server: AgentServer, place: Place
) -> None:
    lines = place.install(server, OPENHANDS_OTEL_VIEWER_BUDGETS="day=60")
    assert lines[-1] == RUNS
    place.send(0.25)
    # At the port that the server has chosen, too.
    found = status(server)
    assert found["port"] != place.port
    assert total(place.port) == total(found["port"]) == 0.25
    assert said(canvas(place.home, "status", server.url))[1] == "its viewer is running"
    budgets = httpx.get(f"http://127.0.0.1:{place.port}/api/v1/budgets", trust_env=False).text
    assert "60" in budgets
    origin = server.url
    allowed = httpx.get(f"http://127.0.0.1:{place.port}/api/v1/state", headers={"origin": origin}, trust_env=False)
    assert allowed.headers["access-control-allow-origin"] == origin
    # A newer one takes its place, and has what it had.
    assert place.install(server)[-1] == RUNS
    assert total(place.port) == 0.25
    assert status(server)["pid"] != found["pid"]
    said(canvas(place.home, "uninstall", server.url))
    assert not place.reaches()
    assert (place.home / "state" / "openhands-otel" / "history.sqlite3").exists()


def test_where_another_holds_the_port_the_page_is_there_and_the_reason_is_said(
    server: AgentServer, place: Place
) -> None:
    with socket.create_server(("127.0.0.1", place.port)):
        last = place.install(server)[-1]
    assert last.startswith("the agent server could not start the viewer (openhands-otel: ")
    assert f"port {place.port} is in use" in last
    assert "; start it yourself: openhands-otel view --origins http://" in last
    assert installed(server)[0][::2] == (EXTENSION_NAME, True)
    assert (
        f"its viewer is not running: openhands-otel: port {place.port} is in use"
        in (said(canvas(place.home, "status", server.url))[1])
    )


def test_a_server_that_was_killed_ends_its_viewer_when_it_is_back_and_needs_no_new_leave_to_start_one(
    server: AgentServer, place: Place, tmp_path: Path
) -> None:
    other = Place(tmp_path / "home")
    keys = {"SESSION_API_KEY": KEY, "OH_SESSION_API_KEYS_0": KEY}
    with agent_server(lambda words: [PYTHON, *words], other.home, **keys) as killed:
        assert other.install(killed)[-1] == RUNS
        other.send(0.5)
        viewer = status(killed)["pid"]
        killed.end(signal.SIGKILL)
    assert total(other.port) == 0.5
    with agent_server(lambda words: [PYTHON, *words], other.home, **keys) as back:
        wait_for(lambda: not other.reaches(), "the end of the viewer that was left over")
        found = status(back)
        assert found["state"] == "stopped"
        assert found["prepared_revision"] == found["revision"]
        assert "its viewer is not running" in said(canvas(other.home, "status", back.url))[1]
        # As the page does when Canvas is opened.
        started = api(back).post(f"{BACKEND}/start", json={"revision": found["revision"]}).raise_for_status().json()
        assert started["state"] == "ready"
        assert started["pid"] != viewer
        assert total(other.port) == 0.5
    assert not other.reaches()


@pytest.mark.parametrize(
    ("variable", "why"),
    [
        ("OPENHANDS_OTEL_VIEWER_TOKEN", "OPENHANDS_OTEL_VIEWER_TOKEN is a secret"),
        ("OPENHANDS_OTEL_VIEWER_TLS_CERT_FILE", "an agent server asks the viewer by plain HTTP"),
        ("OPENHANDS_OTEL_VIEWER_PORT", "OPENHANDS_OTEL_VIEWER_PORT: "),
    ],
)
def test_what_such_a_viewer_cannot_have_is_refused(server: AgentServer, place: Place, variable: str, why: str) -> None:
    done = canvas(place.home, "install", server.url, **{variable: "planted-4712"})
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert why in line
    assert "--page-only" in line
    assert installed(server) == []


def test_no_secret_and_nothing_of_the_program_is_open_to_others(server: AgentServer, place: Place) -> None:
    place.install(server)
    modes = {path.stat().st_mode & 0o077 for path in (place.home / "state" / "openhands-otel").glob("history*")}
    assert modes == {0}
    assert os.stat(place.home / "state" / "openhands-otel").st_mode & 0o077 == 0
