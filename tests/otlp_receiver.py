"""A small OTLP receiver that keeps what it gets, for tests of the sending half: HTTP and gRPC, raw bodies and sums.

It knows nothing of the collector in the package, so that a mistake there cannot hide one here.
"""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as grpc_service
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from otlp_server import grpc_server, http_server

NO_RECORDED_VALUE = 1


@dataclass(frozen=True)
class Exemplar:
    """A value of a point, and the span that it came from."""

    value: float
    trace_id: int
    span_id: int
    time: int


@dataclass(frozen=True)
class Point:
    """One received data point."""

    metric: str
    unit: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    scope: str
    value: float
    count: int
    time: int
    start: int
    flags: int
    monotonic: bool
    temporality: int
    buckets: tuple[int, ...] = ()
    exemplars: tuple[Exemplar, ...] = ()


@dataclass
class Receiver:
    """Everything received, oldest first. ``answer`` may be changed to refuse, wait or talk nonsense."""

    url: str = ""
    port: int = 0
    bodies: list[bytes] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    requests: list[ExportMetricsServiceRequest] = field(default_factory=list)
    received_at: list[int] = field(default_factory=list)
    answer: Callable[[], tuple[int, bytes]] = lambda: (200, b"")
    asking: threading.local = field(default_factory=threading.local, repr=False)
    """``headers`` of the request that ``answer`` is asked about, on the thread that asks."""
    content_type: str = "application/x-protobuf"

    def forget(self) -> None:
        """Begin anew."""
        for kept in (self.bodies, self.headers, self.requests, self.received_at):
            kept.clear()

    def take(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        self.asking.headers = headers
        status, answer = self.answer()
        if status == 200:
            raw = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
            self.received_at.append(time.time_ns())
            self.bodies.append(raw)
            self.headers.append(headers)
            self.requests.append(ExportMetricsServiceRequest.FromString(raw))
        return status, answer

    def points(self, metric: str | None = None) -> list[Point]:
        """All points, or those of one metric."""
        return [
            point for request in list(self.requests) for point in _points(request) if metric in (None, point.metric)
        ]

    def streams(self, metric: str, **wanted: Any) -> dict[tuple[Any, ...], list[Point]]:
        """Points of a metric by process and attributes."""
        found: dict[tuple[Any, ...], list[Point]] = {}
        for point in self.points(metric):
            if all(point.attributes.get(name.replace("__", ".")) == value for name, value in wanted.items()):
                key = (point.resource["service.instance.id"], *sorted(point.attributes.items()))
                found.setdefault(key, []).append(point)
        return found

    def total(self, metric: str, **wanted: Any) -> float:
        """Sum of the newest values of a cumulative metric's streams; ``wanted`` names attributes, ``__`` for a dot."""
        return sum(
            next(p.value for p in reversed(points) if not p.flags & NO_RECORDED_VALUE)
            for points in self.streams(metric, **wanted).values()
        )

    def wait_for(self, condition: Callable[[Receiver], bool], timeout_s: float = 50) -> None:
        """Wait until ``condition(receiver)`` is true; fails if it does not become so."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if condition(self):
                return
            time.sleep(0.01)
        raise AssertionError("what was waited for did not arrive")


@contextmanager
def http_receiver(port: int = 0) -> Iterator[Receiver]:
    """Receive OTLP/HTTP; ``url`` is what OTEL_EXPORTER_OTLP_ENDPOINT wants."""
    receiver = Receiver()
    with http_server(lambda path, *rest: receiver.take(*rest), lambda: receiver.content_type, port) as receiver.port:
        receiver.url = f"http://127.0.0.1:{receiver.port}"
        yield receiver


@contextmanager
def grpc_receiver() -> Iterator[Receiver]:
    """Receive OTLP/gRPC."""
    receiver = Receiver()

    class Service(grpc_service.MetricsServiceServicer):
        def Export(self, request: ExportMetricsServiceRequest, context: grpc.ServicerContext) -> Any:
            metadata = {key: str(value) for key, value in context.invocation_metadata()}
            receiver.take(request.SerializeToString(), metadata)
            return ExportMetricsServiceResponse()

    with grpc_server(lambda server: grpc_service.add_MetricsServiceServicer_to_server(Service(), server)) as port:
        receiver.port, receiver.url = port, f"http://127.0.0.1:{port}"
        yield receiver


def _points(request: ExportMetricsServiceRequest) -> Iterator[Point]:
    for resource in request.resource_metrics:
        resource_attributes = _attributes(resource.resource.attributes)
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                data = getattr(metric, metric.WhichOneof("data"))
                for point in data.data_points:
                    histogram = hasattr(point, "count")
                    yield Point(
                        metric=metric.name,
                        unit=metric.unit,
                        attributes=_attributes(point.attributes),
                        resource=resource_attributes,
                        scope=scope.scope.name,
                        value=point.sum if histogram else getattr(point, point.WhichOneof("value") or "as_double"),
                        count=point.count if histogram else 0,
                        time=point.time_unix_nano,
                        start=point.start_time_unix_nano,
                        flags=point.flags,
                        monotonic=getattr(data, "is_monotonic", False),
                        temporality=getattr(data, "aggregation_temporality", 0),
                        buckets=tuple(getattr(point, "bucket_counts", ())),
                        exemplars=tuple(_exemplar(each) for each in point.exemplars),
                    )


def _exemplar(sent: Any) -> Exemplar:
    value = getattr(sent, sent.WhichOneof("value"))
    trace_id, span_id = (int.from_bytes(each) for each in (sent.trace_id, sent.span_id))
    return Exemplar(value, trace_id, span_id, sent.time_unix_nano)


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
