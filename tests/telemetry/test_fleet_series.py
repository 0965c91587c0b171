"""What the fleet's series hand on: what changed, its zeros, deltas, distributions and exemplars."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.trace import SpanContext, TraceFlags

from openhands_otel import semconv
from openhands_otel._internal.clock import now_ns
from openhands_otel._internal.ledger.fleet import agent_key
from openhands_otel._internal.metrics.fleet_series import FleetSeries
from openhands_otel._internal.metrics.histogram_labels import HistogramLabels
from openhands_otel._internal.metrics.histograms import ExponentialBuckets
from openhands_otel._internal.metrics.points import Selection, SentSeries, SentValue
from openhands_otel._internal.metrics.samples import Distributions
from openhands_otel.semconv import Metric, Role

HISTOGRAM = semconv.RESPONSE_LATENCY.name


class Readings:
    """What a series of no attributes, or of one, stands at."""

    def __init__(self, world: World, metric: Metric) -> None:
        self._known = world.known
        self._metric = metric

    def add(self, amount: float, attributes: dict[str, str] | None = None) -> None:
        series = self._metric, tuple((attributes or {}).items())
        self._known[series] = self._known.get(series, 0) + amount  # type: ignore[operator]


class World:
    """One series of each kind, and a histogram."""

    def __init__(self, temporality: Any = "cumulative", exponential: bool = False) -> None:
        self.known: dict[SentSeries, SentValue] = {}
        self._distributions = Distributions(10, lambda: None, exponential)
        self.reader = FleetSeries(
            lambda: itertools.chain(self.known.items(), self._distributions.read()),
            temporality,
            self._distributions.exemplars,
        )
        self.counter = Readings(self, Metric("counter", "counter", "1", ""))
        self.gauge_like = Readings(self, Metric("up_down", "updowncounter", "1", ""))
        self.ours = Readings(self, semconv.FLUSHES)

    def record(self, seconds: float, role: Role = Role.AGENT, span: SpanContext | None = None) -> None:
        labels = HistogramLabels(agent_key(None)._replace(model="gpt-4o", role=role))
        self._distributions.record(semconv.RESPONSE_LATENCY, labels, seconds, span)

    def select(self, everything: bool = False, last: bool = False, complete: bool = True) -> Selection:
        return self.reader.select(everything, last, complete, now_ns())

    def deliver(self, everything: bool = False, last: bool = False, complete: bool = True) -> list[tuple[str, Any]]:
        """Names and values of one delivered selection."""
        selection = self.select(everything, last, complete)
        selection.commit()
        return values(selection)


def points(selection: Selection) -> Iterator[tuple[pb.Metric, Any]]:
    for metric in selection.scope.metrics if selection.scope else ():
        for point in data(metric).data_points:
            yield metric, point


def data(metric: pb.Metric) -> Any:
    return getattr(metric, metric.WhichOneof("data") or "")


def value(point: Any) -> float:
    return getattr(point, point.WhichOneof("value")) if isinstance(point, pb.NumberDataPoint) else point.count


def values(selection: Selection) -> list[tuple[str, Any]]:
    return [(metric.name, value(point)) for metric, point in points(selection)]


def test_a_stream_starts_with_0_and_is_silent_until_it_changes() -> None:
    world = World()
    world.counter.add(5)
    assert world.deliver() == [("counter", 0), ("counter", 5)]
    assert world.deliver() == []
    world.counter.add(1)
    assert world.deliver() == [("counter", 6)]


def test_what_is_not_delivered_is_sent_again_with_its_0() -> None:
    world = World()
    world.counter.add(5)
    first = world.select()
    world.counter.add(1)
    second = world.select()
    assert values(first) == [("counter", 0), ("counter", 5)]
    assert values(second) == [("counter", 0), ("counter", 6)]
    starts = {point.start_time_unix_nano for selection in (first, second) for _, point in points(selection)}
    assert len(starts) == 1


def test_a_heartbeat_repeats_values_and_starts_nothing_again() -> None:
    world = World()
    world.counter.add(5)
    world.record(3)
    world.deliver()
    assert sorted(world.deliver(everything=True)) == [("counter", 5), (HISTOGRAM, 1)]


def test_what_we_say_about_ourselves_waits_for_the_heartbeat_or_the_end() -> None:
    world = World()
    world.ours.add(1)
    assert world.deliver() == []
    assert world.deliver(last=True) == [(semconv.FLUSHES.name, 0), (semconv.FLUSHES.name, 1)]
    world.ours.add(1)
    assert world.deliver() == []
    assert world.deliver(everything=True) == [(semconv.FLUSHES.name, 2)]


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_distributions_wait_for_a_complete_request_and_are_in_what_is_kept(temporality: str) -> None:
    world = World(temporality)
    world.counter.add(5)
    world.record(3)
    counted = world.deliver(complete=False)
    assert {name for name, _ in counted} == {"counter"}
    assert {metric.name for metric, _ in world.reader.held(now_ns(), False)} == {HISTOGRAM}
    lost = world.select()
    world.record(4)
    assert world.deliver(complete=False) == []
    zero = [(HISTOGRAM, 0)] if temporality == "cumulative" else []
    assert values(lost) == [*zero, (HISTOGRAM, 1)]
    # It was not delivered, so it is told again: with its 0, at most a second before.
    selection = world.select(last=True)
    assert [each for each in values(selection) if each[0] == HISTOGRAM] == [*zero, (HISTOGRAM, 2)]
    for _, point in points(selection):
        assert point.time_unix_nano - point.start_time_unix_nano <= 1_000_000_000


def test_an_exemplar_waits_with_its_distribution() -> None:
    world = World()
    world.record(3, span=SpanContext(7, 8, False, TraceFlags(TraceFlags.SAMPLED)))
    world.counter.add(1)
    world.deliver(complete=False)
    assert [len(point.exemplars) for _, point in points(world.select()) if point.count] == [1]


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_new_streams_of_a_known_metric_start_with_0_each(temporality: str) -> None:
    world = World(temporality)
    world.counter.add(5, {"model": "one"})
    world.deliver()
    world.counter.add(7, {"model": "two"})
    assert world.deliver() == ([("counter", 0)] if temporality == "cumulative" else []) + [("counter", 7)]


def test_deltas_count_from_what_was_delivered_last() -> None:
    world = World("delta")
    world.counter.add(5)
    world.record(0.5)
    assert sorted(world.deliver()) == [("counter", 5), (HISTOGRAM, 1)]
    world.counter.add(2)
    lost = world.select()
    world.counter.add(3)
    world.record(20)
    selection = world.select()
    assert values(lost) == [("counter", 2)]
    assert sorted(values(selection)) == [("counter", 5), (HISTOGRAM, 1)]
    for metric, point in points(selection):
        assert data(metric).aggregation_temporality == pb.AGGREGATION_TEMPORALITY_DELTA
        if metric.name == HISTOGRAM:
            bounds, counts = point.explicit_bounds, point.bucket_counts
            assert [bounds[index] for index, count in enumerate(counts) if count] == [20.48]
            assert point.sum == 20


def test_a_heartbeat_of_deltas_says_nothing_that_was_said() -> None:
    world = World("delta")
    world.counter.add(5)
    world.deliver()
    assert world.deliver(everything=True) == []


def test_low_memory_means_cumulative_sums_and_delta_histograms() -> None:
    world = World("lowmemory")
    for _ in range(2):
        world.counter.add(5)
        world.record(0.5)
        delivered = dict(world.deliver())
    assert delivered == {"counter": 10, HISTOGRAM: 1}


def test_what_goes_up_and_down_stays_cumulative_under_delta() -> None:
    world = World("delta")
    world.gauge_like.add(5)
    world.deliver()
    world.gauge_like.add(-2)
    selection = world.select()
    ((metric, point),) = points(selection)
    assert value(point) == 3
    assert data(metric).aggregation_temporality == pb.AGGREGATION_TEMPORALITY_CUMULATIVE


def test_a_histogram_is_sent_with_its_buckets_and_only_when_it_changed() -> None:
    world = World()
    world.counter.add(1)
    for seconds in (0.01, 0.3, 0.3, 200):
        world.record(seconds)
    world.record(1, Role.CONDENSER)
    world.deliver()
    world.counter.add(1)
    world.record(5)
    ((_, point),) = ((metric, point) for metric, point in points(world.select()) if metric.name == HISTOGRAM)
    assert (point.count, point.min, point.max) == (5, 0.01, 200)
    assert point.sum == pytest.approx(205.61)
    counts = dict(zip([*point.explicit_bounds, None], point.bucket_counts, strict=True))
    assert {bound: count for bound, count in counts.items() if count} == {0.01: 1, 0.32: 2, 5.12: 1, None: 1}
    attributes = {each.key: each.value.string_value for each in point.attributes}
    assert attributes[semconv.LLM_ROLE] == Role.AGENT


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_the_newest_exemplar_of_a_point_is_sent_once(temporality: str) -> None:
    world = World(temporality)
    world.counter.add(1)
    for number in (1, 2, 3):
        world.record(number, span=SpanContext(7, number, False, TraceFlags(TraceFlags.SAMPLED)))
    selection = world.select()
    found = [each for _, point in points(selection) for each in point.exemplars]
    found_in = [(int.from_bytes(each.trace_id), int.from_bytes(each.span_id), each.as_int) for each in found]
    assert found_in == [(7, 3, 3)]
    selection.commit()
    again = world.select(everything=True)
    assert [point for _, point in points(again) if point.exemplars] == []


def test_an_exponential_histogram_has_the_newest_exemplar() -> None:
    world = World(exponential=True)
    for number in (1, 20, 300):
        world.record(number, span=SpanContext(7, number, False, TraceFlags(TraceFlags.SAMPLED)))
    found = [len(point.exemplars) for _, point in points(world.select()) if point.count]
    assert found == [1]


def test_exponential_histograms_are_deltas_where_these_are_preferred_whatever_their_scale() -> None:
    """Kind: what is offered and left out. Values far apart make the scale coarser under way."""
    world = World("delta", exponential=True)
    counts: list[int] = []
    scales: list[int] = []
    for values_of_flush in ([1.0, 1.1], [1.05], [1e6, 1e-6], [1.0]):
        for seconds in values_of_flush:
            world.record(seconds)
        selection = world.select()
        selection.commit()
        for metric, point in points(selection):
            assert data(metric).aggregation_temporality == pb.AGGREGATION_TEMPORALITY_DELTA
            assert sum(point.positive.bucket_counts) == point.count
            assert min(point.positive.bucket_counts) >= 0
            counts.append(point.count)
            scales.append(point.scale)
    assert counts == [2, 1, 2, 1]
    assert scales[0] > scales[-1]


@pytest.mark.parametrize("seed", range(20))
def test_exponential_buckets_are_those_of_the_sdk(seed: int) -> None:
    """The same values through the SDK's instrument and through ours, powers of two and zeros among them."""
    generator = random.Random(seed)
    amounts = [generator.lognormvariate(0, generator.choice([0.01, 1, 8])) for _ in range(generator.randrange(1, 400))]
    amounts += [2.0 ** generator.randrange(-20, 20) for _ in range(5)] + [0.0]
    generator.shuffle(amounts)
    reader = InMemoryMetricReader(preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()})
    instrument = MeterProvider([reader], shutdown_on_exit=False).get_meter("test").create_histogram("histogram")
    ours = ExponentialBuckets()
    for amount in amounts:
        instrument.record(amount)
        ours.add(amount)
    collected: Any = reader.get_metrics_data()
    encoded = encode_metrics(collected).resource_metrics[0].scope_metrics[0].metrics[0]
    (theirs,) = encoded.exponential_histogram.data_points
    written = pb.ExponentialHistogramDataPoint()
    ours.write(written)
    for name in ("count", "scale", "zero_count", "min", "max"):
        assert getattr(written, name) == getattr(theirs, name), name
    assert written.sum == pytest.approx(theirs.sum)
    # The SDK hands on empty buckets at the ends.
    assert _counted(written.positive) == _counted(theirs.positive)


def _counted(buckets: Any) -> dict[int, int]:
    return {buckets.offset + index: count for index, count in enumerate(buckets.bucket_counts) if count}
