"""``make stack``, or a fleet: start everything, say where it is, stop with Ctrl-C. What was received stays."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from deploy.native.fleet import Fleet
from deploy.native.ports import Ports
from deploy.native.servers import Servers
from deploy.native.stack import Stack


def default_data(name: str) -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "openhands-otel" / name


def up(data: Path) -> None:
    stack = Stack(data, Ports.free(customary=True))
    _run(stack, lambda: _addresses(stack))
    print(f"stopped; what was received is in {data}")


def fleet(data: Path) -> None:
    made = Fleet(data)
    _run(made, lambda: _fleet_addresses(made))
    print(f"stopped; what was received is in {data}")


def _run(servers: Servers, addresses: Callable[[], str]) -> None:
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: ended.set())
    with servers:
        print(addresses(), flush=True)
        while not ended.wait(1):
            for server in servers.servers:
                if not server.running:
                    print(f"{server.name} has ended and is started again; its log is {server.log}", flush=True)
                    server.start()


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


def _fleet_addresses(fleet: Fleet) -> str:
    return f"""\
OTLP          {fleet.otlp_url} (HTTP), with the token in {fleet.token_file}; {len(fleet.gateways)} gateways behind it
Thanos Query  {fleet.query_url}; {len(fleet.receivers)} receivers behind it, each with a copy
traces        to JAEGER_URL, http://127.0.0.1:14318 where that is not set

    openhands-otel run --endpoint {fleet.otlp_url} --token-file {fleet.token_file} -- python agent.py

Ctrl-C stops it."""
