"""A wall clock that is set while a process spends: the bill is right, and stamps go back in no instance.

Each test stands for the kind "the sender's wall clock is taken for the order of things" (issue 10, row 2).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from viewer_process import running_viewer, wait_for

import faketime
from openhands_otel import semconv
from openhands_otel._internal.clock import process_clock
from openhands_otel.semconv import Status
from otlp_receiver import NO_RECORDED_VALUE, Point, Receiver

from .pipes import call, closed, opened, origin, pipeline, put, run_ended, run_started

COST = semconv.COST.name
CONVERSATION_COST = semconv.CONVERSATION_COST.name
MINUTE_S, DAY_S = 60, 86_400


class Wall:
    """This process's wall clock, to be set."""

    off_s = 0.0

    def read(self) -> int:
        return time.time_ns() + round(self.off_s * 1e9)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Iterator[Wall]:
    wall = Wall()
    monkeypatch.setattr(process_clock, "wall", wall.read)
    yield wall
    process_clock.start_over()


def streams(receiver: Receiver, metric: str) -> list[list[Point]]:
    return list(receiver.streams(metric).values())


def in_order(receiver: Receiver) -> None:
    """Each stream starts with 0 and neither its stamps nor its values ever go back."""
    counters = {point.metric for point in receiver.points() if point.monotonic}
    for stream in (stream for metric in counters for stream in streams(receiver, metric)):
        stamps = [point.time for point in stream]
        assert stamps == sorted(set(stamps)), stream[0].metric
        values = [point.value for point in stream if not point.flags & NO_RECORDED_VALUE]
        assert [0, *values] == [values[0], *sorted(values)], stream[0].metric
        assert len({point.start for point in stream}) == 1


def increase(receiver: Receiver, metric: str) -> float:
    """What the formula of docs/metrics.md comes to: of each series its last value less its first, added up."""
    return sum(
        values[-1] - values[0]
        for stream in streams(receiver, metric)
        if (values := [point.value for point in stream if not point.flags & NO_RECORDED_VALUE])
    )


STEPS = {
    "back 30 minutes": (-30 * MINUTE_S,),
    "forward a day and back": (DAY_S, -DAY_S),
    "back 30 s": (-30,),
    "back 30 s, again and again": (-30,) * 5,
    "back and back": (-10 * MINUTE_S, -10 * MINUTE_S),
    "forward again and again": (10, 100, 1000),
}


@pytest.mark.parametrize("temporality", ["cumulative", "exponential"])
@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_the_bill_is_right_whatever_the_wall_clock_does(
    steps: tuple[int, ...], temporality: str, wall: Wall, receiver: Receiver
) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
    if temporality == "exponential":
        environ["OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"] = "base2_exponential_bucket_histogram"
    with pipeline(environ) as pipe:
        put(pipe, opened("c"), run_started("c"), *call(origin("c"), 0.25), *call(origin(), 0.125))
        assert pipe.flush(50)
        for step in steps:
            wall.off_s += step
            put(pipe, *call(origin("c"), 0.25))
            assert pipe.flush(50)
        put(pipe, run_ended("c"), closed("c"))
        assert pipe.flush(50)
        snapshot = pipe.snapshot("c")
    calls = 1 + len(steps)
    in_order(receiver)
    for metric, truth in ((COST, 0.25 * calls + 0.125), (CONVERSATION_COST, 0.25 * calls)):
        assert increase(receiver, metric) == pytest.approx(truth, abs=1e-9)
    latencies = streams(receiver, semconv.RESPONSE_LATENCY.name)
    assert sum(stream[-1].count for stream in latencies) == calls + 1
    # What this process itself says is of all of it.
    assert snapshot is not None
    assert (snapshot.accumulated_cost, snapshot.llm_calls) == (pytest.approx(0.25 * calls), calls)


def test_deltas_are_of_all_that_was_spent(wall: Wall, receiver: Receiver) -> None:
    preference = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, preference: "delta"}) as pipe:
        for _ in range(3):
            put(pipe, *call(origin("c"), 0.25))
            assert pipe.flush(50)
            wall.off_s -= 2 * MINUTE_S
    points = receiver.points(COST)
    assert sum(point.value for point in points) == pytest.approx(0.75)
    assert all(point.start < point.time for point in points)
    assert len({point.resource["service.instance.id"] for point in points}) == 3


