"""Joins requests of one quarter-hour: of each series stay its first zero, its newest value and its end.

Values are totals, so the newest holds what those before it held. The zero is what Prometheus' ``increase()`` starts at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

POINTS_PER_REQUEST: Final = 2_000
"""Some 800 kB of JSON; gRPC receivers refuse a message of more than 4 MiB unless told otherwise."""
_END: Final = pb.DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK


@dataclass(slots=True)
class _Series:
    zero: Any = None
    newest: Any = None
    end: Any = None

    def take(self, point: Any) -> None:
        if point.flags & _END:
            self.end = point
        elif self.newest is None and point.time_unix_nano == point.start_time_unix_nano:
            self.zero = self.zero or point
        elif self.newest is None or point.time_unix_nano >= self.newest.time_unix_nano:
            # What comes late is of an earlier quarter-hour.
            self.newest, self.end = point, None

    @property
    def points(self) -> list[Any]:
        return [point for point in (self.zero, self.newest, self.end) if point is not None]


@dataclass(slots=True)
class _Metric:
    """``head`` is the metric without its points."""

    resource: Resource
    scope: InstrumentationScope
    head: pb.Metric
    series: dict[bytes, _Series]


class Merged:
    """Requests, joined; all of them cumulative."""

    def __init__(self) -> None:
        self._metrics: dict[tuple[bytes, bytes, str, str], _Metric] = {}

    def __bool__(self) -> bool:
        return bool(self._metrics)

    def take(self, request: ExportMetricsServiceRequest) -> None:
        """Add a request; what it holds is not copied, and not changed."""
        for resource in request.resource_metrics:
            whose = resource.resource.SerializeToString()
            for scope in resource.scope_metrics:
                of = scope.scope.SerializeToString()
                for metric in scope.metrics:
                    kind = metric.WhichOneof("data") or "gauge"
                    key = whose, of, metric.name, kind
                    merged = self._metrics.get(key)
                    if merged is None:
                        head = head_of(metric, kind)
                        merged = self._metrics[key] = _Metric(resource.resource, scope.scope, head, {})
                    for point in getattr(metric, kind).data_points:
                        named = b"%d" % point.start_time_unix_nano
                        named += b"".join(each.SerializeToString() for each in point.attributes)
                        merged.series.setdefault(named, _Series()).take(point)

    def requests(self) -> Iterator[ExportMetricsServiceRequest]:
        """All of it, in requests of a size that every receiver takes."""
        request, count = ExportMetricsServiceRequest(), 0
        for merged in self._metrics.values():
            points: list[Any] = []
            for series in merged.series.values():
                points += series.points
                if count + len(points) >= POINTS_PER_REQUEST:
                    _add(request, merged, points)
                    yield request
                    request, count, points = ExportMetricsServiceRequest(), 0, []
            if points:
                _add(request, merged, points)
                count += len(points)
        if count:
            yield request


def head_of(metric: pb.Metric, kind: str) -> pb.Metric:
    """A metric without its points, which are of that kind."""
    head = pb.Metric(name=metric.name, unit=metric.unit, description=metric.description)
    data, of = getattr(head, kind), getattr(metric, kind)
    data.SetInParent()
    if kind != "gauge":
        data.aggregation_temporality = of.aggregation_temporality
    if kind == "sum":
        data.is_monotonic = of.is_monotonic
    return head


def _add(request: ExportMetricsServiceRequest, merged: _Metric, points: list[Any]) -> None:
    last = request.resource_metrics[-1] if request.resource_metrics else None
    if last is None or last.resource != merged.resource:
        last = request.resource_metrics.add(resource=merged.resource)
    scope = last.scope_metrics[-1] if last.scope_metrics else None
    if scope is None or scope.scope != merged.scope:
        scope = last.scope_metrics.add(scope=merged.scope)
    metric = scope.metrics.add()
    metric.CopyFrom(merged.head)
    getattr(metric, merged.head.WhichOneof("data") or "gauge").data_points.extend(points)
