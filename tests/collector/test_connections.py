"""Slow and many connections (kind: a stranger who takes his time takes nobody else's)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from viewer_process import PROTOBUF, Viewer, running_viewer, wait_for

from openhands_otel._internal.collector.receive import connection as limits
from openhands_otel._internal.collector.server import Collector
from openhands_otel._internal.collector.state.stream import VIEWER_LIMIT
from openhands_otel.settings import ViewerSettings
from otlp_sender import Sender

HALF_HEAD = b"POST /v1/metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Ty"
HEAD = b"POST /v1/metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-protobuf\r\n"
GENEROUS_S = 60.0
START = time.time_ns()


@pytest.fixture(scope="module", params=["httptools", "h11"], autouse=True)
def parser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """All of it holds whoever reads HTTP: also where httptools does not install."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "h11":
            hidden = tmp_path_factory.mktemp("hidden")
            (hidden / "httptools.py").write_text("raise ImportError")
            patch.setenv("PYTHONPATH", str(hidden), prepend=os.pathsep)
            patch.setitem(sys.modules, "httptools", None)
        yield request.param


def connect(url: str, *, receive_buffer: int | None = None) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(GENEROUS_S)
    connection.connect((host, int(port)))
    return connection


def everything(connection: socket.socket) -> bytes:
    """What comes until the end, however it ends."""
    told = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65_536):
            told += piece
    return told


