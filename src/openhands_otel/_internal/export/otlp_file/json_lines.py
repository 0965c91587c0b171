"""One request as one line of JSON, as OTLP spells it: ids in hex, enums as numbers, 64 bits as text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, cast

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from openhands_otel._internal.otlp_json import from_hex, to_hex

METRICS_KEY = "resourceMetrics"
_IDS = ("traceId", "spanId")


class NotMetrics(ValueError):
    """A line holds no metrics of OTLP; the message says what it is, in an English clause."""


def encode_line(request: ExportMetricsServiceRequest) -> bytes:
    """The line, with its end."""
    document = MessageToDict(request, use_integers_for_enums=True)
    _change_ids(document, to_hex)
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def decode_line(line: bytes) -> ExportMetricsServiceRequest:
    """Read a line, of whoever wrote it; raises NotMetrics."""
    try:
        document: object = json.loads(line)
    except RecursionError:
        raise NotMetrics("it is nested too deeply") from None
    except ValueError:
        raise NotMetrics("it is no JSON, or half-written") from None
    if not isinstance(document, dict) or METRICS_KEY not in document:
        raise NotMetrics("it holds no metrics of OTLP")
    found = cast("dict[str, Any]", document)
    request = ExportMetricsServiceRequest()
    try:
        _change_ids(found, from_hex)
        ParseDict({METRICS_KEY: found[METRICS_KEY]}, request, ignore_unknown_fields=True)
    except (ParseError, ValueError, TypeError, AttributeError, RecursionError):
        raise NotMetrics("its metrics are not as OTLP has them") from None
    return request


def _change_ids(document: dict[str, Any], change: Callable[[str], str]) -> None:
    """Of exemplars, which alone have any."""
    for exemplar in _exemplars(document):
        for name in _IDS:
            if exemplar.get(name):
                exemplar[name] = change(exemplar[name])


def _exemplars(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in _each(document, METRICS_KEY):
        for scope in _each(resource, "scopeMetrics"):
            for metric in _each(scope, "metrics"):
                for kind in ("sum", "histogram", "exponentialHistogram", "gauge"):
                    for point in _each(metric.get(kind) or {}, "dataPoints"):
                        yield from _each(point, "exemplars")


def _each(holder: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return holder.get(name) or []
