"""Servers at the other end of a transport that answer whatever a test wants, plain or with TLS, and a proxy."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import grpc
from certificates import Identity
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from openhands_otel._internal.export.open_transport import open_transport
from openhands_otel._internal.export.otlp_config import Signal, read_otlp_config
from openhands_otel._internal.export.transport import Outcome, Transport
from otlp_server import grpc_server
from trace_receiver import SIGNALS

REQUESTS = {"metrics": ExportMetricsServiceRequest, "traces": ExportTraceServiceRequest}


@dataclass
class Door:
    """What was asked, and what is answered."""

    port: int = 0
    status: int = 200
    answer_headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    paths: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    code: grpc.StatusCode | None = None
    details: str = ""
    trailing: tuple[tuple[str, Any], ...] = ()


class _V6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


@contextmanager
def http_door(tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Door]:
    """Answers every request, of any method, alike."""
    door = Door()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            door.paths.append(self.path)
            door.headers.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response_only(door.status)
            for name, value in door.answer_headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(door.body)))
            self.end_headers()
            self.wfile.write(door.body)

        do_CONNECT = do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    class Quiet(_V6 if ":" in host else ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    server = Quiet((host, 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    door.port = server.server_address[1]
    try:
        yield door
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def grpc_door(identity: Identity | None = None) -> Iterator[Door]:
    """Takes every signal, or ends each call with ``code``."""
    door = Door()

    class Services(grpc.GenericRpcHandler):
        def service(self, call_details: grpc.HandlerCallDetails) -> Any:
            metadata = {key: str(value) for key, value in cast(Any, call_details.invocation_metadata) or ()}

            def export(request: bytes, context: grpc.ServicerContext) -> bytes:
                door.paths.append(SIGNALS[str(call_details.method)])
                door.headers.append(metadata)
                context.set_trailing_metadata(door.trailing)
                if door.code is not None:
                    context.abort(door.code, door.details)
                return door.body

            return grpc.unary_unary_rpc_method_handler(export)

    def add(server: grpc.Server) -> None:
        server.add_generic_rpc_handlers((Services(),))
        if identity is not None:
            pair = (identity.key.read_bytes(), identity.certificate.read_bytes())
            door.port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))

    with grpc_server(add) as port:
        door.port = door.port or port
        yield door


@contextmanager
def transport(signal: Signal, environ: Mapping[str, str], token_file: Any = None) -> Iterator[Transport]:
    """One to where ``environ`` says."""
    opened = open_transport(read_otlp_config(environ, token_file, signal))
    try:
        yield opened
    finally:
        opened.close()


def send(to: Transport, signal: Signal = "metrics", timeout_s: float = 20) -> Outcome:
    """An empty request: receivers take it as any other."""
    return to.send(REQUESTS[signal](), timeout_s)
