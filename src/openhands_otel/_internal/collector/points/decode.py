"""OTLP bytes into points: everything is read and checked here, before anything that is held is touched.

A request that cannot be read raises MalformedRequest. Points that are sound OTLP but of no use here
(summaries, numbers that are none) are left out and reported, as OTLP's partial success has it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from json import loads
from typing import Any, Final, cast

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from openhands_otel._internal.collector.points.limits import within
from openhands_otel._internal.collector.points.points import ScopeSource, read_attributes
from openhands_otel._internal.collector.points.refusals import Refusals
from openhands_otel._internal.collector.points.remembered import Remembered
from openhands_otel._internal.collector.points.series import Attributes, Point
from openhands_otel._internal.otlp_json import from_hex
from openhands_otel.semconv import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_NAMESPACE

EXPORT_LIMIT: Final = 20 * 1024 * 1024
"""Bytes of a request as sent: what the OpenTelemetry Collector's own receiver takes."""
DECODED_LIMIT: Final = 32 * 1024 * 1024
"""Bytes of a request when decompressed."""

_Json = dict[str, Any]

_IDENTIFYING: Final = (SERVICE_NAME, SERVICE_NAMESPACE, SERVICE_INSTANCE_ID)
_KEY_LIMIT: Final = 2_048
_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"})


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
        return next((str(value) for name, value in self.resource if name == SERVICE_INSTANCE_ID), "")

    @property
    def named(self) -> bool:
        """Whether it has an id of its own; others are known by their whole resource, which several may share."""
        return any(value for name, value in self.resource if name == SERVICE_INSTANCE_ID)


_INSTANCES: Final = Remembered[Instance](32 * 1024 * 1024)
"""Who has a Resource, by its bytes."""


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
    request = parse_request(ExportMetricsServiceRequest(), body, json, _read_ids_of_exemplars)
    decoded = DecodedMetrics()
    for resource_metrics in request.resource_metrics:
        instance = _instance_of(resource_metrics.resource)
        decoded.refusals.of(instance.service, instance.name)
        points: list[Point] = []
        for scope in resource_metrics.scope_metrics:
            source = ScopeSource(scope.scope.name, instance.named, decoded.refusals)
            for metric in scope.metrics:
                source.read(metric, points)
        if points:
            decoded.updates.append(MetricsUpdate(instance, points))
    return decoded


def count_logs(body: bytes, json: bool) -> int:
    """How many log records a logs request holds."""
    request = parse_request(ExportLogsServiceRequest(), body, json)
    return sum(len(scope.log_records) for resource in request.resource_logs for scope in resource.scope_logs)


def _read_ids(document: _Json) -> _Json:
    """Have protobuf find ids of traces and spans as it knows them."""
    for name in _IDS & document.keys():
        text = document[name]
        if text is not None:
            try:
                document[name] = from_hex(text)
            except (TypeError, ValueError):
                raise MalformedRequest(f"the body is not OTLP JSON: {name} must be hexadecimal digits") from None
    return document


def _read_ids_of_exemplars(document: _Json) -> _Json:
    """The same, where an id that is none costs nothing but the exemplar."""
    try:
        return _read_ids(document)
    except MalformedRequest:
        return {name: value for name, value in document.items() if name not in _IDS}


def parse_request[M: Message](message: M, body: bytes, json: bool, read: Callable[[_Json], _Json] = _read_ids) -> M:
    """Read a body into a message. Raises MalformedRequest."""
    try:
        if json:
            document = loads(body, object_hook=read)
            if not isinstance(document, dict):
                raise MalformedRequest("the body is not OTLP JSON: it must be an object")
            json_format.ParseDict(cast(_Json, document), message, ignore_unknown_fields=True)
        else:
            message.ParseFromString(body)
    except MalformedRequest:
        raise
    except (DecodeError, json_format.ParseError, ValueError, RecursionError) as error:
        kind = "OTLP JSON" if json else "OTLP protobuf"
        raise MalformedRequest(f"the body is not {kind}: {' '.join(str(error).split())[:200]}") from None
    return message


def _instance_of(resource: Resource) -> Instance:
    """The same, once for all that a process sends."""
    told = resource.SerializeToString()
    instance = _INSTANCES.get(told)
    if instance is None:
        instance = instance_of(resource.attributes)
        _INSTANCES.put(told, instance)
    return instance


def instance_of(attributes: Iterable[KeyValue]) -> Instance:
    """Who has this Resource."""
    resource = within(read_attributes(attributes), _IDENTIFYING)
    named = dict(resource)
    service = str(named.get(SERVICE_NAME, "unknown_service"))
    own = named.get(SERVICE_INSTANCE_ID)
    # A sender without an instance id is known by its whole resource.
    key = f"{service}\x1f{own}" if own else f"{service}\x1f{resource!r}"
    if len(key) > _KEY_LIMIT:
        key = f"{service[:100]}\x1f{hashlib.sha256(key.encode()).hexdigest()}"
    return Instance(key, service, resource)
