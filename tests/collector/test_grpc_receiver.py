"""OTLP over gRPC, to a real viewer in a process of its own."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from viewer_process import Viewer, running_viewer

from openhands_otel._internal.collector.access import Token
from openhands_otel._internal.collector.archive.history import Archive
from openhands_otel._internal.collector.points.decode import EXPORT_LIMIT
from openhands_otel._internal.collector.receive import grpc_receiver
from openhands_otel._internal.collector.receive.grpc_receiver import GrpcReceiver
from openhands_otel._internal.collector.receive.receiver import Receiver
from openhands_otel._internal.collector.receive.span_intake import SpanIntake
from openhands_otel._internal.collector.store import Store
from openhands_otel.semconv import REPLAYED_HEADER
from otlp_sender import Sender


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        yield viewer


@pytest.fixture
def channel(viewer: Viewer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(viewer.grpc) as channel:
        yield channel


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_all_three_signals_are_taken(viewer: Viewer, channel: grpc.Channel, compression: grpc.Compression) -> None:
    before = viewer.state()
    sender = Sender(f"p{compression}").spend(0.25)
    MetricsServiceStub(channel).Export(sender.request(), timeout=100, compression=compression)
    traces, logs = ExportTraceServiceRequest(), ExportLogsServiceRequest()
    traces.resource_spans.add().scope_spans.add().spans.add()
    logs.resource_logs.add().scope_logs.add().log_records.add()
    TraceServiceStub(channel).Export(traces, timeout=100)
    LogsServiceStub(channel).Export(logs, timeout=100)
    after = viewer.state()
    assert after.totals.accumulated_cost - before.totals.accumulated_cost == 0.25
    assert after.receiver.spans - before.receiver.spans == 1
    assert after.receiver.log_records - before.receiver.log_records == 1


def test_what_is_told_after_the_event_says_so_over_both_protocols(viewer: Viewer, channel: grpc.Channel) -> None:
    """Kind: order taken from stamps. The spool's are the newest, and what was heard live holds all the same."""
    late = time.time_ns() + 3_600_000_000_000
    told = {
        "grpc": lambda sender: MetricsServiceStub(channel).Export(
            sender.request(), timeout=100, metadata=((REPLAYED_HEADER, "1"),)
        ),
        "http": lambda sender: viewer.post(sender.body(), **{REPLAYED_HEADER: "1"}),
    }
    for name, tell in told.items():
        viewer.send(Sender(f"live-{name}").introduce(name).converse(name, 1.0).state(name, "running"))
        for instance in (f"spool-{name}", f"live-{name}-before"):
            tell(Sender(instance).introduce(name, at=late).converse(name, 0.25, at=late).state(name, "error", at=late))
        stats = next(stats for stats in viewer.state().conversations if stats.conversation_id == name)
        assert (stats.status, stats.accumulated_cost) == ("running", 1.5)


def test_a_malformed_message_is_an_invalid_argument_and_changes_nothing(viewer: Viewer, channel: grpc.Channel) -> None:
    before = viewer.state().totals
    call = channel.unary_unary("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")
    with pytest.raises(grpc.RpcError) as refused:
        call(b"\xff\xff\xff", timeout=100)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "OTLP" in refused.value.details()
    assert viewer.state().totals == before.model_copy(update={"burn": viewer.state().totals.burn})


def test_a_message_over_the_limit_is_refused_even_when_it_travels_small(viewer: Viewer, channel: grpc.Channel) -> None:
    call = channel.unary_unary("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")
    with pytest.raises(grpc.RpcError) as refused:
        call(bytes(EXPORT_LIMIT + 1), timeout=100, compression=grpc.Compression.Gzip)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert viewer.memory_mb() < 250


