"""``make stack``: start everything, say where it is, stop with Ctrl-C. What was received stays for the next time."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from deploy.native.ports import Ports
from deploy.native.stack import Stack


def default_data() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "openhands-otel" / "stack"


def up(data: Path) -> None:
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: ended.set())
    stack = Stack(data, Ports.free(customary=True))
    with stack:
        print(_addresses(stack), flush=True)
        while not ended.wait(1):
            for server in stack.servers:
                if not server.running:
                    print(f"{server.name} has ended and is started again; its log is {server.log}", flush=True)
                    server.start()
    print(f"stopped; what was received is in {data}")


def _addresses(stack: Stack) -> str:
    return f"""\
OTLP          {stack.otlp_url} (HTTP), {stack.grpc_url} (gRPC), with the token in {stack.token_file}
Prometheus    {stack.prometheus_url}
Jaeger        {stack.jaeger_url} (API; built from its Go module it has no pages)
to scrape     http://127.0.0.1:{stack.ports.scrape}/metrics
data, logs    {stack.data}

    OPENHANDS_OTEL_TRACES=own openhands-otel run --endpoint {stack.otlp_url} \\
        --token-file {stack.token_file} -- python agent.py

Ctrl-C stops it."""
