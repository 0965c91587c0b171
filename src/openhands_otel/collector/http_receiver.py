"""OTLP over HTTP: POST /v1/metrics, /v1/traces, /v1/logs, in protobuf or JSON, plain or gzip."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc.code_pb2 import INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNAVAILABLE
from google.rpc.status_pb2 import Status
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from openhands_otel.collector.decode import BODY_LIMIT, MalformedRequest, TooLarge, decompress
from openhands_otel.collector.receiver import SIGNALS, Receiver
from openhands_otel.collector.store import Unavailable

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
_BODY_TIMEOUT_S: Final = 30.0


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: int = INVALID_ARGUMENT) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def routes(receiver: Receiver) -> list[Route]:
    """The three paths."""
    return [_route(receiver, signal) for signal in SIGNALS]


def _route(receiver: Receiver, signal: str) -> Route:
    async def export(request: Request) -> Response:
        received = time.time_ns()
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            if media_type not in {PROTOBUF, JSON}:
                raise _Refused(415, f"the content type must be {PROTOBUF} or {JSON}")
            body = await _body(request)
            response = await receiver.take(signal, body, media_type == JSON, received)
        except ClientDisconnect:
            return Response(status_code=400)
        except _Refused as refused:
            return _refuse(receiver, request, media_type, refused)
        except MalformedRequest as error:
            return _refuse(receiver, request, media_type, _Refused(400, str(error)))
        except TooLarge as error:
            return _refuse(receiver, request, media_type, _Refused(413, str(error), RESOURCE_EXHAUSTED))
        except Unavailable as error:
            return _refuse(receiver, request, media_type, _Refused(503, str(error), UNAVAILABLE))
        return _encode(response, media_type, 200)

    return Route(f"/v1/{signal}", export, methods=["POST"])


async def _body(request: Request) -> bytes:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", ""}:
        raise _Refused(415, "the content encoding must be gzip or identity")
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > BODY_LIMIT:
        raise TooLarge(f"the body is larger than {BODY_LIMIT} bytes")
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            async for piece in request.stream():
                size += len(piece)
                if size > BODY_LIMIT:
                    raise TooLarge(f"the body is larger than {BODY_LIMIT} bytes")
                pieces.append(piece)
    except TimeoutError:
        raise _Refused(408, f"the body took longer than {_BODY_TIMEOUT_S:g} seconds", UNAVAILABLE) from None
    body = b"".join(pieces)
    return decompress(body) if encoding == "gzip" else body


def _refuse(receiver: Receiver, request: Request, media_type: str, refused: _Refused) -> Response:
    receiver.store.refuse_request(str(refused), request.client.host if request.client else "")
    return _encode(Status(code=refused.code, message=str(refused)), media_type, refused.status)


def _encode(message: Message, media_type: str, status: int) -> Response:
    if media_type == PROTOBUF:
        return Response(message.SerializeToString(), status, media_type=PROTOBUF)
    return Response(json_format.MessageToJson(message, indent=None), status, media_type=JSON)
