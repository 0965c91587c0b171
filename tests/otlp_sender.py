"""Builds OTLP requests as the sending half makes them, so that the collector is tested by bytes and not by faith."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb

from openhands_otel import semconv
from openhands_otel.semconv import Metric

Attributes = Mapping[str, str | bool | int | float]

NO_RECORDED_VALUE = 1


def any_value(value: str | bool | int | float) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=value)
    return AnyValue(int_value=value) if isinstance(value, int) else AnyValue(double_value=value)


def key_values(attributes: Attributes) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


@dataclass
class Sender:
    """One instrumented process: collects points, then hands out the request that carries them."""

    instance: str
    service: str = "agent"
    start: int = field(default_factory=time.time_ns)
    resource: dict[str, str] = field(default_factory=dict)
    _fleet: dict[str, pb.Metric] = field(default_factory=dict)
    _conversations: dict[str, pb.Metric] = field(default_factory=dict)

    def add(
        self,
        metric: Metric,
        value: float | None,
        attributes: Attributes | None = None,
        *,
        at: int | None = None,
        start: int | None = None,
    ) -> Sender:
        """Add a point; value None ends the series."""
        message = self._message(metric)
        point = pb.NumberDataPoint(
            attributes=key_values(attributes or {}),
            start_time_unix_nano=self.start if start is None else start,
            time_unix_nano=time.time_ns() if at is None else at,
        )
        if value is None:
            point.flags = NO_RECORDED_VALUE
        elif isinstance(value, int):
            point.as_int = value
        else:
            point.as_double = value
        if metric.kind == "gauge":
            message.gauge.data_points.append(point)
        else:
            message.sum.data_points.append(point)
        return self

    def observe(self, metric: Metric, values: list[float], attributes: Attributes | None = None) -> Sender:
        """Add a histogram point made of these observations."""
        assert metric.buckets is not None
        counts = [0] * (len(metric.buckets) + 1)
        for value in values:
            counts[sum(value > bound for bound in metric.buckets)] += 1
        self._message(metric).histogram.data_points.append(
            pb.HistogramDataPoint(
                attributes=key_values(attributes or {}),
                start_time_unix_nano=self.start,
                time_unix_nano=time.time_ns(),
                count=len(values),
                sum=sum(values),
                bucket_counts=counts,
                explicit_bounds=metric.buckets,
            )
        )
        return self

    def spend(self, cost: float, *, model: str = "gpt", role: str = "agent", at: int | None = None) -> Sender:
        """The fleet's cost counter at this value."""
        attributes = {semconv.REQUEST_MODEL: model, semconv.LLM_ROLE: role, semconv.PROVIDER_NAME: "openai"}
        return self.add(semconv.COST, cost, attributes, at=at)

    def converse(
        self, conversation: str, cost: float, *, role: str = "agent", model: str = "gpt", at: int | None = None
    ) -> Sender:
        """A conversation's cost at this value."""
        attributes = {
            semconv.CONVERSATION_ID: conversation,
            semconv.LLM_ROLE: role,
            semconv.REQUEST_MODEL: model,
            semconv.USAGE_ID: role,
        }
        return self.add(semconv.CONVERSATION_COST, cost, attributes, at=at)

    def introduce(self, conversation: str, *, parent: str | None = None, at: int | None = None) -> Sender:
        """What is known of a conversation once it is open."""
        attributes = {semconv.CONVERSATION_ID: conversation, semconv.AGENT_NAME: "Agent", semconv.SDK_VERSION: "1.58.0"}
        if parent is not None:
            attributes[semconv.CONVERSATION_PARENT_ID] = parent
        return self.add(semconv.CONVERSATION_INFO, 1, attributes, at=at)

    def state(self, conversation: str, status: str, *, ended: bool = False, at: int | None = None) -> Sender:
        """A status, or its end."""
        attributes = {semconv.CONVERSATION_ID: conversation, semconv.CONVERSATION_STATUS: status}
        return self.add(semconv.CONVERSATION_STATE, None if ended else 1, attributes, at=at)

    def now(self, conversation: str, activity: str, since: float | None, *, at: int | None = None) -> Sender:
        """What runs now, or (since None) that it no longer does."""
        attributes = {semconv.CONVERSATION_ID: conversation, semconv.CONVERSATION_ACTIVITY: activity}
        return self.add(semconv.CONVERSATION_NOW, since, attributes, at=at)

    def request(self) -> ExportMetricsServiceRequest:
        """The request with all points added since the last one."""
        request = ExportMetricsServiceRequest()
        resource_metrics = request.resource_metrics.add()
        resource_metrics.resource.attributes.extend(
            key_values(
                {semconv.SERVICE_NAME: self.service, semconv.SERVICE_INSTANCE_ID: self.instance, **self.resource}
            )
        )
        for scope, metrics in (
            (semconv.SCOPE_FLEET, self._fleet),
            (semconv.SCOPE_CONVERSATIONS, self._conversations),
        ):
            if metrics:
                scope_metrics = resource_metrics.scope_metrics.add()
                scope_metrics.scope.name = scope
                scope_metrics.metrics.extend(metrics.values())
        self._fleet, self._conversations = {}, {}
        return request

    def body(self) -> bytes:
        return self.request().SerializeToString()

    def _message(self, metric: Metric) -> pb.Metric:
        metrics = self._conversations if metric.name.startswith("openhands.conversation.") else self._fleet
        message = metrics.get(metric.name)
        if message is None:
            message = pb.Metric(name=metric.name, unit=metric.unit, description=metric.description)
            if metric.kind == "counter":
                message.sum.is_monotonic = True
                message.sum.aggregation_temporality = pb.AGGREGATION_TEMPORALITY_CUMULATIVE
            elif metric.kind == "histogram":
                message.histogram.aggregation_temporality = pb.AGGREGATION_TEMPORALITY_CUMULATIVE
            metrics[metric.name] = message
        return message
