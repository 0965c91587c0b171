"""Makes a request smaller without losing money: counters stay, everything else goes."""

from __future__ import annotations

from dataclasses import replace

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from openhands_otel._internal.export.spool.file import SpooledRequest


def counters_only(part: SpooledRequest) -> SpooledRequest:
    """``part`` without gauges and histograms."""
    request = ExportMetricsServiceRequest.FromString(part.body)
    keep_counters(request)
    return replace(part, body=request.SerializeToString())


def keep_counters(request: ExportMetricsServiceRequest) -> None:
    """Take everything else out of ``request``."""
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            kept = [
                metric for metric in scope.metrics if metric.WhichOneof("data") == "sum" and metric.sum.is_monotonic
            ]
            del scope.metrics[:]
            scope.metrics.extend(kept)