def is_over(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while connection.recv(65_536):
            pass
        return True
    except BlockingIOError:
        return False
    except OSError:
        return True


@contextmanager
def in_this_process(**given: object) -> Iterator[Collector]:
    """A collector whose limits a test may lower; its loop runs in a thread."""
    collector = Collector(ViewerSettings.model_validate({"port": 0, "grpc_port": 0} | given))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(collector.start(), loop).result(GENEROUS_S)
    try:
        yield collector
    finally:
        asyncio.run_coroutine_threadsafe(collector.stop(), loop).result(GENEROUS_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(GENEROUS_S)
        loop.close()


def still_serves(viewer: Viewer, cost: float) -> None:
    """Health and exports, on connections of their own."""
    with httpx.Client(base_url=viewer.url, trust_env=False, timeout=GENEROUS_S) as newcomer:
        assert newcomer.get("/healthz").status_code == 200
        answer = newcomer.post(
            "/v1/metrics", content=Sender("working", start=START).spend(cost).body(), headers=PROTOBUF
        )
        assert answer.status_code == 200
    assert viewer.state().totals.accumulated_cost == cost


def test_crowds_that_send_half_a_request_hold_nobody_up(tmp_path: Path, parser: str) -> None:
    """1,500 of them: all stayed, health and exports timed out, and the log grew by 45 MB."""
    if parser == "h11":
        pytest.skip("they are kept out before anybody reads what they say")
    log = tmp_path / "log"
    with log.open("w") as stderr, running_viewer(stderr=stderr) as viewer, ExitStack() as closing:
        viewer.send(Sender("working", start=START).spend(0.25))
        half: list[socket.socket] = []
        for number in range(1_500):
            half.append(closing.enter_context(connect(viewer.url)))
            with contextlib.suppress(ConnectionError):
                half[-1].sendall((HALF_HEAD, HEAD + b"Content-Length: 1000\r\n\r\nhalf", b"")[number % 3])
            if number % 500 == 499:
                still_serves(viewer, 0.5 + number)
        wait_for(lambda: all(is_over(each) for each in half[::3]), "the end of all half heads", GENEROUS_S)
        wait_for(lambda: all(is_over(each) for each in half[2::3]), "the end of all that say nothing", GENEROUS_S)
        still_serves(viewer, 9_999.0)
    assert log.stat().st_size < 4_000, log.read_text()[:2_000]


def test_few_file_descriptors_are_enough(tmp_path: Path) -> None:
    """A limit of the system that is lower than ours: accepting fails with an error, again and again."""
    log = tmp_path / "log"
    few = ("prlimit", "--nofile=128:128")
    with log.open("w") as stderr, running_viewer(stderr=stderr, wrapper=few) as viewer, ExitStack() as closing:
        for number in range(300):
            with contextlib.suppress(ConnectionError):
                closing.enter_context(connect(viewer.url)).sendall(HALF_HEAD)
            if number % 100 == 99:
                still_serves(viewer, 0.5 + number)
    assert log.stat().st_size < 4_000, log.read_text()[:2_000]


def test_junk_costs_a_line_and_not_a_line_each(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as stderr, running_viewer(stderr=stderr) as viewer:
        for _ in range(200):
            with connect(viewer.url) as connection:
                connection.sendall(b"\x16\x03\x01 not HTTP\r\n\r\n")
                assert b" 400 " in everything(connection)
        with connect(viewer.url) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 200_000)
            told = everything(connection)
            assert not told or b" 400 " in told
        still_serves(viewer, 0.5)
    assert len(log.read_text().splitlines()) <= 4


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [
        (b"GET /", b"x"),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ", b"x"),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"X: y\r\n"),
        (CHUNKED + b"1;", b"x"),
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"X: y\r\n"),
        (CHUNKED + b"0\r\nX: ", b"x"),
    ],
)
def test_what_never_becomes_a_request_is_refused(guarded: Viewer, begins: bytes, goes_on: bytes) -> None:
    """Nothing that a peer sends is held without end: an address, a header, many of them, what stands around a body."""
    authorized = begins.replace(b"\r\n", b"\r\nAuthorization: Bearer s3cret\r\n", 1)
    with connect(guarded.url) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(authorized)
            for _ in range(60):
                connection.sendall(goes_on * (10_000 // len(goes_on)))
        assert b" 400 " in everything(connection)


def half_head(connection: socket.socket) -> None:
    connection.sendall(HALF_HEAD)


def half_body(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\nhalf")


def half_chunk(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n100\r\nhalf")


def half_of_the_second(connection: socket.socket) -> None:
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
    connection.sendall(HALF_HEAD)


def rest_of_what_was_refused(connection: socket.socket) -> None:
    connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\nhalf")


def nothing(_: socket.socket) -> None:
    pass


SLOW = {
    half_head: b" 408 ",
    half_body: b" 408 ",
    half_chunk: b" 408 ",
    half_of_the_second: b" 408 ",
    rest_of_what_was_refused: b" 404 ",
    nothing: b"",
}


def drip(url: str, send: Callable[[socket.socket], None]) -> bytes:
    """What is told to somebody who sends a byte now and then, until the connection ends."""
    told = b""
    with connect(url) as connection:
        send(connection)
        connection.settimeout(0.3)
        deadline = time.monotonic() + GENEROUS_S
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < deadline:
                if send is not nothing:
                    connection.sendall(b"x")
                with contextlib.suppress(TimeoutError):
                    piece = connection.recv(65_536)
                    if not piece:
                        break
                    told += piece
    assert time.monotonic() < deadline
    return told


def test_whoever_drips_is_told_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each phase of a connection has its limit, and a byte now and then does not put it off."""
    for name in ("HEAD_S", "BODY_S", "DRAIN_S"):
        monkeypatch.setattr(limits, name, 1.0)
    with in_this_process() as collector, ThreadPoolExecutor(len(SLOW)) as all_at_once:
        told = dict(zip(SLOW, all_at_once.map(lambda send: drip(collector.url, send), SLOW), strict=True))
    for send, status in SLOW.items():
        assert status in told[send], send
    assert told[nothing] == b""


def test_an_answer_that_nobody_takes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STALL_S", 1.0)
    with in_this_process() as collector, connect(collector.url, receive_buffer=4096) as connection:
        sender = Sender("p")
        for number in range(300):
            sender.converse(f"c{number}", 0.1)
        httpx.post(f"{collector.url}/v1/metrics", content=sender.body(), headers=PROTOBUF, trust_env=False)
        connection.sendall(b"GET /api/v1/state HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 40)

        def given_up() -> bool:
            try:
                connection.sendall(b"x")
                return False
            except ConnectionError:
                return True

        wait_for(given_up, "giving up", GENEROUS_S)


@pytest.mark.parametrize("close", [True, False], ids=["close", "keep-alive"])
@pytest.mark.parametrize(
    ("path", "size", "headers", "status"),
    [
        ("/v1/metrics", 8 << 20, {}, 401),
        ("/api/v1/state", 8 << 20, {}, 401),
        ("/v1/metrics", 24 << 20, {"authorization": "Bearer s3cret"}, 413),
        ("/v1/metrics", 8 << 20, {"authorization": "Bearer s3cret", "content-encoding": "br"}, 415),
        ("/nowhere", 8 << 20, {"authorization": "Bearer s3cret"}, 404),
        ("/v1/metrics", 8 << 20, {"host": "evil.example"}, 421),
    ],
)
def test_a_refusal_reaches_who_is_still_sending(
    guarded: Viewer, path: str, size: int, headers: dict[str, str], status: int, close: bool
) -> None:
    """The connection was closed with unread bytes in it: a broken pipe instead of the answer."""
    with connect(guarded.url) as connection:
        lines = {"host": "127.0.0.1", "content-type": "application/x-protobuf", "content-length": str(size)}
        lines |= headers | ({"connection": "close"} if close else {})
        head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        connection.sendall(head.encode() + b"\r\n" + bytes(size))
        told = everything(connection)
    assert told.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in told.lower()


def test_the_standard_librarys_client_sees_why(guarded: Viewer) -> None:
    request = urllib.request.Request(f"{guarded.url}/v1/metrics", data=bytes(8 << 20), headers=PROTOBUF)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(request, timeout=GENEROUS_S)
    assert refused.value.code == 401
    assert "token" in json.loads(refused.value.read())["message"]


def test_who_asks_before_sending_is_answered_before_sending(guarded: Viewer) -> None:
    for token, first in (("wrong", b"HTTP/1.1 401 "), ("s3cret", b"HTTP/1.1 100 ")):
        with connect(guarded.url) as connection:
            asked = b"Authorization: Bearer %s\r\nContent-Length: 9000000\r\nExpect: 100-continue\r\n\r\n"
            connection.sendall(HEAD + asked % token.encode())
            assert connection.recv(65_536).startswith(first)


def test_of_many_viewers_at_once_as_many_are_let_in_as_there_are_places() -> None:
    """256 places admitted 406: each looked before any had sat down."""
    request = b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with running_viewer() as viewer, ExitStack() as closing:
        viewers = [closing.enter_context(connect(viewer.url)) for _ in range(VIEWER_LIMIT + 150)]
        for each in viewers:
            each.sendall(request)
        answers = [each.recv(12) for each in viewers]
        assert answers.count(b"HTTP/1.1 200") == VIEWER_LIMIT
        assert answers.count(b"HTTP/1.1 503") == 150
        assert viewer.state().receiver.viewers == VIEWER_LIMIT
        still_serves(viewer, 0.5)
        for each in viewers:
            each.close()
        wait_for(lambda: viewer.state().receiver.viewers == 0, "all places free again", GENEROUS_S)


def test_a_web_socket_is_a_plain_request_here(guarded: Viewer) -> None:
    """Whatever is installed beside us: a connection that is no longer HTTP would have no limits."""
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
    with connect(guarded.url) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + upgrade + b"\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")


@pytest.fixture(scope="module")
def guarded() -> Iterator[Viewer]:
    with running_viewer(token="s3cret") as viewer:
        yield viewer
