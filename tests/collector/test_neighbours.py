"""A neighbour on the same machine (kind: whoever shares the machine shares nothing else). With a real second user."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from viewer_process import EXECUTED, PROTOBUF, Viewer, running_viewer, wait_for

from openhands_otel._internal.host import neighbours
from openhands_otel.client import StatsClient, StatsError
from otlp_sender import Sender

from .test_connections import in_this_process

NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user as well")


def become_nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def as_nobody(work: str, *arguments: str) -> str:
    """What a child of this process prints that becomes another user first: it needs to open no file for that."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(writer, 1)
            become_nobody()
            exec(textwrap.dedent(work), {"arguments": arguments, "urllib": urllib, "os": os})
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as out:
        told = out.read()
    os.waitpid(child, 0)
    return told


ASK = """
import http.client, socket
host, port, path, token = arguments
connection = http.client.HTTPConnection(host, int(port), timeout=100)
headers = {"authorization": f"Bearer {token}"} if token else {}
method = "POST" if path == "/v1/metrics" else "GET"
connection.request(method, path, headers=headers | {"content-type": "application/x-protobuf"})
os.write(1, str(connection.getresponse().status).encode())
"""


def status_for_nobody(viewer: Viewer, path: str, token: str = "") -> int:
    host, port = viewer.url.removeprefix("http://").split(":")
    return int(as_nobody(ASK, host, port, path, token))


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        with running_viewer(wrapper=EXECUTED) as viewer:
            yield viewer


def own_token_of(viewer: Viewer) -> str:
    environ = Path(f"/proc/{viewer.process.pid}/environ").read_text().split("\0")
    state = next(entry.partition("=")[2] for entry in environ if entry.startswith("XDG_STATE_HOME="))
    return (Path(state) / "openhands-otel" / "viewer-token").read_text().strip()


@needs_root
def test_another_users_process_is_told_and_may_send_nothing_without_the_token(viewer: Viewer) -> None:
    token = own_token_of(viewer)
    viewer.send(Sender("p").spend(1.5))
    for path in ("/api/v1/state", "/api/v1/totals", "/api/v1/events", "/metrics", "/v1/metrics"):
        assert status_for_nobody(viewer, path) == 401, path
        assert status_for_nobody(viewer, path, "wrong") == 401, path
    assert status_for_nobody(viewer, "/api/v1/totals", token) == 200
    assert status_for_nobody(viewer, "/healthz") == 200
    assert viewer.state().totals.accumulated_cost == 1.5


@needs_root
def test_nor_over_grpc(viewer: Viewer) -> None:
    with grpc.insecure_channel(viewer.grpc) as channel:
        MetricsServiceStub(channel).Export(Sender("q").spend(0.5).request(), timeout=100)
    source = f"""
        import os, sys
        sys.path[:] = {sys.path!r}
        import grpc
        call = grpc.insecure_channel({viewer.grpc!r}).unary_unary(
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")
        os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
        try:
            call(b"", timeout=100)
        except grpc.RpcError as error:
            print(error.code().name)
    """
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], capture_output=True, text=True, timeout=100, check=False
    )
    assert child.stdout.strip() == "UNAUTHENTICATED", child.stderr


@needs_root
def test_a_connection_that_its_process_let_go_of_is_nobodys(viewer: Viewer) -> None:
    """The kernel shows an orphaned socket as root's: whoever sends and is gone at once must not pass for root."""
    host, port = viewer.url.removeprefix("http://").split(":")
    body = Sender("orphan").spend(100.0).body()
    send = """
    import socket
    host, port, head, body = arguments
    for _ in range(30):
        connection = socket.create_connection((host, int(port)))
        connection.sendall(head.encode() + bytes.fromhex(body))
        connection.close()
    """
    head = f"POST /v1/metrics HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-protobuf\r\n"
    as_nobody(send, host, port, f"{head}Content-Length: {len(body)}\r\n\r\n", body.hex())
    assert viewer.http.get("/healthz").status_code == 200
    assert viewer.state().totals.accumulated_cost < 100