def test_an_instance_that_is_left_is_told_of_to_its_end(wall: Wall, receiver: Receiver) -> None:
    """What could not be delivered under the id before is delivered under that id, and all its series end."""
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        put(pipe, opened("c", restored=2.0), run_started("c"), *call(origin("c"), 0.25))
        assert pipe.flush(50)
        receiver.answer = lambda: (503, b"")
        put(pipe, *call(origin("c"), 0.25))
        assert not pipe.flush(10)
        wall.off_s -= 30 * MINUTE_S
        put(pipe, *call(origin("c"), 0.25))
        assert not pipe.flush(10)
        receiver.answer = lambda: (200, b"")
        put(pipe, *call(origin("c"), 0.25))
        assert pipe.flush(50)
        (before, ended), (after, _) = (
            ([point.value for point in stream if not point.flags], stream[-1].flags)
            for stream in streams(receiver, CONVERSATION_COST)
        )
        states = receiver.streams(semconv.CONVERSATION_STATE.name)
        running = {key: points[-1].flags for key, points in states.items()}
        stamps = [[point.time for point in points] for points in states.values()]
    assert before[0] == after[0] == 0
    assert before[-1] + after[-1] == pytest.approx(1.0)
    assert before[-1] >= 0.5, "what may have arrived was told again under another id"
    assert ended == NO_RECORDED_VALUE
    assert list(running.values()) == [NO_RECORDED_VALUE, 0]
    assert all(dict(key[1:])[semconv.CONVERSATION_STATUS] == Status.RUNNING for key in running)
    # The stamps of the second are by the clock as it is now.
    assert stamps[0][-1] - stamps[1][0] > 25 * MINUTE_S * 1_000_000_000


def test_a_conversation_resumed_after_the_clock_has_fallen_counts_on(wall: Wall, receiver: Receiver) -> None:
    with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
        put(pipe, opened("c"), *call(origin("c"), 0.25), closed("c"))
        assert pipe.flush(50)
        for _ in range(2):
            wall.off_s -= 2 * MINUTE_S
            put(pipe, *call(origin("d"), 0.125))
            assert pipe.flush(50)
        put(pipe, opened("c"), *call(origin("c"), 0.25))
        assert pipe.flush(50)
    in_order(receiver)
    assert increase(receiver, CONVERSATION_COST) == pytest.approx(0.75)
    assert increase(receiver, COST) == pytest.approx(0.75)


PROGRAM = """
import os, sys, threading
import spending
from openhands_otel.events import CostAdded

wait = threading.Event().wait
instrumentor = spending.instrument()
for step in sys.stdin:
    with open(os.environ["FAKETIME_TIMESTAMP_FILE"], "w") as clock:
        clock.write(step)
    with spending.inside(spending.Scope(conversation_id="c"), None):
        spending.metrics.add_cost(0.125)
        spending.metrics.add_response_latency(0.1, "r")
    done = instrumentor.flush(50)
    print(done, flush=True)
"""
MACHINE = ("+1d", "+0d", "-30s", "-60s", "-90s", "-30m", "+1d", "-2h")
"""Starts in the future, is put right, falls by little again and again, by much, goes forward a day and back."""


def test_a_process_on_a_machine_whose_clock_is_set_eight_times(tmp_path: Path, receiver: Receiver) -> None:
    """Truth is $1.00: with Debian's faketime, the real SDK, a viewer of today and PromQL's arithmetic."""
    if faketime.LIBRARY is None:
        pytest.skip("faketime is not installed (apt-get install faketime): clocks are turned inside one process only")
    with running_viewer() as viewer:
        receiver.answer = lambda: (200, b"")
        clock = tmp_path / "clock"
        clock.write_text(MACHINE[0])
        here = Path(__file__).parent
        environ = os.environ | {
            "LD_PRELOAD": str(faketime.LIBRARY),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
            "NO_FAKE_STAT": "1",
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "PYTHONPATH": f"{here}:{here.parent}",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        }
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environ,
        )
        answers, err = process.communicate("\n".join(MACHINE), timeout=500)
        assert process.returncode == 0, err
        assert answers.split() == ["True"] * len(MACHINE), err
        for body in receiver.bodies:
            assert viewer.post(body).content == b"", "points were refused"
        in_order(receiver)
        assert increase(receiver, COST) == pytest.approx(1.0)
        state = wait_for(viewer.state, "a state")
        assert state.totals.accumulated_cost == pytest.approx(1.0)
        assert state.totals.llm_calls == len(MACHINE)
        (conversation,) = state.conversations
        assert (conversation.accumulated_cost, conversation.llm_calls) == (pytest.approx(1.0), len(MACHINE))
