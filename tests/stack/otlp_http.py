"""OTLP requests made by hand: spans and log records with what a test puts into them."""

from __future__ import annotations

import secrets
import ssl
import time

import httpx
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from deploy.native.stack import Stack

Attributes = dict[str, AnyValue]


def text(value: str) -> AnyValue:
    return AnyValue(string_value=value)


def span(name: str, attributes: Attributes | None = None, status: str = "") -> Span:
    now = time.time_ns()
    return Span(
        trace_id=secrets.token_bytes(16),
        span_id=secrets.token_bytes(8),
        name=name,
        start_time_unix_nano=now - 1_000_000,
        end_time_unix_nano=now,
        attributes=pairs(attributes or {}),
        status=Status(code=Status.STATUS_CODE_ERROR, message=status) if status else None,
    )


def traces(service: str, *spans: Span, resource: Attributes | None = None) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    found = request.resource_spans.add()
    found.resource.CopyFrom(_resource(service, resource))
    found.scope_spans.add().spans.extend(spans)
    return request


def logs(service: str, *bodies: AnyValue, attributes: Attributes | None = None) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    found = request.resource_logs.add()
    found.resource.CopyFrom(_resource(service, None))
    records = found.scope_logs.add().log_records
    for body in bodies:
        records.add(time_unix_nano=time.time_ns(), body=body, attributes=pairs(attributes or {}))
    return request


def post(
    stack: Stack,
    request: ExportTraceServiceRequest | ExportLogsServiceRequest,
    token: str | None = None,
    trust: ssl.SSLContext | bool = True,
) -> httpx.Response:
    signal = "traces" if isinstance(request, ExportTraceServiceRequest) else "logs"
    headers = {"Content-Type": "application/x-protobuf", "Authorization": f"Bearer {token or stack.token}"}
    return httpx.post(
        f"{stack.otlp_url}/v1/{signal}", content=request.SerializeToString(), headers=headers, verify=trust, timeout=10
    )


def pairs(attributes: Attributes) -> list[KeyValue]:
    return [KeyValue(key=key, value=value) for key, value in attributes.items()]


def _resource(service: str, more: Attributes | None) -> Resource:
    return Resource(attributes=pairs({"service.name": text(service), **(more or {})}))
