from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from forked import Child, Prepared
from otlp_receiver import Receiver, http_receiver

Start = Callable[..., Child]


@pytest.fixture
def start(prepared: Prepared, tmp_path: Path) -> Start:
    """Start a main program: ``start(source, receiver.url, OTEL_...=...)``. OpenHands is imported already."""
    numbers = itertools.count(1)

    def run(source: str, endpoint: str, **environ: str) -> Child:
        directory = tmp_path / f"child{next(numbers)}"
        directory.mkdir()
        names = ("PATH", "HOME", "LITELLM_LOCAL_MODEL_COST_MAP", "XDG_STATE_HOME")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        return prepared.start(source, directory, kept | {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": endpoint} | environ)

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
