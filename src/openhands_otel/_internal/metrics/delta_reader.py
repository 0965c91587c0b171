"""A MetricReader that is collected by the flusher and hands on only what changed since it was last delivered.

The SDK sends every series with every export; here an update has the size of what changed. The histograms of our own
(``Distributions``) are read beside what the SDK collects; without them it is asked for exponential ones. Four more
things happen to points on their way:

* A new stream starts with a point of value 0 just before its first value, so that ``increase()`` and the like see the
  first value as a change. The stream's start time is the zero's time (the SDK's own start lies microseconds before the
  value, which is the same millisecond to Prometheus). All stamps are by the process's own clock (``clock.py``).
* Where delta temporality is preferred, the difference to what was last *delivered* is sent. A request that failed is
  thereby in the next one; the SDK's own deltas would be lost with it.
* At most one exemplar stands on a point, so that an update stays small: the newest.
* What is not delivered counts as not sent: ``Selection.commit`` is called only when the collector has it.
* What is not acknowledged can be looked at (``held``) and told later, as it was then: see ``backlog.py``.
* When the process goes on under a fresh instance id (``start_over``), all but gauges go on from 0.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from opentelemetry.sdk.metrics import Counter, Exemplar, Histogram, ObservableCounter, UpDownCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Buckets,
    Gauge,
    HistogramDataPoint,
    Metric,
    MetricReader,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

from openhands_otel import semconv
from openhands_otel._internal.clock import SECOND_NS, now_ns
from openhands_otel._internal.export.otlp_config import Temporality
from openhands_otel._internal.metrics.exemplars import CounterExemplars, Key
from openhands_otel._internal.metrics.histograms import Distributions
from openhands_otel._internal.metrics.self_observation import METRICS

MILLISECOND_NS = 1_000_000
SELF_OBSERVATION = frozenset(metric.name for metric in METRICS)


Held = dict[Key, tuple[Metric, Any]]
"""Points as they were at one time, cumulative since the process began, each with the metric that it is of."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Points to send, and what to call when they are delivered."""

    data: MetricsData | None
    commit: Callable[[], None]


