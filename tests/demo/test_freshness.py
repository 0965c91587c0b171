"""A cost has arrived with the first accumulated cost that contains it."""

from __future__ import annotations

import math

from openhands_otel._internal.demo.freshness import AddedCost, Seen, freshness

MS = 1_000_000


def test_each_cost_is_matched_with_the_first_total_that_contains_it() -> None:
    spent = [AddedCost(at=0, amount=0.1), AddedCost(at=100 * MS, amount=0.2), AddedCost(at=101 * MS, amount=0.3)]
    seen = [Seen(at=7 * MS, total=0.1), Seen(at=60 * MS, total=0.1), Seen(at=112 * MS, total=0.6)]

    measured = freshness(spent, seen)

    assert measured.delays == (0.007, 0.012, 0.011)
    assert measured.median == 0.011
    assert measured.worst == 0.012


def test_sums_in_another_order_still_match() -> None:
    spent = [AddedCost(at=0, amount=amount) for amount in (0.1, 0.2, 0.3)]

    measured = freshness(spent, [Seen(at=MS, total=0.3 + 0.2 + 0.1)])

    assert measured.delays == (0.001, 0.001, 0.001)


def test_a_cost_that_never_arrives_is_not_called_fresh() -> None:
    measured = freshness([AddedCost(at=0, amount=0.1), AddedCost(at=0, amount=0.1)], [Seen(at=MS, total=0.1)])

    assert measured.delays == (0.001, math.inf)
    assert measured.worst == math.inf


def test_without_costs_there_is_no_freshness_to_boast_of() -> None:
    assert freshness([], []).median == math.inf
