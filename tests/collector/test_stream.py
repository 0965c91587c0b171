"""The event stream: what a viewer is told, how it takes up again, and that a slow one costs nobody anything."""

from __future__ import annotations

import json
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from viewer_process import Viewer, running_viewer, wait_for

from openhands_otel._internal.collector.state.stream import Broker
from openhands_otel.stats import RemovedUpdate
from otlp_sender import Sender


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        yield viewer


@pytest.fixture
def fresh_viewer() -> Iterator[Viewer]:
    """A viewer that has seen nothing yet."""
    with running_viewer() as viewer:
        yield viewer


@contextmanager
def events(viewer: Viewer, last_event_id: str | None = None) -> Iterator[Iterator[tuple[str, dict[str, Any]]]]:
    """(id, data) of each event, as it comes."""
    headers = {} if last_event_id is None else {"last-event-id": last_event_id.encode("latin-1")}

    def read(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
        event_id = ""
        for line in response.iter_lines():
            if line.startswith("id: "):
                event_id = line.removeprefix("id: ")
            elif line.startswith("data: "):
                yield event_id, json.loads(line.removeprefix("data: "))

    with (
        httpx.Client(trust_env=False, timeout=100) as client,
        client.stream("GET", f"{viewer.url}/api/v1/events", headers=headers) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        yield read(response)


def following(stream: Iterator[tuple[str, dict[str, Any]]], kind: str = "conversation") -> dict[str, Any]:
    """The next event of a kind; totals may come at any time."""
    return next(data for _, data in stream if data["type"] == kind)


def test_a_viewer_gets_everything_first_and_then_each_change(fresh_viewer: Viewer) -> None:
    sender = Sender("p")
    fresh_viewer.send(sender.spend(0.5).converse("c", 0.5))
    with events(fresh_viewer) as stream:
        _, first = next(stream)
        assert first["type"] == "snapshot"
        assert first["state"]["totals"]["accumulated_cost"] == 0.5
        before = time.time_ns()
        fresh_viewer.send(sender.spend(0.75).converse("c", 0.75))
        update = following(stream)
        assert update["conversation"]["accumulated_cost"] == 0.75
        assert before < update["received_unix_nano"] < time.time_ns()
        assert following(stream, "totals")["totals"]["accumulated_cost"] == 0.75


def test_a_childs_change_is_told_of_all_above_it(viewer: Viewer) -> None:
    sender = Sender("p").introduce("top").introduce("low", parent="top").converse("low", 0.1)
    viewer.send(sender)
    with events(viewer) as stream:
        next(stream)
        viewer.send(sender.converse("low", 0.4))
        told = {
            data["conversation"]["conversation_id"]: data["conversation"] for _, data in (next(stream), next(stream))
        }
        assert (told["low"]["accumulated_cost"], told["top"]["tree_cost"]) == (0.4, 0.4)


def test_a_heartbeat_that_changes_nothing_tells_no_conversation(viewer: Viewer) -> None:
    sender = Sender("p")
    viewer.send(sender.converse("steady", 0.5).spend(0.5))
    with events(viewer) as stream:
        next(stream)
        viewer.send(sender.converse("steady", 0.5).spend(0.5))
        viewer.send(sender.converse("steady", 0.6))
        assert following(stream)["conversation"]["accumulated_cost"] == 0.6


def test_a_returning_viewer_gets_what_it_missed_and_no_more(viewer: Viewer) -> None:
    sender = Sender("p")
    viewer.send(sender.converse("seen", 0.1).converse("missed", 0.1))
    with events(viewer) as stream:
        last_id, _ = next(stream)
    viewer.send(sender.converse("missed", 0.2))
    viewer.send(sender.converse("missed", 0.3))
    with events(viewer, last_id) as stream:
        _, update = next(stream)
        assert (update["conversation"]["conversation_id"], update["conversation"]["accumulated_cost"]) == (
            "missed",
            0.3,
        )
        assert next(stream)[1]["type"] == "totals"


@pytest.mark.parametrize("last_id", ["other-3", "nonsense", "", "-", "x-\xb2", "0-99999999999999999999999"])
def test_a_viewer_that_comes_from_elsewhere_gets_everything(viewer: Viewer, last_id: str) -> None:
    viewer.send(Sender("p").converse("c", 0.1))
    with events(viewer, last_id) as stream:
        assert next(stream)[1]["type"] == "snapshot"


def test_slow_viewers_slow_nobody_and_grow_nothing(fresh_viewer: Viewer) -> None:
    sender = Sender("p")
    names = [f"c{number}" for number in range(50)]
    for name in names:
        sender.introduce(name)
    fresh_viewer.send(sender)
    arrived: dict[float, float] = {}
    connected = threading.Event()

    def follow() -> None:
        with events(fresh_viewer) as stream:
            for _, data in stream:
                connected.set()
                if data["type"] == "totals":
                    arrived[data["totals"]["accumulated_cost"]] = time.monotonic()
                    if data["totals"]["accumulated_cost"] >= 2_500:
                        return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    assert connected.wait(100)
    sent: dict[float, float] = {}

    def spend(steps: range) -> None:
        for step in steps:
            sent[float(step)] = time.monotonic()
            fresh_viewer.send(sender.spend(float(step)).converse(names[step % 50], float(step)))

    def delays(steps: range) -> list[float]:
        return [arrived[cost] - sent[cost] for cost in map(float, steps) if cost in arrived]

    alone, beside_slow_ones = range(1, 501), range(501, 2_501)
    spend(alone)
    host, port = fresh_viewer.url.removeprefix("http://").split(":")
    slow: list[socket.socket] = []
    for _ in range(3):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        connection.sendall(f"GET /api/v1/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        slow.append(connection)
    wait_for(lambda: fresh_viewer.state().receiver.viewers == 4, "four viewers")
    memory = fresh_viewer.memory_mb()
    spend(beside_slow_ones)
    thread.join(100)
    assert not thread.is_alive()
    assert len(delays(beside_slow_ones)) > 1_000
    # In the same minute, so that a busy machine slows both.
    assert statistics.median(delays(beside_slow_ones)) < 0.1 + statistics.median(delays(alone))
    assert fresh_viewer.memory_mb() - memory < 20
    assert wait_for(lambda: fresh_viewer.state().receiver.viewers == 3, "the end of the one that followed")
    for connection in slow:
        connection.close()


def test_of_one_subject_only_the_newest_waits() -> None:
    broker = Broker()
    subscription = broker.subscribe()
    assert subscription is not None
    for position in range(10_000):
        broker.publish(f"conversation {position % 7}", RemovedUpdate(conversation_id=str(position)), position)
    assert subscription.depth == 7


def test_more_viewers_than_the_limit_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker()
    monkeypatch.setattr("openhands_otel._internal.collector.state.stream.VIEWER_LIMIT", 2)
    assert broker.subscribe() is not None
    assert not broker.full
    assert broker.subscribe() is not None
    assert broker.full
    assert broker.subscribe() is None


def test_a_viewer_that_leaves_is_forgotten(fresh_viewer: Viewer) -> None:
    with events(fresh_viewer) as stream:
        next(stream)
        assert fresh_viewer.state().receiver.viewers == 1
    wait_for(lambda: fresh_viewer.state().receiver.viewers == 0, "forgetting the fresh_viewer")
