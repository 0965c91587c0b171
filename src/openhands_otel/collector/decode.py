"""OTLP bytes into points: everything is read and checked here, before anything that is held is touched.

A request that cannot be read raises MalformedRequest. Points that are sound OTLP but of no use here (delta
temporality, numbers that are none) are left out and reported, as OTLP's partial success has it.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from json import loads
from typing import Any, Final, cast

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb

from openhands_otel.collector.ranges import implausible_stamp, out_of_range
from openhands_otel.collector.refusals import Refusals
from openhands_otel.collector.series import Attributes, AttributeValue, Distribution, MetricInfo, Point, Value
from openhands_otel.semconv import SERVICE_INSTANCE_ID, SERVICE_NAME

BODY_LIMIT: Final = 20 * 1024 * 1024
"""Bytes of a request as sent: what the OpenTelemetry Collector's own receiver takes."""
DECODED_LIMIT: Final = 32 * 1024 * 1024
"""Bytes of a request when decompressed."""

_NO_RECORDED_VALUE: Final = 1
_TEXT_LIMIT: Final = 1024
_ATTRIBUTE_LIMIT: Final = 64
_BUCKET_LIMIT: Final = 512
_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})
_CUMULATIVE: Final = pb.AGGREGATION_TEMPORALITY_CUMULATIVE


class MalformedRequest(ValueError):
    """The body cannot be read; the message is one line for the sender."""


class TooLarge(ValueError):
    """The body is over the limit; the message is one line for the sender."""


@dataclass(frozen=True, slots=True)
class Instance:
    """Who sent it: one process. ``key`` tells processes apart."""

    key: str
    service: str
    resource: Attributes

    @property
    def name(self) -> str:
        """Its instance id, as it is told to people; empty if it has none."""
        return str(dict(self.resource).get(SERVICE_INSTANCE_ID, ""))


@dataclass(frozen=True, slots=True)
class MetricsUpdate:
    """The points of one process out of one request."""

    instance: Instance
    points: list[Point]


@dataclass(slots=True)
class DecodedMetrics:
    """A whole metrics request, ready to be applied."""

    updates: list[MetricsUpdate] = field(default_factory=list[MetricsUpdate])
    refusals: Refusals = field(default_factory=Refusals)

    @property
    def point_count(self) -> int:
        return sum(len(update.points) for update in self.updates)


def decode_metrics(body: bytes, json: bool) -> DecodedMetrics:
    """Read a whole metrics request."""
    request = _parse(ExportMetricsServiceRequest(), body, json)
    decoded = DecodedMetrics()
    for resource_metrics in request.resource_metrics:
        points: list[Point] = []
        instance = _instance(resource_metrics.resource.attributes)
        decoded.refusals.of(instance.service, instance.name)
        for scope in resource_metrics.scope_metrics:
            for metric in scope.metrics:
                points.extend(_points(metric, decoded.refusals))
        if points:
            decoded.updates.append(MetricsUpdate(instance, points))
    return decoded


def count_spans(body: bytes, json: bool) -> int:
    """How many spans a traces request holds."""
    request = _parse(ExportTraceServiceRequest(), body, json)
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)


def count_logs(body: bytes, json: bool) -> int:
    """How many log records a logs request holds."""
    request = _parse(ExportLogsServiceRequest(), body, json)
    return sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)


def _parse[M: Message](message: M, body: bytes, json: bool) -> M:
    try:
        if json:
            document = loads(body, object_hook=_read_ids)
            if not isinstance(document, dict):
                raise MalformedRequest("the body is not OTLP JSON: it must be an object")
            json_format.ParseDict(cast(dict[str, Any], document), message, ignore_unknown_fields=True)
        else:
            message.ParseFromString(body)
    except MalformedRequest:
        raise
    except (DecodeError, json_format.ParseError, ValueError, RecursionError) as error:
        kind = "OTLP JSON" if json else "OTLP protobuf"
        raise MalformedRequest(f"the body is not {kind}: {' '.join(str(error).split())[:200]}") from None
    return message


def _read_ids(document: dict[str, Any]) -> dict[str, Any]:
    """OTLP writes the ids of traces and spans in hex, where JSON of protobuf has base64 for bytes."""
    for name in _IDS & document.keys():
        text = document[name]
        if isinstance(text, str):
            try:
                document[name] = b64encode(bytes.fromhex(text)).decode()
            except ValueError:
                raise MalformedRequest(f"the body is not OTLP JSON: {name} must be hexadecimal digits") from None
    return document


