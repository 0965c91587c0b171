"""When a flush is due, in seconds of an imagined clock."""

from __future__ import annotations

from openhands_otel._internal.process.schedule import (
    DISTRIBUTIONS_WINDOW_S,
    LAZY_WINDOW_S,
    LONGEST_HOLD_S,
    LONGEST_PAUSE_S,
    Schedule,
)


def schedule(cpu_share: float = 0.03) -> Schedule:
    return Schedule(window_s=0.005, cpu_share=cpu_share, heartbeat_s=60, now=0)


def test_nothing_is_due_before_the_heartbeat_while_nothing_happens() -> None:
    quiet = schedule()
    assert quiet.wait_s(0) == 60
    assert not quiet.is_heartbeat(59.9)
    assert quiet.is_heartbeat(60)


def test_a_change_waits_for_its_window_and_later_ones_do_not_prolong_it() -> None:
    changed = schedule()
    changed.want(1.0, urgent=True)
    changed.want(1.004, urgent=True)
    assert abs(changed.wait_s(1.0) - 0.005) < 1e-9


def test_what_may_wait_waits_longer_until_something_urgent_comes() -> None:
    changed = schedule()
    changed.want(1.0, urgent=False)
    assert abs(changed.wait_s(1.0) - LAZY_WINDOW_S) < 1e-9
    changed.want(1.01, urgent=True)
    assert abs(changed.wait_s(1.01) - 0.005) < 1e-9


def test_failures_pause_longer_each_time_up_to_a_limit_and_a_delivery_ends_that() -> None:
    failing = schedule()
    pauses = []
    for _ in range(6):
        failing.failed(10.0, None)
        pauses.append(failing.wait_s(10.0))
    assert pauses == [0.5, 1, 2, 4, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert failing.pending
    failing.flushed(10.0, 0.0, everything=False)
    failing.failed(10.0, None)
    assert failing.wait_s(10.0) == 0.5


def test_a_receiver_may_ask_for_a_longer_pause() -> None:
    failing = schedule()
    failing.failed(10.0, retry_after_s=30)
    assert failing.wait_s(10.0) == 30


def test_a_new_change_does_not_shorten_the_pause_after_a_failure() -> None:
    failing = schedule()
    failing.failed(10.0, None)
    failing.want(10.1, urgent=True)
    assert abs(failing.wait_s(10.1) - 0.4) < 1e-9


def test_ceaseless_changes_cost_the_share_of_a_core_that_they_may() -> None:
    busy = schedule(cpu_share=0.03)
    now, cpu_s = 0.0, 0.0
    while now < 60:
        busy.want(now, urgent=True)
        now += max(0.0, busy.wait_s(now))
        busy.flushed(now, 0.002, everything=False)
        cpu_s += 0.002
    assert 0.02 < cpu_s / 60 < 0.035


def test_a_costly_flush_holds_nothing_back_for_longer_than_a_killed_process_may_lose() -> None:
    busy = schedule(cpu_share=0.03)
    busy.want(10.0, urgent=True)
    busy.flushed(10.0, cpu_s=20.0, everything=True)
    busy.want(10.0, urgent=True)
    assert busy.wait_s(10.0) <= LONGEST_HOLD_S + 1e-9


def test_a_delivered_heartbeat_comes_again_after_a_minute_and_other_flushes_do_not_delay_it() -> None:
    beating = schedule()
    beating.flushed(60, 0.0, everything=True)
    beating.flushed(100, 0.0, everything=False)
    assert beating.wait_s(100) == 20


def test_distributions_wait_a_second_for_company_and_no_longer() -> None:
    recorded = schedule()
    recorded.want_distributions(1.0)
    recorded.want_distributions(1.5)
    assert recorded.wait_s(1.0) == DISTRIBUTIONS_WINDOW_S
    assert not recorded.pending, "it goes on sleeping, and any change wakes it"
    assert not recorded.has_distributions(1.9)
    recorded.flushed(1.9, 0.0, everything=False, complete=False)
    assert recorded.has_distributions(2.0)
    recorded.flushed(2.0, 0.0, everything=False)
    assert not recorded.has_distributions(1000.0)
    recorded.want_distributions(3.0)
    assert not recorded.has_distributions(3.9)
    assert recorded.has_distributions(4.0)


def test_distributions_that_were_not_delivered_are_tried_again_with_the_rest() -> None:
    recorded = schedule()
    recorded.want_distributions(0.0)
    recorded.flushed(0.5, 0.0, everything=False)
    recorded.failed(1.0, None)
    assert recorded.wait_s(1.0) == 0.5
    assert recorded.has_distributions(1.5)
    recorded.failed(1.5, None, complete=False)
    assert recorded.has_distributions(1.5)
