"""A small OTLP receiver of all signals that reads spans: HTTP and gRPC, raw bodies and what is in them."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otlp_server import Answer, grpc_server, http_server

SIGNALS = {
    f"/opentelemetry.proto.collector.{word}.v1.{word.capitalize()}Service/Export": signal
    for word, signal in (("trace", "traces"), ("metrics", "metrics"), ("logs", "logs"))
}


@dataclass(frozen=True)
class Received:
    """One received span."""

    name: str
    span_id: bytes
    parent_id: bytes
    trace_id: bytes
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]


@dataclass
class TraceReceiver:
    """Everything received, oldest first."""

    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    others: dict[str, list[bytes]] = field(default_factory=dict)
    """What is no spans, by signal."""

    @property
    def base(self) -> str:
        """What OTEL_EXPORTER_OTLP_ENDPOINT wants."""
        return self.url.removesuffix("/v1/traces")

    def take(self, signal: str, body: bytes, headers: Mapping[str, str]) -> None:
        raw = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        if signal != "traces":
            self.others.setdefault(signal, []).append(raw)
            return
        self.headers.append(headers)
        self.bodies.append(raw)

    @property
    def spans(self) -> list[Received]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in list(self.bodies)]
        return [
            Received(
                span.name,
                span.span_id,
                span.parent_span_id,
                span.trace_id,
                _attributes(span.attributes),
                _attributes(resource.resource.attributes),
            )
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def tree(self) -> list[Any]:
        """Names under names, sorted; each span must be there once, and so must its parent."""
        spans = self.spans
        known = {span.span_id for span in spans}
        assert len(known) == len(spans), "a span came twice"
        assert all(not span.parent_id or span.parent_id in known for span in spans), "an orphan"

        def under(parent: bytes) -> list[Any]:
            found = [{span.name: under(span.span_id)} for span in spans if span.parent_id == parent]
            return sorted(found, key=str)

        return under(b"")


@contextmanager
def http_trace_receiver() -> Iterator[TraceReceiver]:
    """Receive OTLP/HTTP; ``url`` is what OTEL_EXPORTER_OTLP_TRACES_ENDPOINT wants."""
    receiver = TraceReceiver()

    def take(path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        receiver.take(path.rpartition("/")[2], body, headers)
        return 200, b""

    with http_server(take, lambda: "application/x-protobuf") as port:
        receiver.url = f"http://127.0.0.1:{port}/v1/traces"
        yield receiver


@contextmanager
def grpc_trace_receiver() -> Iterator[TraceReceiver]:
    """Receive OTLP/gRPC."""
    receiver = TraceReceiver()

    class Services(grpc.GenericRpcHandler):
        """Takes bytes as they come: an answer without a field is the same for every signal."""

        def service(self, call_details: grpc.HandlerCallDetails) -> Any:
            signal = SIGNALS.get(str(call_details.method))
            metadata = {key: str(value) for key, value in call_details.invocation_metadata or ()}

            def export(request: bytes, context: grpc.ServicerContext) -> bytes:
                receiver.take(signal or "unknown", request, metadata)
                return b""

            return grpc.unary_unary_rpc_method_handler(export)

    with grpc_server(lambda server: server.add_generic_rpc_handlers((Services(),))) as port:
        receiver.url = f"http://127.0.0.1:{port}"
        yield receiver


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
