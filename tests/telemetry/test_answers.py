"""Kinds of fault: what was taken is sent again, and why something was not taken is not told.

The first doubles money where temporality is delta; of the second a user sees a class name and no way out.
"""

from __future__ import annotations

import datetime
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import format_datetime
from pathlib import Path

import certificates
import grpc
import pytest
from certificates import Identity
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from openhands_otel import semconv
from openhands_otel._internal.export.otlp_config import Signal, read_otlp_config
from otlp_receiver import Receiver

from .conftest import refusing, talking_nonsense
from .doors import grpc_door, http_door, send, transport
from .pipes import call, origin, pipeline, put

SIGNALS: tuple[Signal, ...] = ("metrics", "traces")
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
CERTIFICATE = "OTEL_EXPORTER_OTLP_CERTIFICATE"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return certificates.make(tmp_path_factory.mktemp("ours"))


def rejection(points: int, message: str) -> bytes:
    response = ExportMetricsServiceResponse()
    response.partial_success.rejected_data_points = points
    response.partial_success.error_message = message
    return response.SerializeToString()


TAKEN = {
    "nothing": (200, None, b""),
    "a word": (200, "text/plain", b"OK"),
    "a word called protobuf": (200, "application/x-protobuf", b"OK"),
    "a page": (200, "text/html; charset=utf-8", b"<html>welcome</html>"),
    "bytes of no kind": (200, None, b"\xff\xfe\x00garbage"),
    "JSON": (200, "application/json", b"{}"),
    "broken JSON": (200, "application/json", b'{"partialSuccess": '),
    "other JSON": (200, "application/json", b"[1, 2]"),
    "deep JSON": (200, "application/json", b'{"partialSuccess":' * 9_000),
    "accepted": (202, "text/plain", b"queued"),
    "no content": (204, None, b""),
    "partial content": (206, None, b""),
    "a status of nobody": (299, "text/plain", b"fine"),
    "a body without end": (200, "text/plain", b"x" * 1_000_000),
}


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize(("status", "content_type", "body"), TAKEN.values(), ids=TAKEN.keys())
def test_any_2xx_is_a_success_whatever_its_body(
    status: int, content_type: str | None, body: bytes, signal: Signal
) -> None:
    with http_door() as door:
        door.status, door.body = status, body
        door.answer_headers = {} if content_type is None else {"Content-Type": content_type}
        with transport(signal, {ENDPOINT: f"http://127.0.0.1:{door.port}"}) as to:
            outcome = send(to, signal)
    assert outcome.delivered, outcome.reason
    assert len(door.paths) == 1


