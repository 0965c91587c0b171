"""Kind of fault: a request that is larger than receivers take is refused for ever, and what waits behind it with it.

gRPC receivers take 4 MiB unless told otherwise, and so do the real ones here. A server with some hundred open
conversations has more to say at once: at each heartbeat, and after each outage.
"""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from openhands_otel import semconv
from openhands_otel._internal.export.pieces import MOST_BYTES, InPieces, pieces_of
from openhands_otel._internal.export.transport import Outcome
from openhands_otel._internal.tracing.own_tracing import OwnSpanExporter
from openhands_otel.semconv import SCOPE_PROCESS, Role
from otlp_receiver import grpc_receiver
from otlp_server import Answer, http_server
from trace_receiver import grpc_trace_receiver

from .doors import transport
from .pipes import opened, origin, pipeline, put, response

CONVERSATIONS = 500
ROLES = (Role.AGENT, Role.CONDENSER, Role.TITLE, Role.SUBAGENT)
GRPC_LIMIT = 4 * 1024 * 1024


def test_a_server_full_of_conversations_is_delivered_whole_over_grpc() -> None:
    with grpc_receiver() as receiver:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
        with pipeline(environ) as agent:
            # All of it becomes one request: nothing is sent before somebody asks.
            events = [
                event
                for number in range(CONVERSATIONS)
                for role in ROLES
                for event in response(origin(f"conversation-{number:040}", role=role, usage_id=f"{role.value}-of-mine"))
            ]
            put(agent, *(opened(f"conversation-{number:040}") for number in range(CONVERSATIONS)), *events)
            assert agent.flush(60)
        sizes = [len(body) for body in receiver.bodies]
        assert sum(sizes) > GRPC_LIMIT
        assert max(sizes) <= 1.1 * MOST_BYTES
        spent = pytest.approx(CONVERSATIONS * len(ROLES) * 0.001)
        assert receiver.total(semconv.COST.name) == spent
        assert receiver.total(semconv.CONVERSATION_COST.name) == spent


def test_spans_with_much_content_are_delivered_over_grpc() -> None:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(60):
        span = scope.spans.add(name=f"chat {number}", span_id=number.to_bytes(8))
        span.attributes.add(key="gen_ai.input.messages").value.string_value = "x" * 100_000
    with grpc_trace_receiver() as receiver:
        environ = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": receiver.url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        }
        with transport("traces", environ) as to:
            assert to.send(request, 20).delivered
        assert len(receiver.spans) == 60


