"""A real agent server in a process of its own, and a real client of it in another."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

PATIENCE_S = 300
"""For one test with all that it starts: a server takes 6 s on an idle machine, and ten times that on a crowded one."""
START_S = 400.0
STOP_S = 60.0
PYTHON = os.environ.get("AGENT_SERVER_PYTHON", sys.executable)
"""The interpreter of the release that is tested; ``make test-compat`` names those of old ones."""
CLIENT = Path(__file__).parent / "programs" / "remote_client.py"

Launch = Callable[[Sequence[str]], Sequence[str]]
"""Makes a command line of the words behind the server's Python."""


def script(name: str) -> str:
    """A command that stands beside the interpreter."""
    return str(Path(PYTHON).parent / name)


def by_run(*options: str) -> Launch:
    return lambda words: [script("openhands-otel"), "run", *options, "--", PYTHON, *words]


def by_opentelemetry_instrument(words: Sequence[str]) -> list[str]:
    return [script("opentelemetry-instrument"), PYTHON, *words]


def by_import(words: Sequence[str]) -> list[str]:
    return [PYTHON, *words, "--import-modules", "openhands_otel.auto"]


@dataclass
class AgentServer:
    """The process and its address."""

    process: subprocess.Popen[bytes]
    url: str
    directory: Path

    @property
    def log(self) -> str:
        return (self.directory / "server.log").read_text(errors="replace")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; returns the exit code, negative for a signal."""
        self.process.send_signal(number)
        return self.process.wait(STOP_S)


@contextmanager
def agent_server(launch: Launch, directory: Path, **variables: str) -> Iterator[AgentServer]:
    """A server, from where it is healthy until the end of the block."""
    port = free_port()
    words = launch(["-m", "openhands.agent_server", "--host", "127.0.0.1", "--port", str(port)])
    with (directory / "server.log").open("wb") as log:
        process = subprocess.Popen(
            words,
            cwd=directory,
            env=environment(directory, **variables),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    server = AgentServer(process, f"http://127.0.0.1:{port}", directory)
    try:
        _wait_until_healthy(server)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class RemoteClient:
    """Gives orders to ``programs/remote_client.py``: ``client.run(conversation=..., text=...)``."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        self._ordering = threading.Lock()

    def __getattr__(self, order: str) -> Callable[..., Any]:
        def give(**arguments: Any) -> Any:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            with self._ordering:
                self._process.stdin.write(json.dumps({"do": order, **arguments}).encode() + b"\n")
                self._process.stdin.flush()
                line = self._process.stdout.readline()
            assert line, f"the client ended: {self._log.read_text(errors='replace')[-2000:]}"
            answer = json.loads(line)
            assert "error" not in answer, f"{order}: {answer['error']}"
            return answer["result"]

        return give


@contextmanager
def remote_client(directory: Path, **variables: str) -> Iterator[RemoteClient]:
    """A client, instrumented if the variables say so."""
    log = directory / "client.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [PYTHON, str(CLIENT), str(directory)],
            cwd=directory,
            env=environment(directory, **variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    try:
        yield RemoteClient(process, log)
    finally:
        # Its conversations would take five seconds each to close.
        process.kill()
        process.wait()


def environment(home: Path, **variables: str) -> dict[str, str]:
    """Nothing of the person who runs the tests."""
    kept: Mapping[str, str] = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "OPENHANDS_", "LMNR_", "OH_"))
    }
    quiet = {
        "HOME": str(home),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OPENHANDS_SUPPRESS_BANNER": "1",
        "OH_ENABLE_VSCODE": "false",
        "OH_PRELOAD_TOOLS": "false",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
    return {**kept, **quiet, **variables}


def _wait_until_healthy(server: AgentServer) -> None:
    deadline = time.monotonic() + START_S
    with httpx.Client(base_url=server.url, trust_env=False, timeout=100) as http:
        while True:
            try:
                if http.get("/health").is_success:
                    return
            except httpx.TransportError:
                pass
            code = server.process.poll()
            assert code is None, f"the server ended with code {code}: {server.log[-3000:]}"
            assert time.monotonic() < deadline, (
                f"the server was not healthy after {START_S:.0f} s: {server.log[-3000:]}"
            )
            time.sleep(0.05)


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
