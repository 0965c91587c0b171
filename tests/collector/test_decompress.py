"""Compressed bodies (kind: what the OpenTelemetry Collector takes is taken here, whole, or refused with the reason)."""

from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import pytest
import zstandard
from google.rpc.status_pb2 import Status
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from viewer_process import Viewer, running_viewer

from openhands_otel import semconv
from openhands_otel._internal.collector.points.decode import DECODED_LIMIT, EXPORT_LIMIT, MalformedRequest, TooLarge
from openhands_otel._internal.collector.receive.decompress import UnknownEncoding, coding_of, decompress
from otlp_sender import Sender


def raw_deflate(plain: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(plain) + deflater.flush()


def streamed_zstd(plain: bytes) -> bytes:
    """As Go's encoder streams it: no size in the frame's head."""
    compressor = zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compressobj()
    return compressor.compress(plain) + compressor.flush()


def zstd(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(plain)


WAYS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "bare deflate": ("deflate", raw_deflate),
    "zstd": ("zstd", zstd),
    "streamed zstd": ("zstd", streamed_zstd),
    "capitals": ("GZip", gzip.compress),
    "identity": ("identity", bytes),
    "identity and one": ("identity, zstd", zstd),
}
PARTS = {"gzip": gzip.compress, "zstd": zstd}


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        yield viewer


def post(viewer: Viewer, body: bytes, coding: str, path: str = "/v1/metrics") -> httpx.Response:
    return viewer.post(body, path, content_encoding=coding)


@pytest.mark.parametrize("way", WAYS)
def test_what_the_real_collector_sends_is_taken(viewer: Viewer, way: str) -> None:
    coding, compress = WAYS[way]
    name = f"taken {way}"
    response = post(viewer, compress(Sender(name).converse(name, 0.125).body()), coding)
    assert response.status_code == 200, response.content
    assert viewer.http.get(f"/api/v1/conversations/{name}").json()["accumulated_cost"] == 0.125


@pytest.mark.parametrize("coding", PARTS)
def test_a_body_of_several_parts_is_taken_whole(coding: str) -> None:
    """The second part carried money, and was dropped with a 200."""
    compress = PARTS[coding]
    assert decompress(b"".join(compress(b"%d " % number) for number in range(500)), coding) == b"".join(
        b"%d " % number for number in range(500)
    )
    assert decompress(compress(b"a") + compress(b"") + compress(b"b" * 300_000), coding) == b"a" + b"b" * 300_000


def test_zeros_behind_a_gzip_member_are_padding() -> None:
    assert decompress(gzip.compress(b"a") + bytes(100) + gzip.compress(b"b") + bytes(7), "gzip") == b"ab"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_half_a_body_and_one_that_goes_on_are_refused(coding: str) -> None:
    whole = WAYS[coding][1](b"points" * 1_000)
    for wrong in (b"", b"plain", whole[:-4], whole[:20], whole + b"more", whole + whole[:10], b"\0" + whole):
        with pytest.raises(MalformedRequest) as refused:
            decompress(wrong, coding)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("way", ["gzip", "deflate", "bare deflate", "zstd", "streamed zstd"])
def test_a_bomb_is_refused_before_it_has_unfolded(way: str) -> None:
    coding, compress = WAYS[way]
    part = compress(bytes(16 * 1024 * 1024))
    bomb = part * 8 if coding in PARTS else compress(bytes(4 * DECODED_LIMIT))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            decompress(bomb, coding)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 3 * DECODED_LIMIT


@pytest.mark.parametrize("coding", PARTS)
def test_a_body_of_countless_parts_is_refused(coding: str) -> None:
    with pytest.raises(MalformedRequest, match="parts"):
        decompress(PARTS[coding](b"") * 100_000, coding)


def test_a_frame_that_wants_a_huge_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(MalformedRequest, match="zstd"):
        decompress(compressor.compress(b"points") + compressor.flush(), "zstd")


@pytest.mark.parametrize("header", ["br", "lz4", "snappy", "gzip, gzip", "zstd, gzip", "\x1b[31m", "compress"])
def test_other_codings_are_refused_in_words(viewer: Viewer, header: str) -> None:
    with pytest.raises(UnknownEncoding) as refused:
        coding_of(header)
    assert "\x1b" not in str(refused.value)
    if header.isprintable():
        response = post(viewer, b"", header)
        assert response.status_code == 415
        assert "encod" in Status.FromString(response.content).message


def large_body() -> bytes:
    """As near to the limit as can be: another program's points, as a real collector batches them, and ours behind."""
    request = Sender("large").converse("large", 0.75).request()
    foreign = pb.Metric(name="foreign.size", unit="By")
    for number in range((EXPORT_LIMIT - 8192) // 345):
        point = foreign.gauge.data_points.add(time_unix_nano=time.time_ns(), as_int=number)
        point.attributes.add(key="name").value.string_value = f"{number:0300}"
    request.resource_metrics[0].scope_metrics.add().metrics.append(foreign)
    filler = request.resource_metrics[0].resource.attributes.add(key="filler").value
    filler.string_value = "x" * (EXPORT_LIMIT - request.ByteSize() - 64)
    return request.SerializeToString()


def test_requests_up_to_the_collectors_own_limit_are_taken(viewer: Viewer) -> None:
    """20 MiB, plain and compressed, several at once: taken whole, in bounded memory."""
    body = large_body()
    assert EXPORT_LIMIT - 128 < len(body) <= EXPORT_LIMIT
    before = viewer.memory_mb()
    with ThreadPoolExecutor(4) as several:
        answers = list(
            several.map(lambda coding: post(viewer, WAYS[coding][1](body), coding), ("identity", "zstd") * 2)
        )
    for answer in answers:
        assert answer.status_code == 200, answer.content
    assert viewer.http.get("/api/v1/conversations/large").json()["accumulated_cost"] == 0.75
    assert viewer.memory_mb() - before < 700
    with grpc.insecure_channel(viewer.grpc, (("grpc.max_send_message_length", -1),)) as channel:
        call = channel.unary_unary("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")
        call(body, timeout=100)
    assert post(viewer, body + bytes(EXPORT_LIMIT + 1 - len(body)), "identity").status_code == 413


IDS = {"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331"}


@pytest.mark.parametrize("temporality", [2, "AGGREGATION_TEMPORALITY_CUMULATIVE"])
@pytest.mark.parametrize("number", [7, "7"])
def test_json_as_the_specification_writes_it_is_taken(viewer: Viewer, temporality: object, number: object) -> None:
    """Ids in hex, enums by number or name, 64-bit numbers as strings or numbers, fields of later versions."""
    name = f"json {temporality} {type(number).__name__}"
    labels = {semconv.CONVERSATION_ID: name, semconv.TOKEN_TYPE: "input", semconv.USAGE_ID: "agent"}
    point = {
        "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in labels.items()],
        "startTimeUnixNano": str(time.time_ns()),
        "timeUnixNano": str(time.time_ns()),
        "asInt": number,
        "exemplars": [{"timeUnixNano": "1", "asInt": number, **IDS}],
    }
    counter = {"aggregationTemporality": temporality, "isMonotonic": True, "dataPoints": [point]}
    metric = {"name": semconv.CONVERSATION_TOKENS.name, "unit": "{token}", "futureField": [1], "sum": counter}
    scope = {"name": semconv.SCOPE_CONVERSATIONS}
    document = {"resourceMetrics": [{"resource": {}, "scopeMetrics": [{"scope": scope, "metrics": [metric]}]}]}
    response = viewer.http.post("/v1/metrics", json=document)
    assert (response.status_code, response.json()) == (200, {})
    stats = viewer.http.get(f"/api/v1/conversations/{name}").json()
    assert stats["accumulated_token_usage"]["prompt_tokens"] == 7
    span = {**IDS, "parentSpanId": IDS["spanId"], "name": "s", "kind": "SPAN_KIND_CLIENT"}
    spans = {"resourceSpans": [{"scopeSpans": [{"spans": [span, {**span, "kind": 3}]}]}]}
    assert viewer.http.post("/v1/traces", json=spans).status_code == 200
    span["traceId"] = "not hex"
    refused = viewer.http.post("/v1/traces", json=spans)
    assert refused.status_code == 400
    assert "traceId" in refused.json()["message"]
