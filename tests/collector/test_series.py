"""The rule by which points change a series (order and time), and sums that stay exact."""

from __future__ import annotations

import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openhands_otel._internal.collector.points.exponential import Exponential, from_exponential
from openhands_otel._internal.collector.points.series import (
    MetricInfo,
    Point,
    Series,
    begin,
    series_before,
    series_from_record,
)
from openhands_otel._internal.collector.points.values import Distribution, PointValue
from openhands_otel._internal.exact import ExactSum

COUNTER = MetricInfo("spend", "counter", "USD", "")
GAUGE = MetricInfo("level", "gauge", "1", "")
SECOND = 1_000_000_000
NOW = 1_000_000 * SECOND


def point(
    value: PointValue | None, at: float, start: float = 1, metric: MetricInfo = COUNTER, delta: bool = False
) -> Point:
    """A point with its times in seconds."""
    return Point(metric, (), int(start * SECOND), int(at * SECOND), value, delta)


def series(*points: Point, named: bool = True) -> Series:
    """A series that took these points, through an archive and back after each."""
    first, *rest = points
    assert first.value is not None
    held = begin(first, first.value, named, NOW)
    for each in rest:
        held.apply(each, NOW)
        held = series_from_record(json.loads(json.dumps(held.record())))
    return held


def totals(points: list[Point], named: bool = True) -> set[float]:
    """What the points come to, in every order and each of them twice."""
    return {series(*order, *order, named=named).total for order in itertools.permutations(points)}


def test_the_larger_value_is_the_newer_whatever_its_stamp_says() -> None:
    """Kind: the sender's clock taken for the order of things. It stood at 100 s and was set back to 70."""
    assert totals([point(0.5, 100), point(0.75, 70), point(1.0, 75)]) == {1.0}


@pytest.mark.parametrize("late", [point(1.0, 10), point(1.5, 15), point(2.0, 20), point(1.5, 25), point(None, 15)])
def test_a_point_that_comes_late_or_twice_changes_nothing(late: Point) -> None:
    held = series(point(2.0, 20))
    assert not held.apply(late, NOW)
    assert (held.total, held.ended) == (2.0, False)


def test_what_falls_under_a_start_of_its_own_is_another_stream() -> None:
    assert totals([point(0.0, 20), point(2.0, 21), point(0.0, 10.5, start=10), point(0.5, 22, start=10)]) == {2.5}


def test_a_start_after_the_last_stamp_is_another_stream_though_nothing_fell() -> None:
    assert totals([point(2.0, 20), point(3.0, 40, start=22)]) == {5.0}


def test_a_start_that_moved_on_the_way_is_the_same_stream() -> None:
    """Kind: as above. A gateway that started anew put its own start on what it handed on."""
    assert totals([point(1.0, 20), point(2.0, 30, start=15), point(3.0, 40, start=30.5)]) == {3.0}


def test_starts_that_move_with_every_point_are_one_stream_still() -> None:
    points = [point(float(number), 10 + number, start=8 + number) for number in range(1, 500)]
    held = series(*points, *points, *reversed(points))
    assert held.total == 499.0
    assert len(json.dumps(held.record())) < 16_000, "it is bounded"


def test_a_start_within_a_second_is_the_same() -> None:
    assert totals([point(1.0, 20), point(2.0, 30, start=1.6), point(3.0, 40, start=0.9)]) == {3.0}


def test_many_restarts_add_up_and_take_no_more_room() -> None:
    points = [point(0.25, 10 * number + 1, start=10 * number) for number in range(1, 500)]
    held = series(*points, *points)
    assert held.total == 499 * 0.25
    assert len(json.dumps(held.record())) < 16_000


@pytest.mark.parametrize("named", [True, False])
def test_a_crowd_of_workers_under_one_name_adds_up(named: bool) -> None:
    """Workers of one server that share a resource, or an id that was pinned, and all of them go on."""
    held = begin(point(0.0, 1_000, 1_000), 0.0, named, NOW)
    for value in range(5):
        for worker in range(200):
            held.apply(point(float(value), 1_700 + value, 1_000 + 1.5 * worker), NOW)
    assert held.total == 200 * 4


