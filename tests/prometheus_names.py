"""Which metric names an expression uses, and which there are."""

from __future__ import annotations

import re

from openhands_otel import semconv
from openhands_otel.semconv import Metric

_LABELS = re.compile(r"\{[^}]*\}")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_TEXT = re.compile(r'"[^"]*"')
_OURS = re.compile(r"\b(?:openhands|gen_ai|otelcol)[\w:]*")


def _prometheus_names(metric: Metric) -> set[str]:
    name = metric.prometheus_name
    return {f"{name}{part}" for part in ("_bucket", "_count", "_sum")} if metric.kind == "histogram" else {name}


KNOWN = {name for metric in vars(semconv).values() if isinstance(metric, Metric) for name in _prometheus_names(metric)}
"""What this plugin sends."""

COLLECTOR = {
    "otelcol_exporter_enqueue_failed_metric_points_total",
    "otelcol_exporter_enqueue_failed_spans_total",
    "otelcol_exporter_queue_capacity",
    "otelcol_exporter_queue_size",
    "otelcol_exporter_send_failed_metric_points_total",
    "otelcol_exporter_send_failed_spans_total",
    "otelcol_exporter_sent_metric_points_total",
    "otelcol_exporter_sent_spans_total",
    "otelcol_process_memory_rss_bytes",
    "otelcol_receiver_accepted_metric_points_total",
    "otelcol_receiver_accepted_spans_total",
    "otelcol_receiver_refused_metric_points_total",
    "otelcol_receiver_refused_spans_total",
}
"""What the collector says of itself and we use."""


def metric_names(expression: str) -> set[str]:
    """Names of metrics and recorded series, without those of labels."""
    for noise in (_TEXT, _LABELS, _GROUPING):
        expression = noise.sub("", expression)
    return set(_OURS.findall(expression))