def test_what_was_taken_with_a_word_counts_once_with_delta_too(receiver: Receiver) -> None:
    receiver.answer, receiver.content_type = (lambda: (200, b"taken")), "text/plain"
    environ = {ENDPOINT: receiver.url, "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}
    with pipeline(environ) as pipe:
        for _ in range(3):
            put(pipe, *call(origin("c"), cost=0.25))
            assert pipe.flush(50)
    assert sum(point.value for point in receiver.points(semconv.COST.name)) == pytest.approx(0.75)


@pytest.mark.parametrize(
    "body",
    [
        b'{"partialSuccess": {"rejectedDataPoints": 3, "errorMessage": "too old"}}',
        b'{"partialSuccess": {"rejectedDataPoints": "3", "errorMessage": "too old"}}',
        b'{"partial_success": {"rejected_data_points": "3", "error_message": "too old"}}',
        b' {"partialSuccess": {"rejectedSpans": 3, "errorMessage": "too\\nold"}}',
        b'{"partialSuccess": {"rejectedDataPoints": "many", "errorMessage": "too old"}}',
        rejection(3, "too old"),
    ],
)
def test_what_was_rejected_of_it_is_told(body: bytes) -> None:
    for content_type in ("application/json", "application/x-protobuf"):
        with http_door() as door:
            door.body, door.answer_headers = body, {"Content-Type": content_type}
            with transport("metrics", {ENDPOINT: f"http://127.0.0.1:{door.port}"}) as to:
                outcome = send(to)
        assert outcome.delivered
        if body[0] in b"{ " or "protobuf" in content_type:
            assert outcome.reason == "the receiver rejected points: too old"


def test_a_warning_is_told_and_a_rejection_over_grpc_too() -> None:
    with grpc_door() as door:
        environ = {ENDPOINT: f"http://127.0.0.1:{door.port}", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
        with transport("metrics", environ) as to:
            for body, said in ((rejection(2, "a\nb"), "rejected points: a b"), (rejection(0, "soon"), "warns: soon")):
                door.body = body
                outcome = send(to)
                assert outcome.delivered
                assert outcome.reason == f"the receiver {said}"


NGINX = b"<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head>"
REFUSALS: Mapping[str, tuple[int, str, bytes, str]] = {
    "text": (400, "text/plain", b"\n  out of \x1b[31mbounds\nsecond line", r"answered 400: out of \x1b[31mbounds"),
    "protobuf": (400, "application/x-protobuf", Status(code=3, message="bad name").SerializeToString(), "bad name"),
    "protobuf in name only": (400, "application/x-protobuf", b"no such tenant", "answered 400: no such tenant"),
    "JSON": (503, "application/json", b'{"code": 14, "message": "queue full"}', "answered 503: queue full"),
    "JSON in JSON": (400, "application/json", b'{"error": {"message": "queue full"}}', "answered 400: queue full"),
    "JSON list": (400, "application/json", b'{"errors": ["queue full"]}', "answered 400: queue full"),
    "page": (502, "text/html", b"<html><head><title>Bad\nGateway</title>", "answered 502: Bad Gateway"),
    "page without a title": (502, "text/html", b"<html><body>x", "answered 502"),
    "long": (400, "text/plain", b"x" * 100_000, "x" * 199 + "…"),
    "nothing": (418, "text/plain", b"", "answered 418"),
    "not allowed": (401, "text/plain", b"", "answered 401 (set OPENHANDS_OTEL_TOKEN_FILE, or a header in"),
    "wrong path": (404, "text/plain", b"404 page not found", f"/v1/metrics is put behind {ENDPOINT})"),
}


@pytest.mark.parametrize(("status", "content_type", "body", "said"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_is_told_with_what_it_says(status: int, content_type: str, body: bytes, said: str) -> None:
    with http_door() as door:
        door.status, door.body, door.answer_headers = status, body, {"Content-Type": content_type}
        with transport("metrics", {ENDPOINT: f"http://127.0.0.1:{door.port}"}) as to:
            outcome = send(to)
    assert not outcome.delivered
    assert outcome.refused is (status == 400), "to be dropped is only what is wrong itself"
    assert said in outcome.reason
    assert outcome.reason.isprintable()
    assert len(outcome.reason) < 400


@pytest.mark.parametrize("door", [b"Client sent an HTTP request to an HTTPS server.\n", NGINX], ids=["Go", "nginx"])
def test_a_door_for_tls_refuses_nothing_that_we_have_sent(door: bytes) -> None:
    with http_door() as opened:
        opened.status, opened.body = 400, door
        with transport("metrics", {ENDPOINT: f"http://127.0.0.1:{opened.port}"}) as to:
            outcome = send(to)
    assert not outcome.refused
    assert f"write https:// in {ENDPOINT}" in outcome.reason


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_with_where_it_leads_and_nothing_is_shown_there(status: int) -> None:
    with http_door() as door, http_door() as other:
        door.status = status
        door.answer_headers = {"Location": f"http://me:secret@127.0.0.1:{other.port}/v1/metrics?key=secret\x1b"}
        environ = {ENDPOINT: f"http://127.0.0.1:{door.port}", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=planted"}
        with transport("metrics", environ) as to:
            outcome = send(to)
    assert not outcome.delivered
    assert f"it redirects to http://127.0.0.1:{other.port}/v1/metrics, which is not followed" in outcome.reason
    assert ENDPOINT in outcome.reason
    assert "secret" not in outcome.reason
    assert other.paths == []


def in_s(seconds: float) -> str:
    """A date as HTTP writes it, counted from the moment when the answer is made."""
    now = datetime.datetime.now(datetime.UTC)
    return format_datetime(now + datetime.timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": "1.5"}, 1.5),
        # By its own clock, which may be far from ours; once as old senders write a date.
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:47 GMT", "Date": "Sun, 06 Nov 1994 08:49:37 GMT"}, 10),
        ({"Retry-After": "Sun Nov  6 08:49:47 1994", "Date": "Sun, 06 Nov 1994 08:49:37 GMT"}, 10),
        ({"Retry-After": "9999999"}, 3600),
    ],
)
def test_retry_after_is_followed(headers: Mapping[str, str], expected: float) -> None:
    with http_door() as door:
        door.status, door.answer_headers = 429, headers
        with transport("metrics", {ENDPOINT: f"http://127.0.0.1:{door.port}"}) as to:
            waits = send(to).retry_after_s
    assert waits == expected


@pytest.mark.parametrize(("given_s", "low", "high"), [(90, 30, 90), (-90, 0, 0)])
def test_a_date_to_come_back_at_is_counted_from_the_answer(given_s: float, low: float, high: float) -> None:
    with http_door() as door, transport("metrics", {ENDPOINT: f"http://127.0.0.1:{door.port}"}) as to:
        door.status, door.answer_headers = 429, {"Retry-After": in_s(given_s)}
        waits = send(to).retry_after_s
    assert waits is not None
    assert low <= waits <= high


@pytest.mark.parametrize("given", ["soon", "-1", "", "nan", "Mon, 99 Foo", "\u0661"])
def test_a_retry_after_that_says_nothing_is_no_wait(given: str) -> None:
    with http_door() as door:
        door.status, door.answer_headers = 503, {"Retry-After": given.encode("utf-8").decode("latin-1")}
        with transport("metrics", {ENDPOINT: f"http://127.0.0.1:{door.port}"}) as to:
            assert send(to).retry_after_s is None


def test_retry_info_is_followed_over_grpc() -> None:
    info = RetryInfo(retry_delay=Duration(seconds=4, nanos=500_000_000))
    status = Status(code=8)
    status.details.add().Pack(info)
    with grpc_door() as door:
        door.code, door.details = grpc.StatusCode.RESOURCE_EXHAUSTED, "slow\x1b down"
        environ = {ENDPOINT: f"http://127.0.0.1:{door.port}", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
        with transport("metrics", environ) as to:
            for name, value in (
                ("google.rpc.retryinfo-bin", info.SerializeToString()),
                ("grpc-status-details-bin", status.SerializeToString()),
                ("grpc-status-details-bin", b"\xff\xff"),
            ):
                door.trailing = ((name, value),)
                outcome = send(to)
                assert outcome.retry_after_s == (None if value == b"\xff\xff" else 4.5)
                assert outcome.reason.endswith(r"RESOURCE_EXHAUSTED, slow\x1b down")


@contextmanager
def closing() -> Iterator[int]:
    """A port whose owner hangs up on everybody."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)

        def hang_up() -> None:
            while True:
                try:
                    connection = listening.accept()[0]
                except OSError:
                    return
                connection.recv(65_536)
                connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)


CAUSES: Mapping[str, tuple[Callable[[Identity], object], str, Mapping[str, str], str]] = {
    "nobody": (lambda _: refusing(), "http://127.0.0.1:PORT", {}, "connection refused"),
    "no such host": (lambda _: refusing(), "http://collector.invalid:PORT", {}, "the host's name is not known"),
    "self-signed": (lambda ours: http_door(ours.server()), "https://127.0.0.1:PORT", {}, f"(set {CERTIFICATE})"),
    "another host": (
        lambda ours: http_door(ours.server(), "127.0.0.2"),
        "https://127.0.0.2:PORT",
        {CERTIFICATE: "OURS"},
        "IP address mismatch",
    ),
    "wants a certificate": (
        lambda ours: http_door(ours.server(asks_for_ours=True)),
        "https://127.0.0.1:PORT",
        {CERTIFICATE: "OURS"},
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    ),
    "TLS to a plain port": (lambda _: http_door(), "https://127.0.0.1:PORT", {}, "write http://"),
    "plain to a TLS port": (lambda ours: http_door(ours.server()), "http://127.0.0.1:PORT", {}, "https://"),
    "HTTP to a gRPC port": (lambda _: grpc_door(), "http://127.0.0.1:PORT", {}, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"),
    "hung up on": (lambda _: closing(), "http://127.0.0.1:PORT", {}, "closed without an answer"),
    "nonsense": (lambda _: talking_nonsense(), "http://127.0.0.1:PORT", {}, "no HTTP"),
    "no scheme": (lambda _: refusing(), "localhost:PORT", {}, f"{ENDPOINT} is no URL with http://"),
    "another scheme": (lambda _: refusing(), "ftp://localhost:PORT", {}, f"{ENDPOINT} is no URL with http://"),
    "a broken host": (lambda _: refusing(), "http://a b:PORT", {}, f"{ENDPOINT} is no URL that can be used"),
    "gRPC to nobody": (
        lambda _: refusing(),
        "http://127.0.0.1:PORT",
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        "Connection refused",
    ),
    "gRPC to HTTP": (
        lambda _: http_door(),
        "http://127.0.0.1:PORT",
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        "http/protobuf",
    ),
    "gRPC, self-signed": (
        lambda ours: grpc_door(ours),
        "https://127.0.0.1:PORT",
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        f"(set {CERTIFICATE})",
    ),
    "gRPC, plain to TLS": (
        lambda ours: grpc_door(ours),
        "http://127.0.0.1:PORT",
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        "https://",
    ),
    "gRPC, TLS to plain": (
        lambda _: grpc_door(),
        "https://127.0.0.1:PORT",
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        "write http://",
    ),
}


@pytest.mark.parametrize(("door", "url", "environ", "said"), CAUSES.values(), ids=CAUSES.keys())
def test_a_failure_is_told_with_its_cause_and_not_with_a_class(
    door: Callable[[Identity], object], url: str, environ: Mapping[str, str], said: str, ours: Identity
) -> None:
    with door(ours) as opened:  # pyright: ignore
        port = opened if isinstance(opened, int) else opened.port
        given = {name: str(ours.authority) if value == "OURS" else value for name, value in environ.items()}
        endpoint = url.replace("PORT", str(port))
        with transport("metrics", {ENDPOINT: endpoint} | given) as to:
            outcome = send(to, timeout_s=8)
    assert not outcome.delivered
    assert said in outcome.reason
    assert "Error" not in outcome.reason
    assert outcome.reason.isprintable()
    assert len(outcome.reason) < 400


@pytest.mark.parametrize(
    ("names", "protocol"),
    [
        ("otlp_proto_http", "http/protobuf"),
        ("otlp_proto_grpc", "grpc"),
        ("console, OTLP_proto_grpc", "grpc"),
        ("otlp", "http/protobuf"),
        ("", "http/protobuf"),
    ],
)
def test_exporters_have_the_names_that_opentelemetry_python_gives_them(names: str, protocol: str) -> None:
    for signal in SIGNALS:
        config = read_otlp_config({f"OTEL_{signal.upper()}_EXPORTER": names}, signal=signal)
        assert (config.exporter, config.protocol) == ("otlp", protocol)
    over = read_otlp_config({"OTEL_METRICS_EXPORTER": names, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert over.protocol == ("http/protobuf" if "http" in names else "grpc"), "a name that says it wins"


def test_a_general_endpoint_keeps_its_query() -> None:
    config = read_otlp_config({ENDPOINT: "https://collector/in/?key=secret"})
    assert config.endpoint == "https://collector/in/v1/metrics?key=secret"
    assert config.shown == "https://collector/in/v1/metrics"
    assert "secret" not in repr(config)


def test_spans_that_cannot_be_sent_are_one_line_and_one_when_they_can_again(caplog: pytest.LogCaptureFixture) -> None:
    from openhands_otel._internal.tracing.own_tracing import OwnSpanExporter

    with http_door() as door, transport("traces", {ENDPOINT: f"http://127.0.0.1:{door.port}"}) as to:
        exporter = OwnSpanExporter(to, 0.3)
        with caplog.at_level(logging.WARNING):
            for status in (503, 400, 503, 200, 200):
                door.status, door.body = status, b"\x1b]0;pwned" if status != 200 else b""
                exporter.export([])
    refused, again = (record.getMessage() for record in caplog.records)
    assert r"answered 503: \x1b]0;pwned; those of this time are lost" in refused
    assert again == "spans are being sent again"


def test_what_is_told_of_a_token_file_is_its_name(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("planted-token")
    with http_door() as door:
        door.status, door.body = 403, b"planted-token may not write here: Bearer planted-token"
        with transport("metrics", {ENDPOINT: f"http://127.0.0.1:{door.port}"}, tmp_path / "token") as to:
            outcome = send(to)
    assert f"(the token is that of {tmp_path / 'token'})" in outcome.reason
    assert "planted" not in outcome.reason.replace(str(tmp_path), "")
    assert "*** may not write here" in outcome.reason
