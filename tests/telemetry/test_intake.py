"""The way from the agent's threads to the flusher: nothing is lost on it, and nobody sleeps through a change."""

from __future__ import annotations

import threading
import time

import pytest

from openhands_otel import semconv
from openhands_otel._internal.ledger.intake import Intake, Wake
from openhands_otel._internal.ledger.ledger import Ledger
from openhands_otel.events import RunEnded, RunStarted
from openhands_otel.semconv import RunOutcome, Status
from stopwatch import Stopwatch

from .pipes import closed, origin, response


def intake() -> Intake:
    return Intake(Ledger(100, 100))


def test_a_sleeper_is_woken_by_what_is_put() -> None:
    box = intake()
    woken: list[float] = []

    def sleep() -> None:
        box.wait(10)
        woken.append(watch.s())

    sleeper = threading.Thread(target=sleep)
    watch = Stopwatch()
    sleeper.start()
    time.sleep(0.05)
    box.put(closed("c"))
    sleeper.join(5)
    assert woken[0] < 1


def test_a_dozer_is_woken_by_a_question_and_not_by_events() -> None:
    box = intake()
    for event in response(origin("c")):
        box.put(event)
    began = time.monotonic()
    box.doze(0.2)
    assert time.monotonic() - began >= 0.19
    box.ask(Wake(stop=True))
    watch = Stopwatch()
    box.doze(10)
    assert watch.s() < 5
    taken = box.take()
    assert taken.urgent_since
    assert [wake.stop for wake in taken.wakes] == [True]


def test_what_another_thread_drained_keeps_the_flusher_awake() -> None:
    """A snapshot or the application's reader may take a change or a wake in before the flusher looks."""
    for item in (next(response(origin("c"))), Wake(stop=False)):
        box = intake()
        box.ask(item) if isinstance(item, Wake) else box.put(item)
        box.drain()
        watch = Stopwatch()
        box.wait(5)
        assert watch.s() < 1
        taken = box.take()
        assert taken.urgent_since or taken.wakes == [item]
        assert not box.take()


def test_64_threads_lose_and_double_nothing() -> None:
    box = intake()
    whose = origin("c")

    def spend() -> None:
        for _ in range(100):
            for event in response(whose):
                box.put(event)

    threads = [threading.Thread(target=spend) for _ in range(64)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        box.drain()
        time.sleep(0.001)
    box.drain()
    snapshot = box.ledger.snapshot("c")
    assert snapshot is not None
    assert snapshot.llm_calls == 6400
    assert snapshot.accumulated_cost == pytest.approx(6.4, abs=1e-12)
    assert [total for _, total in box.ledger.fleet[semconv.COST.name].items()] == [pytest.approx(6.4, abs=1e-12)]


def test_an_event_that_the_ledger_cannot_take_does_not_stop_the_others() -> None:
    box = intake()
    box.put("nonsense")  # type: ignore[arg-type]
    for event in response(origin("c"), cost=float("nan")):
        box.put(event)
    for event in response(origin("c")):
        box.put(event)
    box.drain()
    snapshot = box.ledger.snapshot("c")
    assert snapshot is not None
    assert snapshot.accumulated_cost == pytest.approx(0.001)


def ended(conversation: str) -> RunEnded:
    return RunEnded(at=1, conversation_id=conversation, status=Status.FINISHED, own=None)


def began(conversation: str) -> RunStarted:
    return RunStarted(at=2, conversation_id=conversation)


def test_a_run_that_begins_behind_anothers_end_waits_until_that_was_sent() -> None:
    """Kind: a value that is gone before anybody was told."""
    box = intake()
    for event in (began("c"), ended("c"), began("d"), began("c"), ended("d")):
        box.put(event)
    box.take()
    assert box.ledger.snapshot("c").outcome == RunOutcome.FINISHED
    assert box.ledger.snapshot("d").status == Status.RUNNING
    assert not box.take()
    box.wait(10)
    box.go_on()
    box.take()
    assert box.ledger.snapshot("c").status == Status.RUNNING
    assert box.ledger.snapshot("d").outcome == RunOutcome.FINISHED


@pytest.mark.parametrize("how", ["a snapshot", "somebody waits", "too much waits"])
def test_nothing_is_held_back_from_whoever_wants_all(how: str) -> None:
    box = intake()
    for event in (began("c"), ended("c"), began("c")):
        box.put(event)
    if how == "a snapshot":
        box.drain()
    elif how == "somebody waits":
        box.ask(Wake(stop=False))
        assert len(box.take().wakes) == 1
    else:
        for _ in range(100):
            box.put(closed("other"))
        box.take()
    assert box.ledger.snapshot("c").status == Status.RUNNING
