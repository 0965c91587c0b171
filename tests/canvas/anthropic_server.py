"""A scripted provider of Claude on loopback: Anthropic's Messages API, streamed or not, with a bill of its own."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

PRICES = {"claude-opus-5": (5.0, 0.5, 6.25, 25.0), "claude-sonnet-5": (3.0, 0.3, 3.75, 15.0)}
"""US dollars per million tokens: input, read from the cache, written to it, output."""


@dataclass(frozen=True)
class Charge:
    """One answer; the input does not contain what was read from the cache or written to it."""

    model: str
    input: int
    read: int
    written: int
    output: int

    @property
    def cost(self) -> float:
        full, read, written, output = PRICES[self.model]
        micros = self.input * full + self.read * read + self.written * written + self.output * output
        return micros * 1e-6


@dataclass
class Block:
    """What an answer consists of: words, or a call of a tool."""

    text: str = ""
    tool: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)


class AnthropicServer(ThreadingHTTPServer):
    """``play`` answers a request's body with what to say."""

    daemon_threads = True

    def __init__(self, play: Callable[[dict[str, Any]], Block]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.play = play
        self.bill: list[Charge] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def total(self) -> float:
        return math.fsum(charge.cost for charge in self.bill)


@contextmanager
def anthropic_server(play: Callable[[dict[str, Any]], Block]) -> Iterator[AnthropicServer]:
    server = AnthropicServer(play)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._send(200, b"", "text/plain")

    def do_POST(self) -> None:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
        if self.path.partition("?")[0] != "/v1/messages":
            problem = {"type": "error", "error": {"type": "not_found_error", "message": self.path}}
            self._send(404, json.dumps(problem).encode())
            return
        server = cast(AnthropicServer, self.server)
        block = server.play(body)
        # Each answer has another number of tokens, so that none can stand for another.
        number = len(server.bill)
        charge = Charge(str(body["model"]), 100 + number, 300 + 10 * number, 20 + number, 50 + number)
        server.bill.append(charge)
        message = _message(number, charge, block)
        if body.get("stream"):
            events = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in _events(message))
            self._send(200, events.encode(), "text/event-stream")
        else:
            self._send(200, json.dumps(message).encode())

    def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Say nothing: the bill is the record."""


def _message(number: int, charge: Charge, block: Block) -> dict[str, Any]:
    content: dict[str, Any] = {"type": "text", "text": block.text}
    if block.tool:
        content = {"type": "tool_use", "id": f"toolu_{number:05}", "name": block.tool, "input": block.arguments}
    usage = {
        "input_tokens": charge.input,
        "cache_read_input_tokens": charge.read,
        "cache_creation_input_tokens": charge.written,
        "cache_creation": {"ephemeral_5m_input_tokens": charge.written, "ephemeral_1h_input_tokens": 0},
        "output_tokens": charge.output,
        "service_tier": "standard",
    }
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": charge.model,
        "content": [content],
        "stop_reason": "tool_use" if block.tool else "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }


def _events(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    (content,) = message["content"]
    is_tool = content["type"] == "tool_use"
    empty = content | ({"input": {}} if is_tool else {"text": ""})
    delta = (
        {"type": "input_json_delta", "partial_json": json.dumps(content["input"])}
        if is_tool
        else {"type": "text_delta", "text": content["text"]}
    )
    usage = message["usage"]
    started = message | {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    yield {"type": "message_start", "message": started}
    yield {"type": "content_block_start", "index": 0, "content_block": empty}
    yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": message["stop_reason"], "stop_sequence": None},
        "usage": usage,
    }
    yield {"type": "message_stop"}