def test_what_was_taken_of_spans_is_not_sent_again_when_a_later_piece_is_not() -> None:
    """A back end that adds up the cost of spans would count them twice."""
    taken: list[bytes] = []
    answers = [200, 200, 503]

    def take(path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        status = answers.pop(0) if answers else 200
        if status == 200:
            raw = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
            said = ExportTraceServiceRequest.FromString(raw)
            taken.extend(span.span_id for each in said.resource_spans for span in each.scope_spans[0].spans)
        return status, b""

    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    for _ in range(30):
        provider.get_tracer("t").start_span("chat", attributes={"said": "x" * 100_000}).end()
    with http_server(take, lambda: "application/x-protobuf") as port:
        environ = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{port}/v1/traces"}
        with transport("traces", environ) as to:
            exporter = OwnSpanExporter(to, timeout_s=60)
            assert exporter.export(spans.get_finished_spans()) is SpanExportResult.SUCCESS
    assert not answers
    assert len(taken) == len(set(taken)) == 30


KINDS: tuple[Callable[[pb.Metric], Any], ...] = (
    lambda metric: metric.gauge,
    lambda metric: metric.sum,
    lambda metric: metric.histogram,
    lambda metric: metric.exponential_histogram,
)
DELTA, CUMULATIVE = pb.AGGREGATION_TEMPORALITY_DELTA, pb.AGGREGATION_TEMPORALITY_CUMULATIVE


def _request(temporality: int) -> ExportMetricsServiceRequest:
    """Two resources, two scopes, metrics of each kind, and what a process says of itself in the middle."""
    request = ExportMetricsServiceRequest()
    for whose in ("one", "other"):
        resource = request.resource_metrics.add(schema_url="a schema")
        resource.resource.attributes.add(key="service.name").value.string_value = whose
        for scope_name in ("of this", SCOPE_PROCESS, "of that"):
            scope = resource.scope_metrics.add(schema_url="another")
            scope.scope.name = scope_name
            for number, of in enumerate(KINDS):
                metric = scope.metrics.add(name=f"metric {number}", unit="1", description="what it is")
                data = of(metric)
                data.SetInParent()
                if number:
                    data.aggregation_temporality = temporality if number == 2 else CUMULATIVE
                if number == 1:
                    data.is_monotonic = True
                for point in range(7):
                    data.data_points.add(time_unix_nano=1_000 + point).attributes.add(
                        key="which"
                    ).value.int_value = point
    return request


def _said(request: Any) -> Iterator[tuple[Any, ...]]:
    """Each point with all that it stands in."""
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                data = getattr(metric, kind)
                about = (metric.name, metric.unit, metric.description, kind, getattr(data, "is_monotonic", None))
                for point in data.data_points:
                    yield (
                        resource.resource.SerializeToString(deterministic=True),
                        resource.schema_url,
                        scope.scope.name,
                        scope.schema_url,
                        *about,
                        getattr(data, "aggregation_temporality", None),
                        point.SerializeToString(deterministic=True),
                    )


@pytest.mark.parametrize("temporality", [CUMULATIVE, DELTA])
@pytest.mark.parametrize("most_bytes", [50, 300, 1_000, 3_000, 1_000_000])
def test_the_pieces_say_what_the_request_said(most_bytes: int, temporality: int) -> None:
    """No point is lost, said twice or changed, and those of a metric stay in order."""
    request = _request(temporality)
    pieces = pieces_of(request, most_bytes)
    assert (len(pieces) == 1) == (request.ByteSize() <= most_bytes)
    said = list(itertools.chain.from_iterable(map(_said, pieces)))
    assert sorted(said) == sorted(_said(request))
    for about in {each[:-1] for each in said}:
        assert [each for each in said if each[:-1] == about] == [each for each in _said(request) if each[:-1] == about]
    heads = 400
    for piece in pieces[:-1]:
        assert piece.ByteSize() <= most_bytes + heads


@pytest.mark.parametrize("most_bytes", [300, 1_000])
def test_deltas_and_farewells_are_in_the_last_piece_undivided(most_bytes: int) -> None:
    """After a failure all are sent again, and a delta would count twice; after its farewell a process is gone."""
    *before, _ = pieces_of(_request(DELTA), most_bytes)
    said = list(itertools.chain.from_iterable(map(_said, before)))
    assert before
    assert DELTA not in {each[-2] for each in said}
    assert SCOPE_PROCESS not in {each[2] for each in said}


def test_what_stops_one_piece_stops_those_behind_it_and_complaints_are_kept() -> None:
    class Receiver:
        def __init__(self, *outcomes: Outcome) -> None:
            self.outcomes = list(outcomes)

        def send(self, request: Any, timeout_s: float) -> Outcome:
            return self.outcomes.pop(0)

        def close(self) -> None: ...

    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    for _ in range(3):
        point = scope.metrics.add(name="m").gauge.data_points.add(as_int=1)
        point.attributes.add(key="long").value.string_value = "x" * 400_000
    assert len(pieces_of(request)) == 2
    stopped = Receiver(Outcome(False, "away", 3.0), Outcome(True))
    assert InPieces(stopped).send(request, 1) == Outcome(False, "away", 3.0)
    assert len(stopped.outcomes) == 1
    late = Receiver(Outcome(True), Outcome(True))
    assert not InPieces(late).send(request, 0.0).delivered, "the time is that of all pieces"
    assert len(late.outcomes) == 1
    complaining = Receiver(Outcome(True, "not all"), Outcome(True, beat_s=3.0))
    assert InPieces(complaining).send(request, 1) == Outcome(True, "not all", beat_s=3.0)
