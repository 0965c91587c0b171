"""The collector as one thing to start and stop in the caller's event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path

import grpc.aio
import httpx
import pytest
from viewer_process import PROTOBUF

from openhands_otel._internal.collector.housekeeping import HOUSEKEEPING
from openhands_otel._internal.collector.receive.connections import ACCEPTING, TIME_LIMITS
from openhands_otel._internal.collector.receive.grpc_receiver import _SERVICES, OVER_GRPC, PortInUse
from openhands_otel._internal.collector.server import HTTP, LIVENESS, Collector, StartError
from openhands_otel.settings import ViewerSettings
from otlp_sender import Sender
from stopwatch import Stopwatch


def settings(**given: object) -> ViewerSettings:
    return ViewerSettings.model_validate({"port": 0, "grpc_port": 0} | given)


def test_it_starts_on_free_ports_and_stops() -> None:
    async def go() -> None:
        collector = Collector(settings())
        await collector.start()
        assert collector.http_port != 0
        assert collector.grpc_port != 0
        async with httpx.AsyncClient(base_url=collector.url, trust_env=False) as client:
            answer = await client.post("/v1/metrics", content=Sender("p").spend(0.5).body(), headers=PROTOBUF)
            assert answer.status_code == 200
            assert (await client.get("/api/v1/totals")).json()["totals"]["accumulated_cost"] == 0.5
        await collector.stop()
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", collector.http_port)) != 0

    asyncio.run(go())


def test_it_stops_at_once_although_viewers_are_connected(tmp_path: Path) -> None:
    async def go() -> float:
        collector = Collector(settings(database=tmp_path / "h.sqlite3"))
        await collector.start()
        async with (
            httpx.AsyncClient(base_url=collector.url, trust_env=False) as client,
            client.stream("GET", "/api/v1/events"),
        ):
            watch = Stopwatch()
            await collector.stop()
            return watch.s()

    assert asyncio.run(go()) < 3


@pytest.mark.parametrize("held", ["port", "grpc_port"])
def test_a_port_in_use_is_named_and_nothing_stays_open(held: str) -> None:
    async def go(port: int) -> None:
        collector = Collector(settings(**{held: port}))
        with pytest.raises(StartError, match=f"port {port} .*in use.*--"):
            await collector.start()
        with socket.socket() as probe:
            for opened in {collector.http_port, collector.grpc_port} - {0, port}:
                assert probe.connect_ex(("127.0.0.1", opened)) != 0

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        asyncio.run(go(holder.getsockname()[1]))


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_it_listens_to_other_machines_only_with_a_token(host: str) -> None:
    async def go() -> None:
        with pytest.raises(StartError, match="--token-file"):
            await Collector(settings(host=host)).start()
        with pytest.raises(StartError, match="--token-file"):
            await Collector(settings(host=host, token="")).start()

    asyncio.run(go())


def test_an_address_of_another_machine_is_refused_in_one_line() -> None:
    async def go() -> None:
        with pytest.raises(StartError, match=r"192\.0\.2\.1"):
            await Collector(settings(host="192.0.2.1", token="x")).start()

    asyncio.run(go())


@pytest.mark.parametrize("content", ["", "two words", "\n", "t\u00f6ken"])
def test_a_token_file_without_a_token_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)

    async def go() -> None:
        with pytest.raises(StartError, match="token file"):
            await Collector(settings(token_file=path)).start()

    asyncio.run(go())


def test_two_collectors_in_one_process_do_not_meet() -> None:
    async def go() -> None:
        first, second = Collector(settings()), Collector(settings())
        await first.start()
        await second.start()
        async with httpx.AsyncClient(trust_env=False) as client:
            body = Sender("p").spend(0.5).body()
            await client.post(f"{first.url}/v1/metrics", content=body, headers=PROTOBUF)
            totals = (await client.get(f"{second.url}/api/v1/totals")).json()["totals"]
        assert totals["accumulated_cost"] == 0
        await first.stop()
        await second.stop()

    asyncio.run(go())


async def ends(part: str) -> None:
    """The task that does ``part`` ends, as nothing in the collector means it to."""
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == f"openhands-otel {part}")
    task.cancel()


async def whole_again(
    client: httpx.AsyncClient, collector: Collector, channel: grpc.aio.Channel, senders: Sequence[Sender], cost: float
) -> None:
    """Both doors take what is sent, history is saved, health is well."""
    first, second = senders
    export = channel.unary_unary(f"/{_SERVICES['metrics']}/Export")
    await export(first.spend(cost).body(), wait_for_ready=True, timeout=30)
    answer = await client.post("/v1/metrics", content=second.spend(cost).body(), headers=PROTOBUF)
    assert answer.status_code == 200
    assert (await client.get("/api/v1/totals")).json()["totals"]["accumulated_cost"] == 2 * cost
    store = collector.store
    assert store is not None
    async with asyncio.timeout(30):
        while store.fleet.dirty or store.health.problems:
            await asyncio.sleep(0.05)
    assert (await client.get("/healthz")).status_code == 200


def test_a_part_that_ends_is_told_by_health_and_begins_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kind: a background task dies unseen (issue 10, row 9). Cancelled, ended or failed, whatever the task is."""

    async def go() -> None:
        collector = Collector(settings(database=tmp_path / "h.sqlite3"))
        await collector.start()
        senders = Sender("g"), Sender("p")
        limits = httpx.Limits(max_keepalive_connections=0)
        async with (
            httpx.AsyncClient(base_url=collector.url, trust_env=False, timeout=30, limits=limits) as client,
            grpc.aio.insecure_channel(collector.grpc_address) as channel,
        ):
            assert collector.store is not None
            health = collector.store.health
            await whole_again(client, collector, channel, senders, 1.0)
            parts = (HTTP, LIVENESS, ACCEPTING, TIME_LIMITS, OVER_GRPC, HOUSEKEEPING)
            for part in parts:
                await ends(part)
            async with asyncio.timeout(30):
                while not all(health.errors[part] for part in parts):
                    await asyncio.sleep(0)
            assert [problem.partition(":")[0] for problem in health.problems] != []
            await whole_again(client, collector, channel, senders, 2.0)
            # The server behind the task ends, and then cannot have its port for a while.
            grpc_receiver = collector._grpc  # pyright: ignore[reportPrivateUsage]
            assert grpc_receiver is not None
            with monkeypatch.context() as broken:
                broken.setattr(grpc_receiver, "_open", _no_port)
                await grpc_receiver._server.stop(0)  # pyright: ignore
                async with asyncio.timeout(30):
                    while "no port" not in (await client.get("/healthz")).text:
                        await asyncio.sleep(0.05)
            await whole_again(client, collector, channel, senders, 3.0)
        await collector.stop()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("openhands-otel")]

    asyncio.run(go())
    for part in (HTTP, LIVENESS, ACCEPTING, TIME_LIMITS, HOUSEKEEPING):
        assert [record.levelname for record in caplog.records if record.getMessage().startswith(f"{part}: ")] == [
            "ERROR",
            "WARNING",
        ]


def _no_port() -> grpc.aio.Server:
    raise PortInUse("no port")
