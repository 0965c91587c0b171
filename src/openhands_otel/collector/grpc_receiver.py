"""OTLP over gRPC, in the same event loop as everything else."""

from __future__ import annotations

import socket
import time
from collections.abc import Awaitable, Callable
from typing import Final

import grpc
import grpc.aio

from openhands_otel.collector.auth import Token
from openhands_otel.collector.decode import BODY_LIMIT, MalformedRequest
from openhands_otel.collector.receiver import Receiver
from openhands_otel.collector.store import Unavailable

_SERVICES: Final = {
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
}
_STOP_GRACE_S: Final = 0.5

Context = grpc.aio.ServicerContext[bytes, bytes]


class PortInUse(OSError):
    """The gRPC port cannot be had."""


class GrpcReceiver:
    """A gRPC server for the three signals."""

    def __init__(self, receiver: Receiver, token: Token, host: str, port: int) -> None:
        self._receiver = receiver
        self._token = token
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", BODY_LIMIT),
                # Without this two collectors would share the port, and each get half of the data.
                ("grpc.so_reuseport", 0),
            ]
        )
        for signal, service in _SERVICES.items():
            # Bodies stay bytes here: what cannot be read is answered by us, with a line that says why.
            handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._export(signal))
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
        address = f"[{host}]" if ":" in host else host
        _probe(host, port)
        try:
            self.port = self._server.add_insecure_port(f"{address}:{port}")
        except RuntimeError:
            self.port = 0
        if self.port == 0:
            raise PortInUse(f"{host}:{port}")

    def _export(self, signal: str) -> Callable[[bytes, Context], Awaitable[bytes]]:
        async def export(body: bytes, context: Context) -> bytes:
            received = time.time_ns()
            shown = dict(context.invocation_metadata() or ()).get("authorization")
            if not self._token.permits(shown):
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "a bearer token is needed in 'authorization'")
            try:
                response = await self._receiver.take(signal, body, json=False, received=received)
            except MalformedRequest as error:
                self._receiver.store.refuse_request(str(error), context.peer())
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except Unavailable as error:
                self._receiver.store.refuse_request(str(error), context.peer())
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            return response.SerializeToString()

        return export

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(_STOP_GRACE_S)


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
