"""OTLP over HTTP: POST /v1/metrics, /v1/traces, /v1/logs, in protobuf or JSON, plain or compressed.

How long a body may take is the connection's affair (``connection.py``); how much of all bodies is in memory is ours.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc.code_pb2 import INVALID_ARGUMENT, PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNAVAILABLE
from google.rpc.status_pb2 import Status
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from openhands_otel import semconv
from openhands_otel._internal.asking.endpoints import JSON
from openhands_otel._internal.collector.absent import Unavailable
from openhands_otel._internal.collector.access import visitor_of
from openhands_otel._internal.collector.points.decode import EXPORT_LIMIT, MalformedRequest, TooLarge
from openhands_otel._internal.collector.receive.connection import STATE_KEY, Connection
from openhands_otel._internal.collector.receive.decompress import UnknownEncoding, coding_of
from openhands_otel._internal.collector.receive.receiver import METRICS_SIGNAL, SIGNALS, NotTheirs, Receiver
from openhands_otel._internal.collector.receive.room import ROOM, SMALL, Room

PROTOBUF: Final = "application/x-protobuf"
_OWN_AGENT: Final = "openhands-otel/"
"""How our own senders call themselves; each keeps one connection for its life."""
_REPLAYED: Final = semconv.REPLAYED_HEADER.lower().encode()
_BEAT: Final = semconv.BEAT_HEADER.lower().encode()


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: int = INVALID_ARGUMENT) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def doors(receiver: Receiver) -> dict[str, ASGIApp]:
    """What answers a POST, by path."""
    # Metrics do not wait for the room that spans and logs take.
    others = Room(ROOM // 2)
    return {
        f"/v1/{signal}": _SignalDoor(receiver, signal, Room(ROOM) if signal == METRICS_SIGNAL else others)
        for signal in SIGNALS
    }


class _SignalDoor:
    """Takes the exports of one signal."""

    def __init__(self, receiver: Receiver, signal: str, room: Room) -> None:
        self._receiver, self._signal, self._room = receiver, signal, room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._export(Request(scope, receive))
        await response(scope, receive, send)

    async def _export(self, request: Request) -> Response:
        receiver, received = self._receiver, time.time_ns()
        # The first of each name, as Starlette has it, which looks through all of them each time.
        headers = dict(reversed(request.scope["headers"]))
        media_type = _text(headers, b"content-type").partition(";")[0].strip().lower()
        try:
            if media_type not in {PROTOBUF, JSON}:
                raise _Refused(415, f"the content type must be {PROTOBUF} or {JSON}")
            coding = coding_of(_text(headers, b"content-encoding"))
            replayed = headers.get(_REPLAYED) == b"1"
            body = await _body(request, _text(headers, b"content-length"), self._room)
            ours = _text(headers, b"user-agent").startswith(_OWN_AGENT)
            heard = partial(_note, request, receiver, ours)
            grant = visitor_of(request).grant
            response = await receiver.take(
                self._signal, body, media_type == JSON, received, coding, replayed, heard, grant
            )
        except ClientDisconnect:
            return Response(status_code=400)
        except _Refused as refused:
            return _refuse(receiver, request, media_type, refused)
        except UnknownEncoding as error:
            return _refuse(receiver, request, media_type, _Refused(415, str(error)))
        except MalformedRequest as error:
            return _refuse(receiver, request, media_type, _Refused(400, str(error)))
        except NotTheirs as error:
            return _refuse(receiver, request, media_type, _Refused(403, str(error), PERMISSION_DENIED))
        except TooLarge as error:
            return _refuse(receiver, request, media_type, _Refused(413, str(error), RESOURCE_EXHAUSTED))
        except Unavailable as error:
            return _refuse(receiver, request, media_type, _Refused(503, str(error), UNAVAILABLE))
        answer = _encode(response, media_type, 200)
        if self._signal == METRICS_SIGNAL and not replayed:
            beat_s = receiver.store.fleet.lives.wanted_beat_s
            answer.raw_headers.append((_BEAT, f"{beat_s:g}".encode()))
        return answer


def _text(headers: dict[bytes, bytes], name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1")


async def _body(request: Request, announced: str, room: Room) -> bytes:
    """The whole body as it was sent; ``announced`` says how long it is to be."""
    if announced.isdigit() and int(announced) > EXPORT_LIMIT:
        raise _too_large()
    pieces: list[bytes] = []
    size = held = 0
    try:
        async for piece in request.stream():
            size += len(piece)
            if size > EXPORT_LIMIT:
                raise _too_large()
            if size > SMALL and (missing := size - held):
                await room.take(missing)
                held = size
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        room.give_back(held)


def _too_large() -> TooLarge:
    return TooLarge(f"the body is larger than {EXPORT_LIMIT} bytes")


def _note(request: Request, receiver: Receiver, ours: bool, processes: list[str]) -> None:
    """Who speaks over a connection: when it breaks, that says something of a process that is there alone."""
    connection = getattr(request.state, STATE_KEY, None)
    if not isinstance(connection, Connection):
        return
    connection.is_sender = True
    for process in connection.spoke(processes):
        receiver.store.fleet.lives.connected(process, ours)


def _refuse(receiver: Receiver, request: Request, media_type: str, refused: _Refused) -> Response:
    receiver.store.refuse_request(str(refused), request.client.host if request.client else "")
    return _encode(Status(code=refused.code, message=str(refused)), media_type, refused.status)


def _encode(message: Message, media_type: str, status: int) -> Response:
    headers = {"retry-after": "1"} if status == 503 else None
    if media_type == PROTOBUF:
        return Response(message.SerializeToString(), status, headers, PROTOBUF)
    return Response(json_format.MessageToJson(message, indent=None), status, headers, JSON)
