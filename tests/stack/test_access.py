"""Nobody gets in without the token, nothing is reachable from elsewhere, and who is turned away is counted."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from deploy.native.server import ServerError
from deploy.native.stack import Stack

from .jaeger_api import Jaeger
from .otlp_http import post, span, traces
from .prometheus_api import wait

SERVICE = "sender"
REFUSED_HTTP = 'http_server_request_duration_seconds_count{http_request_method="POST",http_response_status_code="401"'
REFUSED_GRPC = 'rpc_response_status_code="UNAUTHENTICATED"'


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with a certificate for 127.0.0.1 that has signed itself, and its key."""
    folder = tmp_path / "tls"
    folder.mkdir()
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", "tls.key", "-out", "tls.crt", "-days", "2", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], cwd=folder, check=True, capture_output=True)
    return folder


def own_metrics(stack: Stack) -> list[str]:
    found = httpx.get(f"http://127.0.0.1:{stack.ports.collector_telemetry}/metrics").raise_for_status()
    return found.text.splitlines()


def counted(stack: Stack, what: str) -> float:
    lines = [line for line in own_metrics(stack) if what in line and "_count{" in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def over_grpc(stack: Stack, token: str | None) -> grpc.StatusCode:
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(f"127.0.0.1:{stack.ports.otlp_grpc}") as channel:
        try:
            TraceServiceStub(channel).Export(traces(SERVICE, span("secret")), metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def test_no_token_and_a_wrong_one_are_refused_and_counted(stack: Stack, jaeger: Jaeger) -> None:
    body = traces(SERVICE, span("secret")).SerializeToString()
    url = f"{stack.otlp_url}/v1/traces"
    assert httpx.post(url, content=body, headers={"Content-Type": "application/x-protobuf"}).status_code == 401
    assert post(stack, traces(SERVICE, span("secret")), token="wrong").status_code == 401
    assert over_grpc(stack, None) == grpc.StatusCode.UNAUTHENTICATED
    assert over_grpc(stack, "wrong") == grpc.StatusCode.UNAUTHENTICATED
    assert wait(lambda: counted(stack, REFUSED_HTTP), lambda count: count == 2) == 2
    assert wait(lambda: counted(stack, REFUSED_GRPC), lambda count: count == 2) == 2

    assert post(stack, traces(SERVICE, span("welcome"))).status_code == 200
    assert over_grpc(stack, stack.token) == grpc.StatusCode.OK
    assert wait(lambda: len(jaeger.spans(SERVICE)), lambda count: count == 2) == 2
    assert sorted(found.name for found in jaeger.spans(SERVICE)) == ["secret", "welcome"]


def test_a_token_that_is_replaced_in_its_file_counts_at_once(stack: Stack) -> None:
    old = stack.token
    stack.token_file.write_text("another-token\n")
    assert wait(lambda: post(stack, traces(SERVICE, span("x"))).status_code, lambda code: code == 200) == 200
    assert post(stack, traces(SERVICE, span("x")), token=old).status_code == 401


def test_with_tls_plain_text_is_refused(make_stack: Callable[..., Stack], certificates: Path) -> None:
    stack = make_stack(tls=certificates)
    trust = ssl.create_default_context(cafile=str(certificates / "tls.crt"))
    assert post(stack, traces(SERVICE, span("x")), trust=trust).status_code == 200
    assert post(stack, traces(SERVICE, span("x")), token="wrong", trust=trust).status_code == 401

    plain = httpx.post(f"http://127.0.0.1:{stack.ports.otlp_http}/v1/traces", content=b"")
    assert plain.status_code == 400
    assert over_grpc(stack, stack.token) == grpc.StatusCode.UNAVAILABLE
    with pytest.raises(httpx.ConnectError):
        post(stack, traces(SERVICE, span("x")))


def test_without_a_token_the_collector_does_not_start(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack")
    stack.collector.variables["OTLP_TOKEN_FILE"] = ""
    with pytest.raises(ServerError, match="no bearer token provided"):
        stack.start()
    assert not any(server.running for server in stack.servers)


def test_without_its_certificate_the_collector_does_not_start(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack", tls=tmp_path / "nothing")
    with pytest.raises(ServerError, match="failed to load TLS cert and key"):
        stack.start()


def test_nothing_listens_beyond_loopback(stack: Stack) -> None:
    listening = {
        (server.name, connection.laddr.ip, connection.laddr.port)
        for server in stack.servers
        for connection in psutil.Process(server.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {ip for _, ip, _ in listening} == {"127.0.0.1"}
    assert {port for _, _, port in listening} == set(vars(stack.ports).values())


def test_only_the_owner_can_read_the_token_and_the_data(stack: Stack) -> None:
    assert os.stat(stack.token_file).st_mode & 0o777 == 0o600
    assert os.stat(stack.data).st_mode & 0o777 == 0o700


def test_a_page_of_another_site_may_not_write_to_prometheus(stack: Stack) -> None:
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    url = f"{stack.prometheus_url}/api/v1/otlp/v1/metrics"
    for origin, allowed in (("https://example.com", None), ("http://localhost:3000", "http://localhost:3000")):
        answer = httpx.options(url, headers={"Origin": origin, **preflight})
        assert answer.headers.get("Access-Control-Allow-Origin") == allowed


def test_the_servers_start_without_a_warning(stack: Stack) -> None:
    log = stack.collector.log.read_text()
    assert "Everything is ready" in log
    assert [line for line in log.splitlines() if "\twarn\t" in line or "\terror\t" in line or "deprecat" in line] == []
    # Built from its Go module, Jaeger has no pages, and says so.
    own = [line for line in stack.jaeger.log.read_text().splitlines() if "\twarn\t" in line or "\terror\t" in line]
    assert [line for line in own if "ui assets not embedded" not in line] == []
    assert "level=WARN" not in stack.prometheus.log.read_text()


def test_jaeger_sends_no_spans_of_its_own_to_whoever_has_the_customary_port(stack: Stack, jaeger: Jaeger) -> None:
    assert jaeger.spans(SERVICE) == []
    stack.stop()
    assert ":4317" not in stack.jaeger.log.read_text()
