from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from otlp_receiver import Receiver, http_receiver

HERE = Path(__file__).parent


@dataclass
class Child:
    """A program that runs in a process of its own."""

    pid: int
    directory: Path
    ended: threading.Event = field(default_factory=threading.Event)
    code: int = 0
    at: float = 0.0
    waited_s: float = 0.0
    cpu_s: float = 0.0

    def wait(self, timeout_s: float = 400) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""
        assert self.ended.wait(timeout_s), f"still running after {timeout_s} s; {self.err}"
        return self.code

    @property
    def out(self) -> str:
        return (self.directory / "out").read_text()

    @property
    def err(self) -> str:
        return (self.directory / "err").read_text()

    @property
    def log(self) -> list[str]:
        """Lines on standard error."""
        return [line for line in self.err.splitlines() if line.strip()]

    @property
    def marks(self) -> dict[str, float]:
        """Times (monotonic) of the marks that it made."""
        return {name: float(at) for name, at, *_ in (line.split() for line in self.out.splitlines())}

    def wait_for(self, name: str, timeout_s: float = 400) -> float:
        """Wait for a mark."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.out.endswith("\n") and name in self.marks:
                return self.marks[name]
            assert not self.ended.is_set(), f"ended with {self.code} before {name!r}; {self.err}"
            time.sleep(0.005)
        raise AssertionError(f"no mark {name!r} within {timeout_s} s; {self.err}")

    def exit_time(self, name: str = "end") -> float:
        """Seconds from a mark to the end of the process, without those in which its main thread had no processor."""
        _, at, waited_s = next(line.split() for line in self.out.splitlines() if line.startswith(f"{name} "))
        return self.at - float(at) - (self.waited_s - float(waited_s))

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)


class Prepared:
    """Forks children off a Python that has OpenHands imported; see ``prepared.py``."""

    def __init__(self) -> None:
        # Plain log lines, for counting; OpenHands would draw boxes.
        environ = {
            **os.environ,
            "LOG_AUTO_CONFIG": "false",
            "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", ""))).rstrip(":"),
        }
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "prepared.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ
        )
        self._children: dict[int, Child] = {}
        self._starting = threading.Lock()
        self._born = threading.Condition()
        self._answers: list[int] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self, source: str, directory: Path, environ: Mapping[str, str]) -> Child:
        """Run ``source`` as a main program in ``directory``."""
        assert self._ready.wait(250), "OpenHands could not be imported"
        for name in ("out", "err"):
            (directory / name).touch()
        program = {
            "program": str(directory / "program.py"),
            "source": textwrap.dedent(source),
            "directory": str(directory),
            "environ": environ,
        }
        with self._starting, self._born:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(program).encode() + b"\n")
            self._process.stdin.flush()
            assert self._born.wait_for(lambda: self._answers, 100), "no child was born"
            return self._children.setdefault(self._answers.pop(), Child(0, directory))

    def stop(self) -> None:
        for child in self._children.values():
            if not child.ended.is_set():
                child.kill(signal.SIGKILL)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(100)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            if "ready" in answer:
                self._ready.set()
            elif "born" in answer:
                with self._born:
                    self._children[answer["born"]] = Child(answer["born"], Path())
                    self._answers.append(answer["born"])
                    self._born.notify_all()
            else:
                child = self._children[answer["pid"]]
                child.code, child.cpu_s = answer["code"], answer["cpu_s"]
                child.at, child.waited_s = answer["at"], answer["waited_s"]
                child.ended.set()


@pytest.fixture(scope="session")
def _prepared() -> Iterator[Prepared]:
    prepared = Prepared()
    try:
        yield prepared
    finally:
        prepared.stop()


Start = Callable[..., Child]


@pytest.fixture
def start(_prepared: Prepared, tmp_path: Path) -> Start:
    """Start a main program: ``start(source, receiver.url, OTEL_...=...)``. OpenHands is imported already."""
    numbers = itertools.count(1)

    def run(source: str, endpoint: str, **environ: str) -> Child:
        directory = tmp_path / f"child{next(numbers)}"
        directory.mkdir()
        names = ("PATH", "HOME", "LITELLM_LOCAL_MODEL_COST_MAP", "XDG_STATE_HOME")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        child = _prepared.start(source, directory, kept | {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": endpoint} | environ)
        child.directory = directory
        return child

    return run


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A collector that takes everything."""
    with http_receiver() as receiver:
        yield receiver


@contextmanager
def refusing() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@contextmanager
def silent() -> Iterator[int]:
    """A port whose owner accepts and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        yield listening.getsockname()[1]


@contextmanager
def black_hole() -> Iterator[int]:
    """A port that drops packets: its queue of connections is full."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


@contextmanager
def slow_link(port: int, one_way_s: float) -> Iterator[int]:
    """A port that leads to ``port`` over a network with a delay."""
    stopping = threading.Event()

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                time.sleep(one_way_s)
                sink.sendall(data)

    with socket.socket() as listening, ExitStack() as connections:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        listening.settimeout(0.05)

        def accept() -> None:
            while not stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    near = connections.enter_context(listening.accept()[0])
                    far = connections.enter_context(socket.create_connection(("127.0.0.1", port)))
                    for pair in ((near, far), (far, near)):
                        threading.Thread(target=carry, args=pair, daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            stopping.set()
            thread.join(2)


@contextmanager
def _serving(respond: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    stopping = threading.Event()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        listening.settimeout(0.05)

        def serve() -> None:
            while not stopping.is_set():
                with contextlib.suppress(OSError):
                    connection = listening.accept()[0]
                    with connection:
                        connection.recv(65_536)
                        respond(connection, stopping)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            stopping.set()
            thread.join(3)


def talking_nonsense() -> Any:
    """A port whose owner answers everything with bytes of no protocol."""
    return _serving(lambda connection, stopping: connection.sendall(b"\x00\xffnonsense\r\n" * 20))


def dripping() -> Any:
    """A port whose owner answers one byte at a time, for ever."""

    def drip(connection: socket.socket, stopping: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not stopping.wait(0.02):
            connection.sendall(b"x")

    return _serving(drip)


def endless() -> Any:
    """A port whose owner answers with bytes without end."""

    def pour(connection: socket.socket, stopping: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not stopping.is_set():
            connection.sendall(b"x" * 65_536)

    return _serving(pour)


COLLECTORS: Mapping[str, Callable[[], Any]] = {
    "refusing": refusing,
    "silent": silent,
    "black hole": black_hole,
    "nonsense": talking_nonsense,
}
