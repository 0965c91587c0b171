"""The fleet's histograms, recorded by the flusher alone: as totals of our own, or on a Meter.

In the managed pipeline they are ``Distributions``: a bucket list for each attribute set, read by ``ChangedPoints``
beside what the SDK collects. An SDK instrument takes 8 us a value, which for a server with 2,000 calls a second would
be all that a flush may cost; this takes less than one. ``InstrumentHistograms`` are the SDK's: for guests, whose
reader collects them, and for exponential histograms. A cap bounds the attribute sets of each, as the ledger does for
the counters.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator

from opentelemetry.context import Context
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import AggregationTemporality, HistogramDataPoint
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.metrics.export import Metric as MetricData
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

from openhands_otel._internal import fork_gate
from openhands_otel._internal.clock import now_ns
from openhands_otel._internal.metrics.attributes import Attributes
from openhands_otel._internal.metrics.samples import METRICS, OVERFLOW, Labels
from openhands_otel.semconv import Metric

OnOverflow = Callable[[], None]


class Distribution:
    """The values of one histogram series: a count for each bucket, as the SDK's explicit-bucket aggregation has."""

    __slots__ = ("_bounds", "_counts", "_exemplar", "_max", "_min", "_sum", "attributes", "count")

    def __init__(self, bounds: tuple[float, ...], attributes: Attributes) -> None:
        self.attributes = attributes
        self.count = 0
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._min, self._max = math.inf, -math.inf
        self._exemplar: Exemplar | None = None

    def add(self, amount: float, span: SpanContext | None) -> None:
        """Take one value."""
        self._counts[bisect_left(self._bounds, amount)] += 1
        self.count += 1
        self._sum += amount
        if amount < self._min:
            self._min = amount
        if amount > self._max:
            self._max = amount
        if span is not None:
            self._exemplar = Exemplar({}, amount, now_ns(), span.span_id, span.trace_id)

    def point(self, now: int) -> HistogramDataPoint:
        """What it holds at ``now``, and what came last since it was last asked.

        Where it starts is for ``ChangedPoints`` to say.
        """
        exemplar, self._exemplar = self._exemplar, None
        return HistogramDataPoint(
            attributes=self.attributes,
            start_time_unix_nano=0,
            time_unix_nano=now,
            count=self.count,
            sum=self._sum,
            bucket_counts=tuple(self._counts),
            explicit_bounds=self._bounds,
            min=self._min,
            max=self._max,
            exemplars=[] if exemplar is None else [exemplar],
        )


class _Series[S]:
    """What stands for each attribute set of each histogram, up to a cap."""

    def __init__(self, limit: int, on_overflow: OnOverflow, make: Callable[[Metric, Labels], S]) -> None:
        self.known: dict[str, dict[Labels, S]] = {metric.name: {} for metric in METRICS}
        self._limit = limit
        self._on_overflow = on_overflow
        self._make = make

    def find(self, metric: Metric, labels: Labels) -> S:
        """What stands for ``labels``, or for all that the cap keeps out."""
        known = self.known[metric.name]
        if labels not in known and len(known) >= self._limit and labels != OVERFLOW:
            self._on_overflow()
            labels = OVERFLOW
        found = known.get(labels)
        if found is None:
            found = known[labels] = self._make(metric, labels)
        return found


class Distributions:
    """Histograms as totals of our own."""

    def __init__(self, series_limit: int, on_overflow: OnOverflow) -> None:
        self._series = _Series(series_limit, on_overflow, _distribution)

    def record(self, metric: Metric, labels: Labels, amount: float, span: SpanContext | None) -> None:
        """Take one value."""
        found = self._series.known[metric.name].get(labels) or self._series.find(metric, labels)
        found.add(amount, span)

    def collect(self, now: int) -> Iterator[MetricData]:
        """All of them, as the SDK would hand them to a reader."""
        for metric in METRICS:
            series = self._series.known[metric.name].values()
            if series:
                points = [each.point(now) for each in series]
                data = HistogramData(points, AggregationTemporality.CUMULATIVE)
                yield MetricData(metric.name, metric.description, metric.unit, data)


def _distribution(metric: Metric, labels: Labels) -> Distribution:
    return Distribution(metric.buckets or (), labels.attributes())


class InstrumentHistograms:
    """Histograms on one Meter."""

    def __init__(self, meter: Meter, series_limit: int, on_overflow: OnOverflow) -> None:
        self._histograms = {
            metric.name: meter.create_histogram(
                metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=metric.buckets
            )
            for metric in METRICS
        }
        self._attributes = _Series(series_limit, on_overflow, lambda metric, labels: labels.attributes())

    def record(self, metric: Metric, labels: Labels, amount: float, span: SpanContext | None) -> None:
        """Take one value."""
        attributes = self._attributes.find(metric, labels)
        context = None if span is None else set_span_in_context(NonRecordingSpan(span), Context())
        with fork_gate.recordings.closed():
            self._histograms[metric.name].record(amount, attributes, context)
