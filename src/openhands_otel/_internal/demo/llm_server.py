"""A scripted LLM provider on loopback, OpenAI-compatible, that keeps its own exact bill.

OpenHands cannot tell it from a real one, so the demo and the tests run the real SDK against it, with no key and no
network, and hold every total against what the provider charged. In process it is a context manager; as its own
process it is ``python -m openhands_otel._internal.demo.llm_server --ready-json``. ``GET /bill`` tells the bill and
``PUT /scripts/NAME`` takes a JSON list of answers; ``provider.py`` says how a request finds its script.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType, TracebackType
from typing import Any, Self, cast

from pydantic import TypeAdapter, ValidationError

from openhands_otel._internal.demo import wire
from openhands_otel._internal.demo.answers import Answer, LLMApi, LLMRequest, Script
from openhands_otel._internal.demo.bill import Bill
from openhands_otel._internal.demo.provider import Provider

COST_HEADER = "x-litellm-response-cost"

_APIS: dict[str, LLMApi] = {"/v1/chat/completions": "chat", "/v1/responses": "responses"}
_SCRIPT_PREFIX = re.compile(r"^/s/(?P<script>[^/]+)(?P<rest>/.*)$")
_ANSWERS = TypeAdapter(list[Answer])
_STOP_TIMEOUT_S = 5.0


class LLMServer:
    """The server, in this process: ``with LLMServer() as server: LLM(base_url=server.base_url("script"), ...)``."""

    def __init__(self, port: int = 0) -> None:
        self.provider = Provider()
        self.stopping = threading.Event()
        self._http = _HTTPServer(self, port)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="llm-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._http.hang_up()
        self._thread.join(_STOP_TIMEOUT_S)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def base_url(self, script: str | None = None) -> str:
        """What an ``LLM`` takes as base_url; with ``script``, all its requests are played by that one."""
        return f"{self.url}/s/{script}/v1" if script else f"{self.url}/v1"

    @property
    def bill(self) -> Bill:
        return self.provider.bill

    def script(self, name: str, answers: Script) -> None:
        """Play ``answers`` under this name from now on, from the first one."""
        self.provider.script(name, answers)


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, llm: LLMServer, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.llm = llm
        self._connections: set[socket.socket] = set()

    def connected(self, connection: socket.socket) -> None:
        self._connections.add(connection)

    def disconnected(self, connection: socket.socket) -> None:
        self._connections.discard(connection)

    def hang_up(self) -> None:
        """End kept-alive connections, so that nobody is answered by a server that is gone."""
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours; anything else is worth its traceback."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    @property
    def llm(self) -> LLMServer:
        return cast(_HTTPServer, self.server).llm

    def setup(self) -> None:
        super().setup()
        cast(_HTTPServer, self.server).connected(self.connection)

    def finish(self) -> None:
        cast(_HTTPServer, self.server).disconnected(self.connection)
        super().finish()

    def do_GET(self) -> None:
        if self.path == "/bill":
            self._send_json(200, self.llm.bill.as_json())
        else:
            self._send_json(404, _problem(f"nothing at {self.path}"))

    def do_PUT(self) -> None:
        """``PUT /scripts/NAME`` with a JSON list of answers."""
        data = self._read_body()
        if not self.path.startswith("/scripts/"):
            self._send_json(404, _problem(f"nothing at {self.path}"))
            return
        try:
            answers = _ANSWERS.validate_json(data)
        except ValidationError as error:
            self._send_json(400, _problem(f"not a list of answers: {error}"))
            return
        self.llm.script(self.path.removeprefix("/scripts/"), answers)
        self._send_json(200, {"answers": len(answers)})

    def do_POST(self) -> None:
        data = self._read_body()
        prefixed = _SCRIPT_PREFIX.match(self.path)
        path = prefixed["rest"] if prefixed else self.path
        api = _APIS.get(path)
        if api is None:
            self._send_json(404, _problem(f"nothing at {self.path}"))
            return
        try:
            body = json.loads(data)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            self._send_json(400, _problem("the body is not a JSON object"))
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        named = prefixed["script"] if prefixed else None
        request, answer = self.llm.provider.accept(api, named, headers, cast(dict[str, Any], body))
        self._answer(request, answer)

    def _answer(self, request: LLMRequest, answer: Answer) -> None:
        if self.llm.stopping.wait(answer.delay):
            self.close_connection = True
            return
        if answer.is_error:
            self._send_json(answer.status, wire.error_body(answer))
            return
        usage = self.llm.provider.charge(request, answer)
        headers = {} if answer.cost is None else {COST_HEADER: repr(answer.cost)}
        if request.stream:
            self._send_events(list(wire.events(request, answer, usage)), answer.stream_time, headers)
        else:
            self._send_json(200, wire.body(request, answer, usage), headers)

    def _read_body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _send_json(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def _send_events(self, events: list[bytes], duration: float, headers: dict[str, str]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        for number, event in enumerate(events):
            if number and duration:
                self.llm.stopping.wait(duration / len(events))
            self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Say nothing: the bill is the record."""


def _problem(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error"}}


def main() -> int:
    """Serve until SIGTERM, SIGINT or the end of standard input where asked for."""
    parser = argparse.ArgumentParser(prog="python -m openhands_otel._internal.demo.llm_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--ready-json", action="store_true", help="print one JSON line with the address when ready")
    parser.add_argument("--stop-on-eof", action="store_true", help="stop when standard input is closed")
    options = parser.parse_args()
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    if options.stop_on_eof:
        threading.Thread(target=_wait_for_eof, args=(stop,), daemon=True).start()
    with LLMServer(options.port) as server:
        ready = {"url": server.url, "base_url": server.base_url(), "pid": os.getpid()}
        print(json.dumps(ready) if options.ready_json else f"scripted LLM at {server.base_url()}", flush=True)
        stop.wait()
    return 0


def _wait_for_eof(stop: threading.Event) -> None:
    sys.stdin.buffer.read()
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
