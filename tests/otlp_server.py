"""The servers of the tests' OTLP receivers: HTTP and gRPC on loopback, for the length of a ``with`` block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc

Answer = tuple[int, bytes]
"""Status and body."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    disable_nagle_algorithm = True


@contextmanager
def http_server(
    take: Callable[[str, bytes, Mapping[str, str]], Answer], content_type: Callable[[], str], port: int = 0
) -> Iterator[int]:
    """Hand path, body and headers (in lower case) of each request to ``take``; yields the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = take(self.path, body, {name.lower(): value for name, value in self.headers.items()})
            self.send_response(status)
            self.send_header("Content-Type", content_type())
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with _serving(Handler, port) as taken:
        yield taken


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler], port: int) -> Iterator[int]:
    server = _Server(("127.0.0.1", port), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextmanager
def answering(*bodies: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> Iterator[str]:
    """Answer each connection with the next of ``bodies`` and end it, the last for ever; yields the URL."""
    left = list(bodies)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(head + (left.pop(0) if len(left) > 1 else left[0]))

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with _serving(Handler, 0) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def grpc_server(add_services: Callable[[grpc.Server], object]) -> Iterator[int]:
    """Serve what ``add_services`` adds; yields the port."""
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    add_services(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(1).wait(5)