def test_without_a_start_a_fall_with_a_newer_stamp_is_taken_for_a_restart_and_said_to_be() -> None:
    held = series(point(2.0, 20, 0), point(0.5, 30, 0), point(2.0, 20, 0), point(0.75, 40, 0), point(0.25, 10, 0))
    assert held.total == 2.75
    assert held.record()[4] == 1, "restarts that were assumed"


def test_without_an_instance_id_each_start_is_a_process() -> None:
    """Kind: two things taken for one. Twins tell interleaved what each has spent, the same as the other."""
    twins = [point(float(value), 10 + value, start) for value in (1, 2) for start in (5.0, 5.001)]
    assert totals(twins, named=False) == {4.0}


def test_a_retried_delta_counts_once_in_any_order() -> None:
    assert totals([point(value, at, at - 1, delta=True) for value, at in ((0.5, 2), (0.25, 3), (1.0, 4))]) == {1.75}


def test_a_delta_that_takes_in_what_was_sent_before_counts_once() -> None:
    """A sender that had no answer sends it again with what came since."""
    assert totals([point(0.75, 2, 1, delta=True), point(1.5, 3, 1, delta=True), point(0.5, 4, 3, delta=True)]) == {2.0}


def test_deltas_with_gaps_and_overlaps_add_up() -> None:
    points = [point(1, 20, 10, delta=True), point(2, 40, 30, delta=True), point(4, 45, 35, delta=True)]
    assert totals(points) == {7}


def test_a_delta_that_comes_very_late_counts_once_and_the_past_takes_no_room() -> None:
    points = [point(0.5, at + 1, at, delta=True) for at in range(1, 2_001)]
    late = points.pop(700)
    held = series(*points)
    before = held.total
    for again in (*points[650:750], late, late, *points[:100]):
        held.apply(again, NOW)
    assert (before, held.total) == (999.5, 1_000.0)
    assert len(json.dumps(held.record())) < 4_000


def test_deltas_go_on_after_a_clock_was_set_back() -> None:
    points = [point(0.5, at + 1, at, delta=True) for at in range(1_000, 1_200)]
    points += [point(0.5, 1_100.5, 1_200, delta=True)]
    points += [point(0.5, at + 1.5, at + 0.5, delta=True) for at in range(1_100, 1_200)]
    assert series(*points).total == 150.5


def test_what_is_told_both_ways_is_told_once() -> None:
    told = [point(1.0, 10), point(3.0, 30), point(1.0, 10, 1, delta=True), point(1.5, 20, 10, delta=True)]
    assert totals(told) == {3.0}


def test_a_gauge_that_falls_has_fallen_and_a_late_one_changes_nothing() -> None:
    held = series(point(2.0, 20, metric=GAUGE), point(0.5, 40, metric=GAUGE), point(1.0, 30, metric=GAUGE))
    assert held.total == 0.5


def test_a_gauge_of_the_future_hides_none_that_come_later() -> None:
    """Kind: the sender's clock. It was an hour ahead and was set right."""
    ahead = NOW / SECOND + 3_600
    held = series(point(2.0, ahead, metric=GAUGE))
    assert not held.apply(point(1.0, ahead - 1, metric=GAUGE), NOW), "late, by the same clock"
    assert held.apply(point(0.5, NOW / SECOND - 1, metric=GAUGE), NOW)
    assert held.total == 0.5


def test_a_level_that_ended_is_taken_up_by_what_is_newer_than_the_end_alone() -> None:
    held = series(point(2.0, 20, metric=GAUGE))
    assert not held.apply(point(2.0, 21, metric=GAUGE), NOW), "it says the same"
    assert held.apply(point(None, 30, metric=GAUGE), NOW)
    assert not held.apply(point(None, 30, metric=GAUGE), NOW), "it ended already"
    assert not held.apply(point(3.0, 30, metric=GAUGE), NOW), "a retry from before the end"
    assert (held.total, held.ended) == (2.0, True)
    assert held.apply(point(2.0, 31, metric=GAUGE), NOW), "the same value is news after an end"
    assert (held.total, held.ended) == (2.0, False)