def _instance(attributes: Iterable[KeyValue]) -> Instance:
    resource = _attributes(attributes)
    named = dict(resource)
    service = str(named.get(SERVICE_NAME, "unknown_service"))
    own = named.get(SERVICE_INSTANCE_ID)
    # A sender without an instance id is known by its whole resource.
    key = f"{service}\x1f{own}" if own else f"{service}\x1f{resource!r}"
    return Instance(key, service, resource)


def _points(metric: pb.Metric, refusals: Refusals) -> Iterable[Point]:
    kind = metric.WhichOneof("data")
    if kind == "sum":
        if metric.sum.aggregation_temporality != _CUMULATIVE:
            return _refuse(refusals, metric, "is not cumulative", len(metric.sum.data_points))
        info = _info(metric, "counter" if metric.sum.is_monotonic else "updowncounter")
        return _numbers(info, metric.sum.data_points, refusals)
    if kind == "gauge":
        return _numbers(_info(metric, "gauge"), metric.gauge.data_points, refusals)
    if kind == "histogram":
        if metric.histogram.aggregation_temporality != _CUMULATIVE:
            return _refuse(refusals, metric, "is not cumulative", len(metric.histogram.data_points))
        return _histograms(_info(metric, "histogram"), metric.histogram.data_points, refusals)
    if kind is None:
        return ()
    count = len(getattr(metric, kind).data_points)
    return _refuse(refusals, metric, f"is of the kind {kind}, which is not kept here", count)


def _refuse(refusals: Refusals, metric: pb.Metric, why: str, count: int) -> Iterable[Point]:
    refusals.add(f"{metric.name[:100]} {why}", count)
    return ()


def _info(metric: pb.Metric, kind: str) -> MetricInfo:
    return MetricInfo(metric.name[:_TEXT_LIMIT], kind, metric.unit[:64], metric.description[:_TEXT_LIMIT])


def _numbers(info: MetricInfo, data: Iterable[pb.NumberDataPoint], refusals: Refusals) -> Iterable[Point]:
    for point in data:
        value: Value | None = None
        if not point.flags & _NO_RECORDED_VALUE:
            value = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
        if _refused(info, point, value, refusals):
            continue
        if not info.name or len(point.attributes) > _ATTRIBUTE_LIMIT:
            refusals.add(f"{info.name or 'a metric'} has no name or too many attributes")
            continue
        yield Point(info, _attributes(point.attributes), point.start_time_unix_nano, point.time_unix_nano, value)


def _histograms(info: MetricInfo, data: Iterable[pb.HistogramDataPoint], refusals: Refusals) -> Iterable[Point]:
    for point in data:
        value: Value | None = None
        if not point.flags & _NO_RECORDED_VALUE:
            bounds, counts = tuple(point.explicit_bounds), tuple(point.bucket_counts)
            if len(bounds) > _BUCKET_LIMIT or (counts and len(counts) != len(bounds) + 1):
                refusals.add(f"{info.name} has buckets that do not fit its bounds")
                continue
            value = Distribution(point.count, point.sum, bounds, counts)
        if _refused(info, point, value, refusals):
            continue
        if not info.name or len(point.attributes) > _ATTRIBUTE_LIMIT:
            refusals.add(f"{info.name or 'a metric'} has no name or too many attributes")
            continue
        yield Point(info, _attributes(point.attributes), point.start_time_unix_nano, point.time_unix_nano, value)


def _refused(
    info: MetricInfo, point: pb.NumberDataPoint | pb.HistogramDataPoint, value: Value | None, refusals: Refusals
) -> bool:
    why = None if value is None else out_of_range(info, value)
    why = why or implausible_stamp(point.start_time_unix_nano, point.time_unix_nano)
    if why is not None:
        refusals.add(f"{info.name[:100]} {why}", rule=f"{info.name[:100]} {why.partition(',')[2]}")
    return why is not None


def _attributes(attributes: Iterable[KeyValue]) -> Attributes:
    return tuple(sorted({item.key[:_TEXT_LIMIT]: _value(item.value) for item in attributes}.items()))


def _value(value: AnyValue) -> AttributeValue:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value[:_TEXT_LIMIT]
    if kind == "int_value":
        return value.int_value
    if kind == "bool_value":
        return value.bool_value
    if kind == "double_value" and math.isfinite(value.double_value):
        return value.double_value
    return "" if kind is None else str(value)[:_TEXT_LIMIT]
