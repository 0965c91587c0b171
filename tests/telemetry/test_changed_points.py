"""What a reader of ours hands on, beside what the SDK's instruments hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from openhands_otel import semconv
from openhands_otel._internal.clock import now_ns
from openhands_otel._internal.ledger.ledger import agent_key
from openhands_otel._internal.metrics.delta_reader import ChangedPoints, Selection
from openhands_otel._internal.metrics.exemplars import CounterExemplars
from openhands_otel._internal.metrics.histograms import Distributions
from openhands_otel._internal.metrics.samples import Labels
from openhands_otel.semconv import Role

HISTOGRAM = semconv.RESPONSE_LATENCY.name


class World:
    """A provider behind our reader, with one instrument of each kind, and a histogram of our own."""

    def __init__(self, temporality: Any = "cumulative") -> None:
        self._distributions = Distributions(10, lambda: None)
        self.exemplars = CounterExemplars()
        self.reader = ChangedPoints(temporality, self._distributions, self.exemplars)
        provider = MeterProvider([self.reader], shutdown_on_exit=False)
        meter = provider.get_meter("test")
        self.counter = meter.create_counter("counter")
        self.gauge_like = meter.create_up_down_counter("up_down")
        self.ours = meter.create_counter(semconv.FLUSHES.name)
        self.provider = provider

    def record(self, seconds: float, role: Role = Role.AGENT, span: SpanContext | None = None) -> None:
        labels = Labels(agent_key(None)._replace(model="gpt-4o", role=role))
        self._distributions.record(semconv.RESPONSE_LATENCY, labels, seconds, span)

    def select(self, everything: bool = False, last: bool = False) -> Selection:
        return self.reader.select(everything, last, now_ns())

    def deliver(self, everything: bool = False, last: bool = False) -> list[tuple[str, Any]]:
        """Names and values of one delivered selection."""
        selection = self.select(everything, last)
        selection.commit()
        return values(selection)


def points(selection: Selection) -> Iterator[tuple[Any, Any]]:
    for resource in selection.data.resource_metrics if selection.data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    yield metric, point


def values(selection: Selection) -> list[tuple[str, Any]]:
    return [(metric.name, getattr(point, "value", None) if hasattr(point, "value") else point.count)
            for metric, point in points(selection)]  # fmt: skip


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
        assert metric.data.aggregation_temporality is AggregationTemporality.DELTA
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
    assert point.value == 3
    assert metric.data.aggregation_temporality is AggregationTemporality.CUMULATIVE


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
    assert point.attributes[semconv.LLM_ROLE] == Role.AGENT


@pytest.mark.parametrize("temporality", ["cumulative", "delta"])
def test_the_newest_exemplar_of_a_point_is_sent_once(temporality: str) -> None:
    world = World(temporality)
    world.counter.add(1)
    for number in (1, 2, 3):
        world.record(number, span=SpanContext(7, number, False, TraceFlags(TraceFlags.SAMPLED)))
    selection = world.select()
    found = [each for _, point in points(selection) for each in point.exemplars]
    assert [(each.trace_id, each.span_id, each.value) for each in found] == [(7, 3, 3)]
    selection.commit()
    again = world.select(everything=True)
    assert [point for _, point in points(again) if point.exemplars] == []


def test_an_exponential_histogram_has_the_newest_exemplar_of_the_sdks() -> None:
    reader = ChangedPoints("cumulative", None, CounterExemplars())
    provider = MeterProvider([reader], shutdown_on_exit=False)
    histogram = provider.get_meter("test").create_histogram("histogram")
    for number in (1, 20, 300):
        span = NonRecordingSpan(SpanContext(7, number, False, TraceFlags(TraceFlags.SAMPLED)))
        histogram.record(number, {}, set_span_in_context(span))
    found = [len(point.exemplars) for _, point in points(reader.select(False, False, now_ns())) if point.count]
    assert found == [1]


def test_exponential_histograms_are_deltas_where_these_are_preferred_whatever_their_scale() -> None:
    """Kind: what is offered and left out. Values far apart make the SDK's scale coarser under way."""
    reader = ChangedPoints("delta", None, CounterExemplars())
    provider = MeterProvider([reader], shutdown_on_exit=False)
    histogram = provider.get_meter("test").create_histogram("histogram")
    counts: list[int] = []
    scales: list[int] = []
    for values_of_flush in ([1.0, 1.1], [1.05], [1e6, 1e-6], [1.0]):
        for value in values_of_flush:
            histogram.record(value)
        selection = reader.select(False, False, now_ns())
        selection.commit()
        for metric, point in points(selection):
            assert metric.data.aggregation_temporality is AggregationTemporality.DELTA
            assert sum(point.positive.bucket_counts) == point.count
            assert min(point.positive.bucket_counts) >= 0
            counts.append(point.count)
            scales.append(point.scale)
    assert counts == [2, 1, 2, 1]
    assert scales[0] > scales[-1]
