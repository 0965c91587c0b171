"""Sends a request that is larger than receivers take in several pieces.

gRPC receivers take 4 MiB, nginx and some vendors one MB, unless told otherwise; the same request would be refused for
ever, and whatever waits behind it with it. So each transport is wrapped here, and nobody else need know the size of
what he sends. Points and spans may stand in any piece. What is a delta stands in the last one, undivided: after a
failure all pieces are sent again, and a delta would count twice. So do a process's words about itself: after its
farewell nothing is to follow.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from google.protobuf.message import Message
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb

from openhands_otel._internal.export.otlp_file.merging import head_of
from openhands_otel._internal.export.transport import Outcome, Transport
from openhands_otel.semconv import SCOPE_PROCESS

MOST_BYTES: Final = 1_000_000
"""Of a piece, before compression."""
_FRAMING: Final = 8
"""Bytes that protobuf may put around an item."""

_Path = tuple[Any, ...]
"""What an item stands in, from the outside to the inside."""


class InPieces:
    """Sends by ``transport``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def send(self, request: Message, timeout_s: float) -> Outcome:
        """Send all of it, within that time. What stops one piece stops those behind it."""
        outcome, complaint = Outcome(True), ""
        deadline = time.monotonic() + timeout_s
        for number, piece in enumerate(pieces_of(request)):
            left_s = deadline - time.monotonic() if number else timeout_s
            if number and left_s <= 0:
                return Outcome(False, f"not all of it was taken within {timeout_s:g} s")
            outcome = self._transport.send(piece, left_s)
            if not outcome.delivered:
                return outcome
            complaint = complaint or outcome.reason
        return replace(outcome, reason=complaint)

    def close(self) -> None:
        """Close the way."""
        self._transport.close()


def pieces_of(request: Message, most_bytes: int = MOST_BYTES) -> list[Message]:
    """The request, or requests that say the same one after the other."""
    if request.ByteSize() <= most_bytes:
        return [request]
    packing = _Packing(request, most_bytes)
    if hasattr(request, "resource_spans"):
        for path, span in _spans(request):
            packing.put(path, span)
    else:
        last: list[tuple[_Path, Any]] = []
        for path, point in _points(request):
            if _comes_last(path):
                last.append((path, point))
            else:
                packing.put(path, point)
        packing.put_together(last)
    return packing.pieces


def _spans(request: Any) -> Iterator[tuple[_Path, Any]]:
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield (resource, scope), span


def _points(request: Any) -> Iterator[tuple[_Path, Any]]:
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in _data(metric).data_points:
                    yield (resource, scope, metric), point


def _data(metric: Any) -> Any:
    return getattr(metric, _kind(metric))


def _kind(metric: Any) -> str:
    return metric.WhichOneof("data") or "gauge"


def _comes_last(path: _Path) -> bool:
    _, scope, metric = path
    delta = getattr(_data(metric), "aggregation_temporality", None) == pb.AGGREGATION_TEMPORALITY_DELTA
    return delta or scope.scope.name == SCOPE_PROCESS


class _Packing:
    """Fills requests of the kind of ``request``, up to ``most_bytes`` each; what is larger has one of its own."""

    def __init__(self, request: Message, most_bytes: int) -> None:
        self._kind = type(request)
        self._most = most_bytes
        self._room = 0
        self._path: _Path = ()
        self._opened: list[Any] = []
        self.pieces: list[Message] = []

    def put(self, path: _Path, item: Any) -> None:
        """Add an item, with what it stands in."""
        size = item.ByteSize() + _FRAMING
        if not self.pieces or size > self._room:
            self._begin()
        self._add(path, item)
        self._room -= size

    def put_together(self, items: list[tuple[_Path, Any]]) -> None:
        """Add items that are not to be divided."""
        if items and sum(item.ByteSize() + _FRAMING for _, item in items) > self._room:
            self._begin()
        for path, item in items:
            self._add(path, item)

    def _begin(self) -> None:
        self.pieces.append(self._kind())
        self._room, self._path, self._opened = self._most, (), []

    def _add(self, path: _Path, item: Any) -> None:
        same = 0
        while same < len(self._path) and path[same] is self._path[same]:
            same += 1
        del self._opened[same:]
        for each in path[same:]:
            self._open(each)
        self._path = path
        _items(self._opened[-1]).append(item)

    def _open(self, wanted: Any) -> None:
        outer: Any = self._opened[-1] if self._opened else self.pieces[-1]
        opened = _inner(outer).add()
        _copy_head(wanted, opened)
        self._opened.append(opened)
        self._room -= opened.ByteSize() + _FRAMING


def _inner(message: Any) -> Any:
    """The list in a message that has what stands one step further inside."""
    for name in ("resource_metrics", "scope_metrics", "metrics", "resource_spans", "scope_spans"):
        if hasattr(message, name):
            return getattr(message, name)
    raise TypeError(type(message).__name__)


def _items(message: Any) -> Any:
    return message.spans if hasattr(message, "spans") else _data(message).data_points


def _copy_head(source: Any, target: Any) -> None:
    """All but what stands further inside."""
    if isinstance(source, pb.Metric):
        target.CopyFrom(head_of(source, _kind(source)))
        return
    if hasattr(source, "resource"):
        target.resource.CopyFrom(source.resource)
    else:
        target.scope.CopyFrom(source.scope)
    target.schema_url = source.schema_url
