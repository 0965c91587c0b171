"""``openhands-otel canvas`` against a real agent server, new or old: what it does, and what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from viewer_process import Viewer

from openhands_otel._internal.canvas.extension import EXTENSION_MANIFEST, EXTENSION_NAME, files
from openhands_otel._internal.version import __version__

from .agent_server import PATIENCE_S, PYTHON, AgentServer, agent_server, free_port

KEY = "planted-key-4711"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the key where Canvas keeps it."""
    home = tmp_path_factory.mktemp("home")
    file = home / ".openhands" / "agent-canvas" / "api-key.txt"
    file.parent.mkdir(parents=True)
    file.write_text(KEY)
    return home


@pytest.fixture(scope="module")
def guarded(home: Path) -> Iterator[AgentServer]:
    """An agent server that asks for a key, started as anybody starts one."""
    # Releases read the key from either.
    keys = {"SESSION_API_KEY": KEY, "OH_SESSION_API_KEYS_0": KEY}
    with agent_server(lambda words: [PYTHON, *words], home, **keys) as server:
        yield server


@pytest.fixture(scope="module")
def has_extensions(guarded: AgentServer) -> bool:
    return api(guarded).get("/api/canvas-extensions/installed").status_code == 200


@pytest.fixture
def modern(guarded: AgentServer, has_extensions: bool) -> AgentServer:
    if not has_extensions:
        pytest.skip("this release has no extensions of Canvas")
    return guarded


def api(server: AgentServer) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers={"X-Session-API-Key": KEY}, trust_env=False, timeout=PATIENCE_S)


def canvas(home: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "openhands_otel", "canvas", *words]
    environment = os.environ | {"HOME": str(home), "XDG_STATE_HOME": str(home / "state"), **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert done.stdout == ""
    assert KEY not in done.stderr
    (line,) = done.stderr.splitlines()
    return line


def installed(server: AgentServer) -> list[tuple[str, str, bool]]:
    found = api(server).get("/api/canvas-extensions/installed").raise_for_status().json()["canvas_extensions"]
    return [(one["name"], one["version"], one["enabled"]) for one in found]


def test_it_is_put_in_and_enabled_put_in_again_and_taken_out(modern: AgentServer, home: Path) -> None:
    for word in ("installed", "replaced"):
        first, second, third = said(canvas(home, "install", "--page-only", modern.url))
        assert first.startswith(f"{word} {EXTENSION_NAME} {__version__} in the agent server at {modern.url} (")
        assert (
            second
            == f"enabled it: the page is {modern.url}/extensions/{EXTENSION_NAME}/spend, 'Spend' in Canvas' navigation"
        )
        port = modern.url.rpartition(":")[2]
        assert third.endswith(f"openhands-otel view --origins http://localhost:{port},http://127.0.0.1:{port}")
        assert installed(modern) == [(EXTENSION_NAME, __version__, True)]
    bundle = f"/api/canvas-extensions/installed/{EXTENSION_NAME}/bundle"
    assert api(modern).get(bundle).text == files()["spend.js"]
    (state,) = said(canvas(home, "status", modern.url))
    assert (
        state
        == f"{EXTENSION_NAME} {__version__} is installed and enabled at {modern.url}/extensions/{EXTENSION_NAME}/spend"
    )
    assert said(canvas(home, "uninstall", modern.url)) == [
        f"took {EXTENSION_NAME} out of the agent server at {modern.url}"
    ]
    assert installed(modern) == []
    assert said(canvas(home, "uninstall", modern.url)) == [f"{EXTENSION_NAME} is not installed at {modern.url}"]
    assert "'openhands-otel canvas install' does it" in said(canvas(home, "status", modern.url))[0]


def test_a_folder_that_was_written_is_installed_from_there(modern: AgentServer, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "for the other machine"
    (line,) = said(canvas(home, "write", str(folder)))
    assert line == f"{EXTENSION_NAME} {__version__} is in {folder}"
    assert {file.name: file.read_text() for file in folder.iterdir()} == files()
    said(canvas(home, "install", "--page-only", modern.url, "--source", str(folder)))
    assert installed(modern) == [(EXTENSION_NAME, __version__, True)]
    said(canvas(home, "uninstall", modern.url))


def test_an_extension_that_is_older_or_disabled_is_called_so(modern: AgentServer, home: Path, tmp_path: Path) -> None:
    said(canvas(home, "write", str(tmp_path)))
    manifest = tmp_path / EXTENSION_MANIFEST
    manifest.write_text(manifest.read_text().replace(f'"version": "{__version__}"', '"version": "0.0.1"'))
    api(modern).post("/api/canvas-extensions/install", json={"source": str(tmp_path)}).raise_for_status()
    (line,) = said(canvas(home, "status", modern.url))
    assert line.startswith(f"{EXTENSION_NAME} 0.0.1 is installed and disabled at ")
    assert line.endswith(f"this is {__version__}: 'openhands-otel canvas install' updates it")
    said(canvas(home, "uninstall", modern.url))


def test_what_keeps_it_out_is_said_in_one_line(modern: AgentServer, home: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("another-key")
    line = refused(canvas(home, "install", "--page-only", modern.url, "--key-file", str(wrong)))
    assert line.endswith(f"does not take the key of {wrong}: name the file with --key-file")
    line = refused(canvas(tmp_path, "install", "--page-only", modern.url))
    assert "asks for a key: ~/.openhands/agent-canvas/api-key.txt is not there" in line
    line = refused(canvas(home, "install", "--page-only", modern.url, "--source", str(tmp_path / "nothing")))
    assert f"cannot read {tmp_path / 'nothing'}" in line
    (tmp_path / EXTENSION_MANIFEST).write_text("{}")
    assert "refused it (422)" in refused(canvas(home, "install", "--page-only", modern.url, "--source", str(tmp_path)))


def test_who_is_no_agent_server_is_called_so(home: Path, viewer: Viewer) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    line = refused(canvas(home, "status", nobody))
    assert line.endswith(
        f"no agent server answers at {nobody} (Connection refused): start Agent Canvas, or name its URL"
    )
    assert "is no agent server of OpenHands: name Canvas' URL" in refused(canvas(home, "status", viewer.url))
    for url in ("ftp://127.0.0.1", "127.0.0.1:8000", "http://127.0.0.1:99999", "http://me@127.0.0.1:8000"):
        assert "is no address of Agent Canvas" in refused(canvas(home, "install", url))


def test_an_old_server_is_called_old(guarded: AgentServer, home: Path, has_extensions: bool) -> None:
    if has_extensions:
        pytest.skip("this release has extensions of Canvas")
    for action in ("install", "status", "uninstall"):
        line = refused(canvas(home, action, guarded.url))
        assert "is too old for pages in Canvas" in line
        assert line.endswith("1.49.1 has them")