class ChangedPoints(MetricReader):
    """See the module's docstring. Used by one thread at a time."""

    def __init__(
        self, temporality: Temporality, distributions: Distributions | None, exemplars: CounterExemplars
    ) -> None:
        super().__init__(
            preferred_temporality=dict.fromkeys(
                (Counter, Histogram, ObservableCounter, UpDownCounter), AggregationTemporality.CUMULATIVE
            ),
            preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()},
        )
        self._delta_sums = temporality == "delta"
        self._delta_histograms = temporality in ("delta", "lowmemory")
        self._distributions = distributions
        self._of_counters = exemplars
        self._exemplars: Mapping[Key, Exemplar] = {}
        self._collected: MetricsData | None = None
        self._resource: ResourceMetrics | None = None
        self._scopes: dict[str, ScopeMetrics] = {}
        """By metric, what stands around it. There is ours, and the SDK's where its own metrics are switched on."""
        self._delivered: dict[Key, Any] = {}
        self._starts: dict[Key, int] = {}
        self._base: dict[Key, Any] = {}
        """Points as they were when the instance began: what was counted before is not its own."""
        self._about_ourselves = False
        self._last_collection = now_ns()
        self._now = self._last_collection

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        self._collected = metrics_data

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Nothing to stop: the flusher is what collects."""

    def start_over(self) -> None:
        """Go on as another instance: what was delivered until now was delivered under the id before."""
        self._base |= self._delivered
        self._delivered = {}
        self._starts.clear()

    def select(self, everything: bool, last: bool, now: int) -> Selection:
        """Collect, and choose what changed, stamped ``now``; ``everything`` chooses all (the heartbeat).

        What this plugin says about itself is chosen then, and with the ``last`` request of the process.
        """
        self._about_ourselves = everything or last
        self._now = now
        self._exemplars = self._of_counters.take()
        sent: dict[Key, Any] = {}
        data = self._data(
            self._tell(metric, changed, self._delivered, self._sends_delta(metric.data), sent)
            for metric in self._read()
            if (changed := self._changed(metric, everything))
        )
        self._last_collection = now
        return Selection(data, lambda: self._delivered.update(sent))

    def held(self, now: int, everything: bool) -> Held:
        """What is not acknowledged, or ``everything``, stamped ``now``. Nothing is different afterwards."""
        self._about_ourselves = False
        self._now = now
        self._exemplars = {}
        return {key: (metric, point) for metric in self._read() for key, point in self._changed(metric, everything)}

    def select_held(self, held: Held) -> Selection:
        """``held`` as it is to be sent."""
        sent: dict[Key, Any] = {}
        data = self._data(
            self._tell(metric, points, self._delivered, self._sends_delta(metric.data), sent)
            for metric, points in _by_metric(held)
        )
        return Selection(data, lambda: self._delivered.update(sent))

    def spooled(self, held: Held, told: dict[Key, Any]) -> MetricsData | None:
        """``held`` for whoever sends it later, cumulative whatever is preferred; ``told`` stands before it there."""
        known = ChainMap(told, self._delivered)
        return self._data(self._tell(metric, points, known, False, told) for metric, points in _by_metric(held))

    def acknowledged(self, held: Held) -> MetricsData | None:
        """What was acknowledged last of the series of ``held``."""
        last = {key: (metric, self._delivered[key]) for key, (metric, _) in held.items() if key in self._delivered}
        return self._data(self._tell(metric, points, dict(points), False, {}) for metric, points in _by_metric(last))

    def _read(self) -> Iterable[Metric]:
        self.collect()
        collected, self._collected = self._collected, None
        if collected is None:
            return ()
        (self._resource,) = collected.resource_metrics
        scopes = self._resource.scope_metrics
        ours = next((each for each in scopes if each.scope.name == semconv.SCOPE_FLEET), scopes[0])
        own = () if self._distributions is None else tuple(self._distributions.collect(self._now))
        found = [(each, metric) for each in scopes for metric in each.metrics] + [(ours, metric) for metric in own]
        self._scopes.update((metric.name, scope) for scope, metric in found)
        return [metric for _, metric in found]

    def _data(self, metrics: Iterable[Metric | None]) -> MetricsData | None:
        by_scope: dict[str, tuple[ScopeMetrics, list[Metric]]] = {}
        for metric in metrics:
            if metric is not None:
                scope = self._scopes[metric.name]
                by_scope.setdefault(scope.scope.name, (scope, []))[1].append(metric)
        if not by_scope or self._resource is None:
            return None
        told = [replace(scope, metrics=found) for scope, found in by_scope.values()]
        return MetricsData([replace(self._resource, scope_metrics=told)])

    def _changed(self, metric: Metric, everything: bool) -> list[tuple[Key, Any]]:
        if metric.name in SELF_OBSERVATION and not self._about_ourselves:
            return []
        changed: list[tuple[Key, Any]] = []
        accumulates = adds_up(metric)
        for point in metric.data.data_points:
            key = (metric.name, frozenset((point.attributes or {}).items()))
            base = self._base.get(key) if accumulates else None
            if _is_old_news(point, self._delivered.get(key), base, everything):
                continue
            dressed = replace(
                point,
                time_unix_nano=self._now,
                start_time_unix_nano=self._start(key),
                exemplars=self._newest(key, point),
            )
            changed.append((key, dressed))
        return changed

    def _tell(
        self,
        metric: Metric,
        changed: Iterable[tuple[Key, Any]],
        known: Mapping[Key, Any],
        delta: bool,
        sent: dict[Key, Any],
    ) -> Metric | None:
        """``changed`` as it is said to somebody who has ``known``; with what is new put into ``sent``."""
        points: list[Any] = []
        accumulates = adds_up(metric)
        for key, point in changed:
            before = known.get(key)
            base = self._base.get(key) if accumulates else None
            sent[key] = point
            own = point if base is None else less(point, base)
            if delta:
                if before is None or extent(point) != extent(before):
                    points.append(own if before is None else _difference(point, before))
            else:
                if before is None and accumulates:
                    points.append(_zero(own))
                points.append(own)
        if not points:
            return None
        data: Any = replace(metric.data, data_points=points)
        if delta:
            data = replace(data, aggregation_temporality=AggregationTemporality.DELTA)
        return replace(metric, data=data)

    def _sends_delta(self, data: Any) -> bool:
        if isinstance(data, Sum):
            return self._delta_sums and data.is_monotonic
        return self._delta_histograms and not isinstance(data, Gauge)

    def _newest(self, key: Key, point: Any) -> list[Exemplar]:
        if isinstance(point, NumberDataPoint):
            exemplar = self._exemplars.get(key)
            return [] if exemplar is None else [exemplar]
        newest = sorted(point.exemplars, key=lambda each: each.time_unix_nano)[-1:]
        # The SDK's own histograms stamp theirs by the wall clock.
        return [replace(each, time_unix_nano=min(each.time_unix_nano, self._now)) for each in newest]

    def _start(self, key: Key) -> int:
        start = self._starts.get(key)
        if start is None:
            # The last time at which it was seen not to exist, but no more than a second ago, or a back end whose head
            # has moved on would refuse the zero as too old; and a millisecond at least, its resolution.
            now = self._now
            start = min(max(self._last_collection, now - SECOND_NS), now - MILLISECOND_NS)
            self._starts[key] = start
        return start


def adds_up(metric: Metric) -> bool:
    """Whether a metric's points are totals, which start at 0."""
    return metric.data.is_monotonic if isinstance(metric.data, Sum) else not isinstance(metric.data, Gauge)