def test_a_level_gives_way_to_a_stamp_of_now_and_to_none_before_where_a_clock_was_a_little_ahead() -> None:
    now = NOW / SECOND
    held = series(point(2.0, now + 1, metric=GAUGE))
    assert not held.apply(point(1.0, now + 0.5, metric=GAUGE), NOW), "both are now: the later stamp holds"
    ahead = series(point(2.0, now + 1.5, metric=GAUGE))
    assert ahead.apply(point(1.0, now + 0.5, metric=GAUGE), NOW), "that one was of the future"


def test_an_ended_series_keeps_its_value_until_it_is_taken_up_again() -> None:
    held = series(point(2.0, 20))
    assert held.apply(point(None, 20), NOW)
    assert held.ended
    assert held.total == 2.0
    assert not held.apply(point(2.0, 20), NOW), "a retry from before the end"
    assert held.apply(point(2.0, 30), NOW)
    assert not held.ended


def test_a_value_that_comes_after_the_end_it_was_sent_before_is_taken() -> None:
    held = series(point(2.0, 20), point(None, 40))
    assert held.apply(point(3.0, 30), NOW)
    assert (held.total, held.ended) == (3.0, True)


def test_what_archives_held_before_is_read() -> None:
    held = series_before(True, 100 * SECOND, 200 * SECOND, 0.5, 1.0, False)
    assert held.total == 1.5
    held.apply(point(0.5, 90, start=50), NOW)
    assert held.total == 1.5, "that stream is in the base"
    held.apply(point(1.25, 210, start=100), NOW)
    assert held.total == 1.75
    calls = series_before(True, 100 * SECOND, 200 * SECOND, 2, Distribution(3, 1.5, (1.0,), (2, 1)), False)
    assert calls.total == 5


def exponential(scale: int, offset: int, counts: list[int], zeros: int = 0) -> Distribution:
    made = from_exponential(
        sum(counts) + zeros, 1.0, scale, zeros, 0.0, Exponential(offset, counts), Exponential(0, [])
    )
    assert made is not None
    return made


def test_an_exponential_histogram_keeps_every_bucket() -> None:
    held = exponential(0, -1, [3, 0, 2], zeros=4)
    assert held == Distribution(9, 1.0, (0.0, 0.5, 1.0, 2.0, 4.0), (4, 0, 3, 0, 2, 0))


def test_a_change_of_scale_keeps_what_both_scales_have() -> None:
    fine, coarse = exponential(1, 0, [1, 2, 4]), exponential(0, 0, [8, 16])
    whole = fine.plus(coarse)
    assert (whole.count, sum(whole.counts)) == (31, 31)
    counts = dict(zip(whole.bounds, itertools.accumulate(whole.counts), strict=False))
    assert counts == {1.0: 0, 2.0: 11, 4.0: 31}


@given(
    st.lists(
        st.tuples(st.integers(-2, 6), st.integers(-200, 200), st.lists(st.integers(0, 9), min_size=1, max_size=20)),
        min_size=1,
        max_size=6,
    )
)
def test_distributions_of_any_scales_add_up(parts: list[tuple[int, int, list[int]]]) -> None:
    made = [exponential(*part) for part in parts]
    whole = made[0]
    for each in made[1:]:
        whole = whole.plus(each)
    assert whole.count == sum(whole.counts) == sum(each.count for each in made)
    assert list(whole.bounds) == sorted(set(whole.bounds))
    assert all(count >= 0 for count in whole.counts)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300), max_size=60))
def test_a_sum_is_the_one_that_infinite_precision_rounds_to(numbers: list[float]) -> None:
    total = ExactSum()
    for number in numbers:
        total.add(number)
    assert total.value == math.fsum(numbers)
    assert ExactSum(total.parts).value == math.fsum(total.parts) == total.value


@given(st.lists(st.floats(min_value=0, max_value=1e9), min_size=1, max_size=60))
def test_what_is_taken_back_leaves_nothing(numbers: list[float]) -> None:
    total = ExactSum()
    for number in numbers:
        total.add(number)
    for number in numbers:
        total.add(-number)
    assert total.value == 0.0
