"""A small OTLP receiver of all signals that reads spans: HTTP and gRPC, raw bodies and what is in them."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

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

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            signal = self.path.rpartition("/")[2]
            receiver.take(signal, body, {name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


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

    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    server.add_generic_rpc_handlers((Services(),))
    receiver.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield receiver
    finally:
        server.stop(1).wait(5)


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