def _by_metric(held: Held) -> Iterable[tuple[Metric, list[tuple[Key, Any]]]]:
    found: dict[str, tuple[Metric, list[tuple[Key, Any]]]] = {}
    for key, (metric, point) in held.items():
        found.setdefault(metric.name, (metric, []))[1].append((key, point))
    return found.values()


def extent(point: Any) -> float:
    """What differs when a cumulative point has changed."""
    return point.value if isinstance(point, NumberDataPoint) else point.count


def _is_old_news(point: Any, before: Any, base: Any, everything: bool) -> bool:
    """Whether there is nothing to say of a point: it is as it was, or nothing of it is this instance's own."""
    if before is None:
        return base is not None and extent(point) == extent(base)
    return not everything and extent(point) == extent(before)


def _zero(point: Any) -> Any:
    """The point of value 0 that a stream starts with."""
    if isinstance(point, NumberDataPoint):
        return replace(point, time_unix_nano=point.start_time_unix_nano, value=0, exemplars=[])
    empty = replace(point, time_unix_nano=point.start_time_unix_nano, count=0, sum=0, min=None, max=None, exemplars=[])
    if isinstance(point, HistogramDataPoint):
        return replace(empty, bucket_counts=[0] * len(point.bucket_counts))
    return replace(empty, zero_count=0, positive=Buckets(0, []), negative=Buckets(0, []))


def _difference(point: Any, before: Any) -> Any:
    """``point`` less what was delivered before, as a delta point."""
    return replace(less(point, before), start_time_unix_nano=before.time_unix_nano)


def less(point: Any, before: Any) -> Any:
    """What a cumulative point has grown by since ``before``. The least and the greatest of it nobody knows."""
    if isinstance(point, NumberDataPoint):
        return replace(point, value=point.value - before.value)
    rest = replace(point, count=point.count - before.count, sum=point.sum - before.sum, min=None, max=None)
    if isinstance(point, HistogramDataPoint):
        counts = zip(point.bucket_counts, before.bucket_counts, strict=True)
        return replace(rest, bucket_counts=[now - then for now, then in counts])
    # The scale of an exponential histogram only ever becomes coarser.
    coarser = before.scale - point.scale
    return replace(
        rest,
        zero_count=point.zero_count - before.zero_count,
        positive=_buckets_less(point.positive, before.positive, coarser),
        negative=_buckets_less(point.negative, before.negative, coarser),
    )


def _buckets_less(buckets: Buckets, before: Buckets, coarser: int) -> Buckets:
    counts = list(buckets.bucket_counts)
    for index, count in enumerate(before.bucket_counts):
        if count:
            counts[((before.offset + index) >> coarser) - buckets.offset] -= count
    return Buckets(buckets.offset, counts)