def test_of_too_much_at_once_what_is_large_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kind: memory that senders may take. Over HTTP a body waits in its connection; a gRPC message is here already."""
    monkeypatch.setattr(grpc_receiver, "SMALL", 1_000)
    monkeypatch.setattr(grpc_receiver, "ROOM", 25_000)
    go_on = asyncio.Event()

    class Busy(Receiver):
        async def take(self, *given: Any, **named: Any) -> Message:
            await go_on.wait()
            return await super().take(*given, **named)

    def body(number: int, size: int) -> bytes:
        request = Sender(f"p{number}").spend(0.25).request()
        request.resource_metrics[0].scope_metrics[0].metrics[0].description = "x" * size
        return request.SerializeToString()

    async def send() -> None:
        archive = Archive(None)
        store = Store(archive)
        store.restore(await archive.open())
        server = GrpcReceiver(Busy(store, SpanIntake(store, 0.0, 0)), Token(None), "127.0.0.1", 0)
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            export = channel.unary_unary("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")
            large = [asyncio.ensure_future(export(body(number, 10_000), timeout=100)) for number in range(3)]
            (refused,), held = await asyncio.wait(large, return_when=asyncio.FIRST_COMPLETED)
            error = refused.exception()
            assert isinstance(error, grpc.aio.AioRpcError)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            small = asyncio.ensure_future(export(body(3, 10), timeout=100))
            go_on.set()
            assert await asyncio.gather(*held, small, export(body(4, 10_000), timeout=100)) == [b""] * 4
        await server.stop()
        assert store.totals().accumulated_cost == 1.0
        await archive.close()

    asyncio.run(send())


def test_crowds_that_never_speak_hold_neither_receiver_up(tmp_path: Path) -> None:
    """gRPC knows no limit of its own: they took all file descriptors, and then HTTP had none."""
    log = tmp_path / "log"
    few = ("prlimit", "--nofile=256:256")
    with log.open("w") as stderr, running_viewer(stderr=stderr, wrapper=few) as viewer, ExitStack() as closing:
        early = MetricsServiceStub(closing.enter_context(grpc.insecure_channel(viewer.grpc)))
        sender = Sender("early")
        early.Export(sender.spend(0.25).request(), timeout=100)
        host, port = viewer.grpc.split(":")
        for _ in range(600):
            with suppress(OSError):
                closing.enter_context(socket.create_connection((host, int(port)), 30))
        assert viewer.http.get("/healthz").status_code == 200
        early.Export(sender.spend(0.5).request(), timeout=100)
        late = MetricsServiceStub(closing.enter_context(grpc.insecure_channel(viewer.grpc)))
        late.Export(Sender("late").spend(0.5).request(), timeout=100, wait_for_ready=True)
        assert viewer.state().totals.accumulated_cost == 1.0
    assert log.stat().st_size < 4_000, log.read_text()[:2_000]


def test_a_message_without_the_token_is_not_read() -> None:
    with (
        running_viewer(token="letmein") as viewer,
        grpc.insecure_channel(viewer.grpc, (("grpc.max_send_message_length", -1),)) as channel,
    ):
        call = channel.unary_unary("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")
        before = viewer.memory_mb()
        for _ in range(10):
            with pytest.raises(grpc.RpcError) as refused:
                call(bytes(EXPORT_LIMIT - 1), timeout=100)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert viewer.memory_mb() - before < 60


def test_the_token_is_asked_for_in_the_metadata() -> None:
    with running_viewer(token="letmein") as viewer, grpc.insecure_channel(viewer.grpc) as channel:
        stub = MetricsServiceStub(channel)
        for metadata in ((), (("authorization", "Bearer wrong"),)):
            with pytest.raises(grpc.RpcError) as refused:
                stub.Export(Sender("p").spend(1.0).request(), timeout=100, metadata=metadata)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert viewer.state().totals.accumulated_cost == 0
        stub.Export(Sender("p").spend(1.0).request(), timeout=100, metadata=(("authorization", "Bearer letmein"),))
        assert viewer.state().totals.accumulated_cost == 1.0
