"""The rule by which points change a series, and sums that stay exact."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openhands_otel.collector.series import ExactSum, MetricInfo, Point, Series, Value

COUNTER = MetricInfo("spend", "counter", "USD", "")
GAUGE = MetricInfo("level", "gauge", "1", "")


def point(value: Value | None, time: int, start: int = 1, metric: MetricInfo = COUNTER) -> Point:
    return Point(metric, (), start, time, value)


def test_a_newer_point_takes_the_place_of_the_older() -> None:
    series = Series(1, 10, 1.0)
    assert series.apply(point(2.5, 20))
    assert series.total == 2.5


@pytest.mark.parametrize("late", [point(1.0, 10), point(1.5, 15), point(2.0, 20), point(None, 15)])
def test_a_point_that_comes_late_or_twice_changes_nothing(late: Point) -> None:
    series = Series(1, 20, 2.0)
    assert not series.apply(late)
    assert (series.total, series.time, series.ended) == (2.0, 20, False)


def test_of_two_counts_with_one_time_the_larger_is_the_newer() -> None:
    series = Series(1, 20, 2.0)
    assert series.apply(point(3.0, 20))
    assert not series.apply(point(2.0, 20))
    assert series.total == 3.0


def test_a_stream_that_begins_anew_adds_to_what_the_old_one_had_reached() -> None:
    series = Series(1, 20, 2.0)
    assert series.apply(point(0.5, 40, start=30))
    assert series.total == 2.5
    assert not series.apply(point(2.0, 50, start=1)), "the old stream is over"
    assert series.apply(point(0.75, 60, start=30))
    assert series.total == 2.75


def test_a_counter_that_falls_has_begun_anew() -> None:
    series = Series(1, 20, 2.0)
    series.apply(point(0.5, 40))
    assert series.total == 2.5


def test_a_gauge_that_falls_has_fallen() -> None:
    series = Series(1, 20, 2.0)
    series.apply(point(0.5, 40, metric=GAUGE))
    assert series.total == 0.5


def test_an_ended_series_keeps_its_value_until_it_is_taken_up_again() -> None:
    series = Series(1, 20, 2.0)
    assert series.apply(point(None, 20))
    assert series.ended
    assert series.total == 2.0
    assert not series.apply(point(2.0, 20)), "a retry from before the end"
    assert series.apply(point(2.0, 30))
    assert not series.ended


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15), max_size=60))
def test_a_sum_is_the_one_that_infinite_precision_rounds_to(numbers: list[float]) -> None:
    total = ExactSum()
    for number in numbers:
        total.add(number)
    assert total.value == math.fsum(numbers)
    assert ExactSum(total.partials).value == total.value


@given(st.lists(st.floats(min_value=0, max_value=1e9), min_size=1, max_size=60))
def test_what_is_taken_back_leaves_nothing(numbers: list[float]) -> None:
    total = ExactSum()
    for number in numbers:
        total.add(number)
    for number in numbers:
        total.add(-number)
    assert total.value == 0.0
