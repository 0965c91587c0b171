"""OTLP over HTTP, to a real viewer in a process of its own."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator

import httpx
import pytest
from google.protobuf import json_format
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from viewer_process import Viewer, running_viewer

from openhands_otel import semconv
from openhands_otel._internal.collector.points.decode import DECODED_LIMIT, EXPORT_LIMIT
from otlp_sender import Sender


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        yield viewer


def held(viewer: Viewer) -> str:
    """Everything that a request could have changed, as text."""
    state = viewer.state()
    totals = state.totals.model_dump(exclude={"burn", "received_unix_nano"})
    return f"{totals} {[stats.model_dump() for stats in state.conversations]} {viewer.http.get('/api/v1/totals').text}"


def cost_of(viewer: Viewer, conversation: str) -> float:
    return viewer.http.get(f"/api/v1/conversations/{conversation}").raise_for_status().json()["accumulated_cost"]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("as_json", [False, True])
def test_protobuf_and_json_are_taken_plain_and_compressed(viewer: Viewer, as_json: bool, compressed: bool) -> None:
    name = f"taken-{as_json}-{compressed}"
    request = Sender(name).converse(name, 0.125).request()
    body = json_format.MessageToJson(request).encode() if as_json else request.SerializeToString()
    headers = {"content-type": "application/json; charset=utf-8" if as_json else "application/x-protobuf"}
    if compressed:
        body, headers = gzip.compress(body), headers | {"content-encoding": "gzip"}
    response = viewer.http.post("/v1/metrics", content=body, headers=headers)
    assert response.status_code == 200
    assert response.headers["content-type"] == headers["content-type"].partition(";")[0]
    assert response.content == (b"{}" if as_json else b"")
    assert cost_of(viewer, name) == 0.125


def test_traces_and_logs_are_taken_and_counted(viewer: Viewer) -> None:
    traces = ExportTraceServiceRequest()
    traces.resource_spans.add().scope_spans.add().spans.add()
    logs = ExportLogsServiceRequest()
    logs.resource_logs.add().scope_logs.add().log_records.add()
    before = viewer.state().receiver
    assert viewer.post(traces.SerializeToString(), "/v1/traces").status_code == 200
    assert viewer.post(logs.SerializeToString(), "/v1/logs").status_code == 200
    after = viewer.state().receiver
    assert (after.spans - before.spans, after.log_records - before.log_records) == (1, 1)


def test_points_left_out_are_told_and_the_others_count(viewer: Viewer) -> None:
    sender = Sender("partial").converse("partial", 0.5).spend(float("nan"))
    response = ExportMetricsServiceResponse.FromString(viewer.post(sender.body()).content)
    assert response.partial_success.rejected_data_points == 1
    assert semconv.COST.name in response.partial_success.error_message
    assert cost_of(viewer, "partial") == 0.5


BOMB = gzip.compress(bytes(DECODED_LIMIT + 1))


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (400, b"\xff\xff\xff\xff", {}),
        (400, b"not gzip", {"content-encoding": "gzip"}),
        (400, gzip.compress(b"\xff\xff\xff\xff"), {"content-encoding": "gzip"}),
        (413, BOMB, {"content-encoding": "gzip"}),
        (413, bytes(EXPORT_LIMIT + 1), {}),
        (415, b"", {"content-encoding": "br"}),
        (415, b"", {"content-type": "text/plain"}),
        (400, b"[1]", {"content-type": "application/json"}),
    ],
    ids=["noise", "no gzip", "gzipped noise", "bomb", "too long", "brotli", "plain text", "other JSON"],
)
def test_what_cannot_be_read_is_refused_in_one_line_and_changes_nothing(
    viewer: Viewer, status: int, body: bytes, headers: dict[str, str]
) -> None:
    viewer.send(Sender("steady").spend(1.5).converse("steady", 1.5))
    before = held(viewer)
    response = viewer.http.post(
        "/v1/metrics", content=body, headers={"content-type": "application/x-protobuf"} | headers
    )
    assert response.status_code == status
    if response.headers["content-type"] == "application/x-protobuf":
        message = Status.FromString(response.content).message
    else:
        message = response.json()["message"]
    assert message
    assert "\n" not in message
    assert held(viewer) == before


def test_a_body_without_a_length_is_cut_off_at_the_limit(viewer: Viewer) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(EXPORT_LIMIT // 65_536 + 8):
            yield bytes(65_536)

    try:
        response = viewer.http.post(
            "/v1/metrics", content=endless(), headers={"content-type": "application/x-protobuf"}
        )
        assert response.status_code == 413
    except httpx.WriteError:
        pass  # The connection was closed on us while we were still talking; that is a refusal too.
    assert viewer.http.get("/healthz").status_code == 200


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_random_bytes_cost_the_receiver_nothing(viewer: Viewer, data: st.DataObject) -> None:
    viewer.send(Sender("steady").spend(1.5).converse("steady", 1.5).introduce("steady").state("steady", "running"))
    before = held(viewer)
    sound = Sender("fuzz").spend(2.0).converse("steady", 9.0).body()
    body = data.draw(
        st.one_of(st.binary(max_size=400), st.integers(1, len(sound) - 1).map(lambda cut: sound[:cut] + b"\xff"))
    )
    path = data.draw(st.sampled_from(["/v1/metrics", "/v1/traces", "/v1/logs"]))
    headers = data.draw(
        st.sampled_from(
            [{}, {"content-encoding": "gzip"}, {"content-type": "application/json"}, {"content-type": "a/b"}]
        )
    )
    response = viewer.post(body, path, **{name.replace("-", "_"): value for name, value in headers.items()})
    assert response.status_code in {200, 400, 415}
    if response.status_code != 200:
        assert held(viewer) == before


def test_half_a_request_and_a_closed_connection_change_nothing(viewer: Viewer) -> None:
    viewer.send(Sender("steady").spend(1.5).converse("steady", 1.5))
    before = held(viewer)
    host, port = viewer.url.removeprefix("http://").split(":")
    body = Sender("half").spend(7.0).body()
    for sent in (len(body) // 2, 0):
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /v1/metrics HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-protobuf\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:sent])
    assert held(viewer) == before
