"""What a reader of ours hands on, beside what the SDK's instruments hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality

from openhands_otel import semconv
from openhands_otel.telemetry.changed_points import ChangedPoints, Selection


class World:
    """A provider behind our reader, with one instrument of each kind."""

    def __init__(self, temporality: Any = "cumulative", exponential: bool = False) -> None:
        self.reader = ChangedPoints(temporality, exponential)
        provider = MeterProvider([self.reader], shutdown_on_exit=False)
        meter = provider.get_meter("test")
        self.counter = meter.create_counter("counter")
        self.gauge_like = meter.create_up_down_counter("up_down")
        self.histogram = meter.create_histogram("histogram", explicit_bucket_boundaries_advisory=[1, 10])
        self.ours = meter.create_counter(semconv.FLUSHES.name)
        self.provider = provider

    def select(self, everything: bool = False, last: bool = False) -> Selection:
        return self.reader.select(everything, last)

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
    world.histogram.record(3)
    world.deliver()
    assert sorted(world.deliver(everything=True)) == [("counter", 5), ("histogram", 1)]


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
    world.histogram.record(0.5)
    assert sorted(world.deliver()) == [("counter", 5), ("histogram", 1)]
    world.counter.add(2)
    lost = world.select()
    world.counter.add(3)
    world.histogram.record(20)
    selection = world.select()
    assert values(lost) == [("counter", 2)]
    assert sorted(values(selection)) == [("counter", 5), ("histogram", 1)]
    for metric, point in points(selection):
        assert metric.data.aggregation_temporality is AggregationTemporality.DELTA
        if metric.name == "histogram":
            assert point.bucket_counts == [0, 0, 1]
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
        world.histogram.record(0.5)
        delivered = dict(world.deliver())
    assert delivered == {"counter": 10, "histogram": 1}


def test_what_goes_up_and_down_stays_cumulative_under_delta() -> None:
    world = World("delta")
    world.gauge_like.add(5)
    world.deliver()
    world.gauge_like.add(-2)
    selection = world.select()
    ((metric, point),) = points(selection)
    assert point.value == 3
    assert metric.data.aggregation_temporality is AggregationTemporality.CUMULATIVE
