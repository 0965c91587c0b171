"""A viewer behind a real reverse proxy, under a path, with tokens by name: sent to and looked at through it alone."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from viewer_process import PROTOBUF, Viewer, running_viewer, wait_for

from deploy.native.build import binary
from deploy.native.ports import HOST
from deploy.native.server import Server
from openhands_otel import StatsClient
from openhands_otel._internal.host import named_tokens
from openhands_otel._internal.host.named_tokens import Right
from otlp_sender import Sender

CADDYFILE = """\
{{
    admin off
    persist_config off
    auto_https off
    servers {{
        protocols h1 h2c
    }}
}}
http://:{http} {{
    bind {host}
    respond /ready 200
    redir /spend /spend/
    {route} {{
        reverse_proxy {viewer} {{
            {headers}
        }}
    }}
}}
http://:{grpc} {{
    bind {host}
    reverse_proxy h2c://{viewer_grpc} {{
        {headers}
    }}
}}
"""
ROUTES = {"the path is handed on": "handle /spend/*", "the path is taken away": "handle_path /spend/*"}
SAYS = {"says for whom it speaks": "", "keeps it to itself": "header_up -X-Forwarded-*\n header_up -Via"}


def free_ports(count: int) -> list[int]:
    with_sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in with_sockets]
    for each in with_sockets:
        each.close()
    return ports


@contextmanager
def caddy(folder: Path, viewer: Viewer, route: str, headers: str) -> Iterator[tuple[str, str]]:
    http, grpc_port = free_ports(2)
    where = httpx.URL(viewer.url)
    config = folder / "Caddyfile"
    given = {"http": http, "grpc": grpc_port, "host": HOST, "route": route, "headers": headers}
    config.write_text(CADDYFILE.format(**given, viewer=f"{where.host}:{where.port}", viewer_grpc=viewer.grpc))
    command = [str(binary("caddy")), "run", "--adapter=caddyfile", f"--config={config}"]
    server = Server("caddy", command, f"http://{HOST}:{http}/ready", folder / "caddy.log")
    server.start()
    try:
        server.wait_ready()
        yield f"http://{HOST}:{http}/spend", f"{HOST}:{grpc_port}"
    finally:
        server.stop()


@pytest.fixture(params=[(route, says) for route in ROUTES for says in SAYS], ids=", ".join)
def proxied(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str, Path]]:
    route, says = request.param
    tokens = tmp_path / "tokens.json"
    named_tokens.add(tokens, "first", frozenset({Right.LOOK}))
    options = ("--tokens-file", str(tokens), "--public-url", f"https://{HOST}/spend")
    with running_viewer(*options) as viewer, caddy(tmp_path, viewer, ROUTES[route], SAYS[says]) as (url, grpc_address):
        yield url, grpc_address, tokens


def test_it_is_sent_to_and_looked_at_through_the_proxy(proxied: tuple[str, str, Path]) -> None:
    url, grpc_address, tokens = proxied
    sender, looker = (named_tokens.add(tokens, str(right), frozenset({right})) for right in (Right.SEND, Right.LOOK))
    headers = {"authorization": f"Bearer {sender}"} | PROTOBUF
    with httpx.Client(base_url=url, trust_env=False, timeout=100) as client:

        def sends(name: str, headers: dict[str, str]) -> int:
            return client.post("/v1/metrics", content=Sender(name).spend(1.0).body(), headers=headers).status_code

        wait_for(lambda: sends("one", headers) == 200, "the token")
        assert sends("two", PROTOBUF) == 401
        assert client.get("/api/v1/state").status_code == 401
        page = client.get("/")
        assert "assets/page.js" in page.text
        with grpc.insecure_channel(grpc_address) as channel:
            export = MetricsServiceStub(channel).Export
            export(Sender("three").spend(1.0).request(), metadata=(("authorization", f"Bearer {sender}"),), timeout=100)
            with pytest.raises(grpc.RpcError) as refused:
                export(Sender("four").spend(1.0).request(), timeout=100)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with client.stream("GET", "/api/v1/events", headers={"authorization": f"Bearer {looker}"}) as stream:
            lines = (line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: "))
            assert json.loads(next(lines))["state"]["totals"]["accumulated_cost"] == 2.0
            # What happens now is there now: the proxy holds nothing back.
            assert sends("five", headers) == 200
            assert json.loads(next(lines))["totals"]["accumulated_cost"] == 3.0
    with StatsClient(url, token=looker) as stats:
        assert stats.state().totals.accumulated_cost == 3.0
        assert stats.spend().total.accumulated_cost == 3.0
