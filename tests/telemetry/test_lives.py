"""A death is seen soon, and nothing else is taken for one (kind: what is shown of a process is what is known of it).

Real processes with the real SDK in them, and a real viewer. They run side by side: what takes time is waiting.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from viewer_process import Viewer, running_viewer, start_viewer, wait_for

from forked import Child
from openhands_otel.client import StatsClient, StatsError
from openhands_otel.stats import ConversationStats
from stopwatch import Stopwatch

from .conftest import Start

AGENT = """
import os, sys, threading, time
import spending
from openhands_otel import events
from openhands_otel._internal.process.subscriptions import bus
spending.instrument()
name = os.environ["NAME"]
now = time.time_ns
bus.publish(events.ConversationOpened(now(), name, None, "Agent", "1.58.0", 0.0, None))
bus.publish(events.RunStarted(now(), name))
spending.spend(1, name)
{rest}
"""
WAIT = """
spending.mark("up")
time.sleep(300)
"""
FORK = """
time.sleep(0.5)  # A child of the middle of a run, which has its parent's connections.
if os.fork() == 0:
    time.sleep(300)
    os._exit(0)
spending.mark("up")
time.sleep(300)
"""
END = """
spending.mark("up")
"""
WITHIN_S = 10.0
GENEROUS_S = 60.0


@pytest.fixture
def agents(start: Start) -> Iterator[Callable[..., Child]]:
    """Start one for a conversation: ``agents("name", viewer, rest=WAIT)``; what is left of them is killed."""
    started: list[Child] = []

    def begin(name: str, viewer: Viewer, rest: str = WAIT, **environ: str) -> Child:
        http = f"{viewer.url}/v1/metrics"
        endpoint = f"http://{viewer.grpc}" if environ.get("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL") == "grpc" else http
        # In a group of its own, so that a child that outlives it is found.
        started.append(start(AGENT.format(rest=f"os.setpgid(0, 0)\n{rest}"), endpoint, NAME=name, **environ))
        return started[-1]

    yield begin
    for child in started:
        for send in (os.kill, os.killpg):
            with suppress(OSError):
                send(child.pid, signal.SIGKILL)


def conversation(viewer: Viewer, name: str) -> ConversationStats | None:
    answer = viewer.http.get(f"/api/v1/conversations/{name}")
    return ConversationStats.model_validate_json(answer.content) if answer.status_code == 200 else None


def runs(viewer: Viewer, name: str) -> bool:
    stats = conversation(viewer, name)
    return stats is not None and stats.status == "running" and not (stats.stale or stats.gone or stats.ended)


def is_gone(viewer: Viewer, name: str) -> bool:
    stats = conversation(viewer, name)
    return stats is not None and stats.gone and stats.stale


def beats(viewer: Viewer, count: int) -> bool:
    return viewer.http.get("/metrics").text.count("openhands_otel_beat_interval_seconds{") >= count


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        yield viewer


def test_who_is_killed_is_gone_and_who_lives_is_not(viewer: Viewer, agents: Callable[..., Child]) -> None:
    """After kill -9 "running" stood for two and a half minutes. Also with a child that outlives it, and over gRPC; and
    not: one that is stopped, one that ended, one whose heartbeat is slow."""
    grpc = {"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"}
    killed = {
        "killed": agents("killed", viewer),
        "forked": agents("forked", viewer, FORK),
        "by-grpc": agents("by-grpc", viewer, **grpc),
    }
    stopped = agents("stopped", viewer)
    slow = agents("slow", viewer, OPENHANDS_OTEL_HEARTBEAT_S="600")
    for child in (*killed.values(), stopped, slow):
        child.wait_for("up", GENEROUS_S)
    names = (*killed, "stopped", "slow")
    wait_for(lambda: all(runs(viewer, name) for name in names), "all running", GENEROUS_S)
    wait_for(lambda: beats(viewer, len(names)), "all beating", GENEROUS_S)
    stopped.kill(signal.SIGSTOP)
    for child in killed.values():
        child.kill(signal.SIGKILL)
    watch = Stopwatch(os.getpid(), viewer.process.pid)
    wait_for(lambda: all(is_gone(viewer, name) for name in killed), "three deaths", GENEROUS_S)
    took = watch.s()
    totals = viewer.state().totals
    assert totals.conversations_running <= 2
    assert took < WITHIN_S, f"{took:.1f} s"
    wait_for(lambda: (one := conversation(viewer, "stopped")) and one.stale, "the silence of the stopped", GENEROUS_S)
    still = conversation(viewer, "stopped")
    assert still is not None
    assert not still.gone
    assert still.activity is None
    stopped.kill(signal.SIGCONT)
    wait_for(lambda: runs(viewer, "stopped"), "its return", GENEROUS_S)
    ended = agents("ended", viewer, END)
    ended.wait(GENEROUS_S)
    wait_for(lambda: (one := conversation(viewer, "ended")) and one.ended, "a farewell", GENEROUS_S)
    finished = conversation(viewer, "ended")
    assert finished is not None
    assert not finished.stale
    assert runs(viewer, "slow"), "it had promised to be heard every ten minutes, and every three seconds to a viewer"


def test_after_a_restart_of_the_viewer_who_lives_is_not_silent(tmp_path: Path, agents: Callable[..., Child]) -> None:
    """Every open conversation was silent until its next heartbeat, a minute later; and the dead stay dead."""
    database = tmp_path / "history.sqlite3"
    with running_viewer(database=database) as first:
        port = int(first.url.rpartition(":")[2])
        living, dead = agents("living", first), agents("dead", first)
        for child in (living, dead):
            child.wait_for("up", GENEROUS_S)
        wait_for(lambda: runs(first, "living") and runs(first, "dead"), "both running", GENEROUS_S)
        dead.kill(signal.SIGKILL)
        wait_for(lambda: is_gone(first, "dead"), "a death", GENEROUS_S)
        first.stop()
    second = start_viewer(database=database, port=port)
    try:
        seen: set[bool] = set()
        began = time.monotonic()
        while time.monotonic() - began < 3 or not beats(second, 1):
            seen.add(runs(second, "living"))
            assert is_gone(second, "dead")
            time.sleep(0.1)
            assert time.monotonic() - began < GENEROUS_S
        assert seen == {True}
    finally:
        second.stop()


def test_a_stopped_viewer_is_noticed_by_who_watches(viewer: Viewer, agents: Callable[..., Child]) -> None:
    """Within five seconds; and when it goes on, nobody is taken for dead because it was not there to hear."""
    child = agents("watched", viewer)
    child.wait_for("up", GENEROUS_S)
    wait_for(lambda: runs(viewer, "watched"), "running", GENEROUS_S)
    told: list[tuple[float, StatsError | None]] = []
    watch = Stopwatch()
    first = threading.Event()

    def follow() -> None:
        with StatsClient(viewer.url) as client:
            for _ in client.stream(on_connection=lambda problem: told.append((watch.s(), problem))):
                first.set()

    threading.Thread(target=follow, daemon=True).start()
    assert first.wait(GENEROUS_S)
    viewer.process.send_signal(signal.SIGSTOP)
    stopped_at, at = time.monotonic(), watch.s()
    try:
        wait_for(lambda: told, "noticing", GENEROUS_S)
        noticed_at, problem = told[0]
        assert problem is not None
        assert noticed_at - at < 5
        while time.monotonic() - stopped_at < 8:
            time.sleep(0.1)
    finally:
        viewer.process.send_signal(signal.SIGCONT)
    wait_for(lambda: told[-1][1] is None, "being connected again", GENEROUS_S)
    states = [runs(viewer, "watched") for _ in range(20)]
    assert all(states), json.dumps(states)
