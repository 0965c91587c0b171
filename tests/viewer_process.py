"""A real viewer in a process of its own, and ways to talk to it.

It is forked off a Python that has imported what a viewer is made of, which is most of what its start takes; behind a
``wrapper``, which chooses the program to execute, it is ``python -m openhands_otel view``.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx

from forked import Child, Prepared
from openhands_otel.stats import State
from otlp_sender import Sender

PROTOBUF = {"content-type": "application/x-protobuf"}
EXECUTED = ("env",)
"""A wrapper that changes nothing: for tests of a process's very end, or of what /proc tells of its start."""
_START_TIMEOUT_S = 100.0


@dataclass
class Viewer:
    """The process, its addresses, and an HTTP client that shows the token if there is one."""

    process: subprocess.Popen[str] | Child
    url: str
    grpc: str
    token: str | None
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        headers = {} if self.token is None else {"authorization": f"Bearer {self.token}"}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=100, trust_env=False)

    def post(self, body: bytes, path: str = "/v1/metrics", **headers: str) -> httpx.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(path, content=body, headers=PROTOBUF | given)

    def send(self, sender: Sender) -> None:
        response = self.post(sender.body())
        assert response.status_code == 200, response.text
        assert response.content == b"", "points were refused"

    def state(self) -> State:
        return State.model_validate_json(self.http.get("/api/v1/state").raise_for_status().content)

    def stop(self) -> int:
        self.http.close()
        self.process.terminate()
        return self.process.wait(100)

    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024


def start_viewer(
    *options: str,
    database: Path | str = ":memory:",
    token: str | None = None,
    port: int = 0,
    grpc_port: int = 0,
    stderr: IO[str] | None = None,
    wrapper: Sequence[str] = (),
) -> Viewer:
    """Start one (its command behind ``wrapper``) and wait until it is ready."""
    words = ["view", "--ready-json", "--database", str(database), "--port", str(port), "--grpc-port", str(grpc_port)]
    words += options
    environment = os.environ | ({} if token is None else {"OPENHANDS_OTEL_VIEWER_TOKEN": token})
    if wrapper:
        process, line = _execute([*wrapper, sys.executable, "-m", "openhands_otel", *words], environment, stderr)
    else:
        process, line = _fork(words, environment, stderr)
    ready = json.loads(line)
    return Viewer(process, ready["url"], ready["grpc"], token)


_FORKED = """
import sys
from openhands_otel._internal.cli import main
sys.exit(main())
"""


@functools.cache
def _prepared() -> Prepared:
    prepared = Prepared("openhands_otel._internal.cli.view", "uvloop")
    atexit.register(prepared.stop)
    return prepared


def _fork(words: Sequence[str], environment: Mapping[str, str], stderr: IO[str] | None) -> tuple[Child, str]:
    """The process and its first line."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder, "out")
        errors = Path(f"/proc/{os.getpid()}/fd/{2 if stderr is None else stderr.fileno()}")
        child = _prepared().start(_FORKED, Path.cwd(), environment, words, (told, errors))

        def line() -> str:
            ended, said = child.ended.is_set(), told.read_text() if told.exists() else ""
            assert "\n" in said or not ended, f"the viewer ended with code {child.code} before it was ready"
            return said.partition("\n")[0] if "\n" in said else ""

        try:
            return child, wait_for(line, "the viewer's start", _START_TIMEOUT_S)
        except BaseException:
            child.kill()
            child.wait()
            raise


def _execute(
    words: Sequence[str], environment: Mapping[str, str], stderr: IO[str] | None
) -> tuple[subprocess.Popen[str], str]:
    """The process and its first line."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
    watchdog = threading.Timer(_START_TIMEOUT_S, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the viewer ended with code {process.wait(100)} before it was ready"
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        watchdog.cancel()
    return process, line


@contextmanager
def running_viewer(*options: str, **settings: Any) -> Iterator[Viewer]:
    """A viewer for the length of a block."""
    viewer = start_viewer(*options, **settings)
    try:
        yield viewer
    finally:
        if viewer.process.poll() is None:
            viewer.stop()


def wait_for[T](look: Callable[[], T | None], what: str, timeout: float = 50.0) -> T:
    """The first result of ``look`` that counts as true."""
    deadline = time.monotonic() + timeout
    while True:
        if found := look():
            return found
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout:.0f} s"
        time.sleep(0.02)
