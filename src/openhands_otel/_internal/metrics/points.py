"""Points of one request, put together as protobuf: a ``Batch`` for each scope of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from opentelemetry.trace import SpanContext

from openhands_otel import semconv
from openhands_otel._internal.exact import Number
from openhands_otel._internal.ledger.fleet import OVERFLOW_KEY, FleetKey, MoreAttributes
from openhands_otel._internal.metrics.histograms import BucketCounts, ExponentialBuckets
from openhands_otel._internal.version import __version__
from openhands_otel.semconv import Metric

NO_RECORDED_VALUE = pb.DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
CACHED = 1_024

SentAttributes = tuple[tuple[str, str | bool | int], ...]
SentSeries = tuple[Metric, SentAttributes]
"""One series: metric and attributes, of a conversation's other than its id."""
SentValue = Number | BucketCounts
SentExemplar = tuple[float, int, SpanContext]
"""What one call added, when (unix nanoseconds), and the span that it was made in."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Points to send (None: nothing changed), and what to call when they are delivered, or are not."""

    scope: pb.ScopeMetrics | None
    commit: Callable[[], None]
    put_back: Callable[[], None] = lambda: None
    held: Mapping[SentSeries, SentValue] = field(default_factory=dict[SentSeries, SentValue])
    """What the fleet's points say, as totals."""


class Batch:
    """Points of one scope, gathered by metric and stamped ``now``; kinds of metrics in ``as_delta`` are deltas."""

    def __init__(self, scope: str, now: int, as_delta: frozenset[str] = frozenset()) -> None:
        self.now = now
        self._as_delta = as_delta
        self._message = pb.ScopeMetrics(scope=InstrumentationScope(name=scope, version=__version__))
        self._points: dict[Metric, Any] = {}
        """Of each metric the list in it that takes points."""
        self._ids: dict[str, bytes] = {}

    def sends_delta(self, metric: Metric) -> bool:
        """Whether a metric's points are deltas here."""
        return metric.kind in self._as_delta

    def add(
        self,
        conversation_id: str,
        series: SentSeries,
        value: SentValue,
        at: int,
        start: int,
        exemplar: SentExemplar | None = None,
    ) -> None:
        """Add a value; ``conversation_id`` is empty where a series is no conversation's."""
        point = self._point(conversation_id, series, at, start, isinstance(value, ExponentialBuckets))
        if isinstance(value, int):
            point.as_int = value
        elif isinstance(value, float):
            point.as_double = value
        else:
            value.write(point)
        if exemplar is not None:
            amount, noted_at, span = exemplar
            told = point.exemplars.add(time_unix_nano=noted_at)
            told.span_id, told.trace_id = span.span_id.to_bytes(8), span.trace_id.to_bytes(16)
            if isinstance(amount, int):
                told.as_int = amount
            else:
                told.as_double = amount

    def end(self, conversation_id: str, series: SentSeries, start: int) -> None:
        """Add the point that ends a series."""
        self._point(conversation_id, series, self.now, start).flags = NO_RECORDED_VALUE

    def message(self) -> pb.ScopeMetrics | None:
        """All points, or None."""
        return self._message if self._points else None

    def _point(self, conversation_id: str, series: SentSeries, at: int, start: int, exponential: bool = False) -> Any:
        metric, labels = series
        points = self._points.get(metric)
        if points is None:
            points = self._points[metric] = self._begin(metric, exponential)
        point = points.add()
        # Four times as fast as attributes that are put together for each point.
        kind = point.__class__
        if conversation_id:
            whose = self._ids.get(conversation_id)
            if whose is None:
                whose = self._ids[conversation_id] = _encode(kind, semconv.CONVERSATION_ID, conversation_id)
            point.MergeFromString(whose)
        point.MergeFromString(_encoded(kind, labels))
        point.time_unix_nano = at
        point.start_time_unix_nano = start
        return point

    def _begin(self, metric: Metric, exponential: bool) -> Any:
        message = self._message.metrics.add(name=metric.name, unit=metric.unit, description=metric.description)
        if metric.kind == "gauge":
            return message.gauge.data_points
        data: Any = message.sum
        if metric.kind == "histogram":
            data = message.exponential_histogram if exponential else message.histogram
        else:
            message.sum.is_monotonic = metric.kind == "counter"
        data.aggregation_temporality = (
            pb.AGGREGATION_TEMPORALITY_DELTA if self.sends_delta(metric) else pb.AGGREGATION_TEMPORALITY_CUMULATIVE
        )
        return data.data_points


def sendable(text: str) -> str:
    """``text`` as protobuf takes it: half a character, as an environment or a model's name may have it, is escaped.

    One that is not would break each request of the process from then on.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def spelled(detail: MoreAttributes) -> SentAttributes:
    """What only the newest GenAI names tell, as it leaves the process."""
    return tuple((name, sendable(value) if isinstance(value, str) else value) for name, value in detail)


def _encode(kind: Callable[[], Any], name: str, value: str | bool | int) -> bytes:
    """An attribute as it stands in a point of that kind."""
    message = kind()
    attribute = message.attributes.add(key=name)
    if isinstance(value, bool):
        attribute.value.bool_value = value
    elif isinstance(value, int):
        attribute.value.int_value = value
    else:
        attribute.value.string_value = sendable(value)
    return message.SerializeToString()


_encoded_one = lru_cache(CACHED)(_encode)


@lru_cache(CACHED)
def _encoded(kind: Callable[[], Any], labels: SentAttributes) -> bytes:
    """Several: in protobuf they stand one behind the other. There are many sets of labels, of few names and values."""
    return b"".join([_encoded_one(kind, name, value) for name, value in labels])


@lru_cache(CACHED)
def fleet_labels(key: FleetKey) -> SentAttributes:
    """Attributes of one fleet series. What is an agent's and no LLM's has neither provider nor model nor role."""
    if key == OVERFLOW_KEY:
        return ((semconv.METRIC_OVERFLOW, True),)
    labels: list[tuple[str, str | bool | int]] = []
    if key.model:
        labels += [
            (semconv.OPERATION_NAME, key.operation.value),
            (semconv.PROVIDER_NAME, sendable(key.provider)),
            (semconv.REQUEST_MODEL, sendable(key.model)),
            (semconv.LLM_ROLE, key.role.value),
        ]
    if key.agent:
        labels.append((semconv.AGENT_NAME, sendable(key.agent)))
    if key.fallback:
        labels.append((semconv.LLM_FALLBACK, True))
    if key.source is not None:
        labels.append((semconv.COST_SOURCE, key.source.value))
    labels += spelled(key.detail)
    labels += [(semconv.LABEL_PREFIX + name, value) for name, value in key.labels]
    return tuple(labels)