@contextmanager
def strangers_server() -> Iterator[int]:
    """Another user's process that listens and notes what it is sent."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        become_nobody()
        import socket

        listener = socket.create_server(("127.0.0.1", 0))
        os.write(writer, f"{listener.getsockname()[1]}\n".encode())
        while True:
            accepted, _ = listener.accept()
            os.write(writer, b"asked\n")
            accepted.close()
    os.close(writer)
    with os.fdopen(reader) as notes:
        port = int(notes.readline())
        try:
            yield port
        finally:
            os.kill(child, 9)
            os.waitpid(child, 0)
        assert notes.read() == "", "something was sent to it"


@needs_root
def test_nothing_is_sent_to_another_users_viewer() -> None:
    from openhands_otel._internal.export.open_transport import open_transport
    from openhands_otel._internal.export.otlp_config import OtlpConfig, read_otlp_config

    with strangers_server() as port:
        for protocol, endpoint in (
            ("http/protobuf", f"http://127.0.0.1:{port}/v1/metrics"),
            ("grpc", f"127.0.0.1:{port}"),
        ):
            transport = open_transport(OtlpConfig(protocol=protocol, endpoint=endpoint, own_only=True))  # type: ignore[arg-type]
            outcome = transport.send(Sender("p").spend(1.0).request(), 5)
            assert not outcome.delivered
            assert "another user's process" in outcome.reason
            transport.close()
        with StatsClient(f"http://127.0.0.1:{port}") as client, pytest.raises(StatsError, match="another user's"):
            client.state()
        watched = subprocess.run(
            [sys.executable, "-m", "openhands_otel", "watch", f"http://127.0.0.1:{port}", "--once"],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert watched.returncode != 0
        assert "another user's process" in watched.stderr
        assert len(watched.stderr.splitlines()) == 1
    assert read_otlp_config({}).own_only
    assert not read_otlp_config({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}).own_only


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}


def test_what_is_at_rest_is_this_users_alone_and_what_was_open_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "openhands-otel"
    database = folder / "history.sqlite3"
    with running_viewer(database=database) as viewer:
        viewer.send(Sender("p").spend(1.0).converse("c", 1.0))
        wait_for(lambda: sqlite3.connect(database) and (folder / "history.sqlite3").stat().st_size > 4096, "saving")
        found = modes(folder)
    assert found.pop("openhands-otel") == 0o700
    assert {"history.sqlite3", "viewer-token"} <= found.keys()
    assert set(found.values()) == {0o600}, found
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    with running_viewer(database=database):
        found = modes(folder)
    assert found.pop("openhands-otel") == 0o700
    assert set(found.values()) <= {0o600}, found


def test_where_no_owner_can_be_told_the_token_is_asked_for_and_a_page_logs_in_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS and Windows."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(
        "openhands_otel._internal.collector.receive.connections.owner_of_peer", lambda here, there: None
    )
    monkeypatch.setattr("openhands_otel._internal.host.state_folder.tells_owners", lambda: False)
    with in_this_process() as collector:
        body = Sender("p").spend(0.5).body()
        assert httpx.get(f"{collector.url}/api/v1/totals", trust_env=False).status_code == 401
        sent = httpx.post(f"{collector.url}/v1/metrics", content=body, headers=PROTOBUF, trust_env=False)
        assert sent.status_code == 401
        # The same user's commands show it unasked.
        with StatsClient(collector.url) as client:
            assert client.totals().totals.accumulated_cost == 0
        login = f"{collector.url}/api/v1/login"
        assert httpx.post(login, content="guess", trust_env=False).status_code == 401
        answer = httpx.post(login, content=collector.login_code, trust_env=False)
        shown = {"authorization": f"Bearer {json.loads(answer.content)['token']}"}
        assert httpx.get(f"{collector.url}/api/v1/totals", headers=shown, trust_env=False).status_code == 200
        assert httpx.post(login, content=collector.login_code, trust_env=False).status_code == 401


def test_the_kernel_tells_this_systems_owners() -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells")
    assert neighbours.tells_owners()
