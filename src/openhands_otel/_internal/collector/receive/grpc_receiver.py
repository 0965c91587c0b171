"""OTLP over gRPC, in the same event loop as everything else."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final
from urllib.parse import unquote

import grpc
import grpc.aio

from openhands_otel._internal.collector.absent import Unavailable
from openhands_otel._internal.collector.access import Token, not_for_this
from openhands_otel._internal.collector.points.decode import EXPORT_LIMIT, MalformedRequest
from openhands_otel._internal.collector.receive.auth import FORWARDED, is_loopback
from openhands_otel._internal.collector.receive.connection import BODY_S, HEAD_S
from openhands_otel._internal.collector.receive.connections import connection_limit
from openhands_otel._internal.collector.receive.receiver import METRICS_SIGNAL, NotTheirs, Receiver
from openhands_otel._internal.collector.receive.room import ROOM, SMALL, Room
from openhands_otel._internal.collector.receive.tls import Tls
from openhands_otel._internal.collector.supervision import keep_running
from openhands_otel._internal.host.named_tokens import Right
from openhands_otel._internal.host.neighbours import Address, is_mine, owner_of_peer
from openhands_otel.semconv import BEAT_HEADER, REPLAYED_HEADER

OVER_GRPC: Final = "OTLP/gRPC"
"""The part whose health is told."""
_SERVICES: Final = {
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
}
_STOP_GRACE_S: Final = 0.5
_CALL_LIMIT: Final = 256
_LIMITS: Final = (
    ("grpc.max_receive_message_length", EXPORT_LIMIT),
    ("grpc.max_concurrent_streams", 64),
    # Until HTTP/2 is agreed on.
    ("grpc.server_handshake_timeout_ms", int(HEAD_S * 1000)),
    # Senders speak once a minute at least, and come back by themselves.
    ("grpc.max_connection_idle_ms", 300_000),
    # Of a peer that is gone without a word its connection would stay for ever.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)

Context = grpc.aio.ServicerContext[bytes, bytes]


class PortInUse(OSError):
    """The gRPC port cannot be had."""


class GrpcReceiver:
    """A gRPC server for the three signals."""

    def __init__(self, receiver: Receiver, token: Token, host: str, port: int, tls: Tls | None = None) -> None:
        self._receiver = receiver
        self._tls = tls
        self._token = token
        self._host = host
        # As over HTTP: metrics do not wait for the room that spans and logs take.
        others = Room(ROOM // 2)
        self._rooms = {signal: Room(ROOM) if signal == METRICS_SIGNAL else others for signal in _SERVICES}
        self._stopping = False
        self._running: asyncio.Task[None] | None = None
        self.port = port
        self._server: grpc.aio.Server | None = self._open()

    def _open(self) -> grpc.aio.Server:
        """Make a server, and have its port; raises PortInUse."""
        server = grpc.aio.server(
            options=[
                *_LIMITS,
                ("grpc.max_allowed_incoming_connections", connection_limit()[1]),
                # Without this two collectors would share the port, and each get half of the data.
                ("grpc.so_reuseport", 0),
            ],
            maximum_concurrent_rpcs=_CALL_LIMIT,
        )
        for signal, service in _SERVICES.items():
            # Taken as a stream of one message: so the token is looked at before the message is read. Bodies stay bytes
            # here: what cannot be read is answered by us, with a line that says why.
            handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_unary_rpc_method_handler(self._export(signal))
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
        address = f"[{self._host}]" if ":" in self._host else self._host
        _probe(self._host, self.port)
        try:
            where = f"{address}:{self.port}"
            if self._tls is None:
                port = server.add_insecure_port(where)
            else:
                port = server.add_secure_port(where, self._tls.grpc_credentials())
        except RuntimeError:
            port = 0
        if port == 0:
            raise PortInUse(f"{self._host}:{self.port} is in use")
        self.port = port
        return server

    def _export(self, signal: str) -> Callable[[AsyncIterator[bytes], Context], Awaitable[bytes]]:
        room = self._rooms[signal]

        async def export(bodies: AsyncIterator[bytes], context: Context) -> bytes:
            received = time.time_ns()
            metadata = dict(context.invocation_metadata() or ())
            mine = self._is_mine(context) and not any(name in metadata for name in FORWARDED)
            grant = self._token.permits(metadata.get("authorization"), mine)
            if grant is None:
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "a bearer token is needed in 'authorization'")
            if Right.SEND not in grant.rights:
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, not_for_this(grant))
            try:
                replayed = metadata.get(REPLAYED_HEADER) == "1"
                body = await _only(bodies)
                heard = partial(self._note, context)
                async with _room_for(body, room):
                    response = await self._receiver.take(
                        signal, body, json=False, received=received, replayed=replayed, heard=heard, grant=grant
                    )
                if signal == METRICS_SIGNAL and not replayed:
                    beat = f"{self._receiver.store.fleet.lives.wanted_beat_s:g}"
                    await context.send_initial_metadata(((BEAT_HEADER, beat),))
            except MalformedRequest as error:
                self._receiver.store.refuse_request(str(error), context.peer())
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except NotTheirs as error:
                self._receiver.store.refuse_request(str(error), context.peer())
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
            except Unavailable as error:
                self._receiver.store.refuse_request(str(error), context.peer())
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            except TimeoutError:
                late = f"the message took longer than {BODY_S:g} seconds"
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, late)
            return response.SerializeToString()

        return export

    def _is_mine(self, context: Context) -> bool:
        peer = _address(context.peer())
        if peer is None or not is_loopback(peer[0]):
            return False
        return is_mine(owner_of_peer(("::1" if ":" in peer[0] else "127.0.0.1", self.port), peer))

    def _note(self, context: Context, processes: list[str]) -> None:
        peer = _address(context.peer())
        if peer is not None and len(processes) == 1 and is_loopback(peer[0]):
            here = "::1" if ":" in peer[0] else "127.0.0.1"
            self._receiver.store.fleet.lives.called(processes[0], (here, self.port), peer)

    async def start(self) -> None:
        """Begin to serve, and begin anew should the server end."""
        if self._server is not None:
            await self._server.start()
        health = self._receiver.store.health
        self._running = asyncio.create_task(keep_running(health, OVER_GRPC, self._serve, lambda: self._stopping))

    async def _serve(self) -> None:
        if self._server is None:
            server = self._open()
            await server.start()
            self._server = server
        # Shielded: gRPC would take a cancellation for its own end, and never stop.
        await asyncio.shield(self._server.wait_for_termination())
        self._server = None

    async def stop(self) -> None:
        self._stopping = True
        if self._running is not None:
            self._running.cancel()
        if self._server is not None:
            await self._server.stop(_STOP_GRACE_S)


def _address(peer: str) -> Address | None:
    """Of gRPC's name for a peer, as in ``ipv4:127.0.0.1:4711`` or ``ipv6:%5B::1%5D:4711``."""
    family, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    return (host.strip("[]"), int(port)) if family in {"ipv4", "ipv6"} and port.isdigit() else None


@asynccontextmanager
async def _room_for(body: bytes, room: Room) -> AsyncGenerator[None]:
    """Room for a message while it is taken. It is here as a whole, so to wait for room would take as much; raises
    Unavailable."""
    size = len(body) if len(body) > SMALL else 0
    await room.take(size, wait_s=0.0)
    try:
        yield
    finally:
        room.give_back(size)


async def _only(bodies: AsyncIterator[bytes]) -> bytes:
    """The one message of a call; raises TimeoutError."""
    async with asyncio.timeout(BODY_S):
        async for body in bodies:
            return body
    raise MalformedRequest("the call has no message")


def _probe(host: str, port: int) -> None:
    # gRPC writes a line of its own to standard error when it cannot have a port; ask before it does.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(1)
        except OSError:
            raise PortInUse(f"{host}:{port}") from None
