"""Servers, workers, kernels and tools that make environments, under ``openhands-otel run``, where we are not installed.

Rule: what the provider billed is what the viewer shows. Each way is the real program from the package index.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from one_call import SPENDS, settled
from viewer_process import Viewer, running_viewer, wait_for

from openhands_otel._internal.demo.llm_server import LLMServer

pytestmark = pytest.mark.timeout(900)

COMMAND = str(Path(sys.executable).with_name("openhands-otel"))
WSGI = """
import os, openhands.sdk, spending
def application(environ, start_response):
    spending.spend()
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""
CELERY = """
import celery, os, spending
here = os.path.dirname(os.path.abspath(__file__))
app = celery.Celery("tasks", broker="filesystem://", backend="file://" + here + "/results")
folders = {"data_folder_in": here + "/broker", "data_folder_out": here + "/broker", "control_folder": here + "/broker"}
app.conf.update(broker_transport_options=folders, worker_enable_remote_control=False)
@app.task
def spend():
    spending.spend()
"""
ORDERS = """
import tasks
for sent in [tasks.spend.delay() for _ in range(3)]:
    sent.get(timeout=600)
"""
NOTEBOOK = """
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="python3", startup_timeout=600)
try:
    reply = client.execute_interactive("import spending; spending.spend()", timeout=600)
    assert reply["content"]["status"] == "ok", reply
finally:
    client.stop_channels()
    manager.shutdown_kernel()
"""
BUILT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "built-here"
version = "1"
dependencies = []
[tool.setuptools]
py-modules = ["spending"]
"""
FILES = {
    "spending.py": SPENDS,
    "app.py": WSGI,
    "tasks.py": CELERY,
    "orders.py": ORDERS,
    "notebook.py": NOTEBOOK,
    "pyproject.toml": BUILT,
}


@pytest.fixture
def home(tmp_path: Path, variables: dict[str, str], llm_server: LLMServer) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    for name in ("results", "broker"):
        (tmp_path / name).mkdir()
    variables["LLM"] = llm_server.base_url("default")
    return tmp_path


@pytest.fixture
def viewer(variables: dict[str, str]) -> Iterator[Viewer]:
    with running_viewer() as viewer:
        variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = viewer.url
        yield viewer


@contextmanager
def started(words: Sequence[str], home: Path, variables: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with (home / f"{words[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            [COMMAND, "run", "--", *words], cwd=home, env=dict(variables), stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(100)


def ran(words: Sequence[str], home: Path, variables: Mapping[str, str], timeout: float = 600) -> str:
    done = subprocess.run(words, cwd=home, env=dict(variables), capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize("preload", [True, False])
def test_gunicorn(home: Path, viewer: Viewer, llm_server: LLMServer, variables: dict[str, str], preload: bool) -> None:
    """Two workers, forked before OpenHands was imported or after."""
    words = ["gunicorn", "--workers=2", "--bind=unix:socket", "--timeout=300", *(["--preload"] * preload), "app"]
    with started(words, home, variables):
        wait_for((home / "socket").exists, "gunicorn's socket", 600)
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(home / "socket")), timeout=600) as http:
            for _ in range(4):
                assert http.get("http://gunicorn/").status_code == 200
    settled(viewer, llm_server, 4)


def test_celery(home: Path, viewer: Viewer, llm_server: LLMServer, variables: dict[str, str]) -> None:
    """Workers of its prefork pool."""
    with started(["celery", "-A", "tasks", "worker", "--pool=prefork", "--concurrency=2"], home, variables):
        ran(["python3", "orders.py"], home, variables)
    settled(viewer, llm_server, 3)


WAYS = {
    "notebook kernel": "python3 notebook.py",
    "uv run --with": "uv run --no-project --with=openhands-sdk --with=openhands-tools python spending.py",
    "uv run of a project that is built": "uv run --with=openhands-sdk --with=openhands-tools python -m spending",
    "uvx": "uvx --from=openhands-sdk --with=openhands-tools python spending.py",
    "an environment made in mid-run": (
        "uv venv -q new; uv pip install -q --python=new openhands-sdk openhands-tools .; cd new; bin/python -m spending"
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_command(home: Path, viewer: Viewer, llm_server: LLMServer, variables: dict[str, str], way: str) -> None:
    ran([COMMAND, "run", "--", "sh", "-ec", WAYS[way]], home, variables)
    settled(viewer, llm_server, 1)


def test_pip_builds_as_without_us(home: Path, variables: dict[str, str]) -> None:
    """It puts a ``sitecustomize`` of its own before the build backend."""
    words = ["python3", "-m", "pip", "wheel", "-q", "--no-deps", "--disable-pip-version-check", "."]
    ran([COMMAND, "run", "--", "sh", "-ec", f"{' '.join(words)} 2>&1"], home, variables)

    assert [file.name for file in home.glob("*.whl")] == ["built_here-1-py3-none-any.whl"]
