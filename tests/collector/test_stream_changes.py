"""Who is told of changes knows what is known: rows as they are, with little sent and nothing encoded twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from viewer_process import Viewer, running_viewer

from openhands_otel import semconv
from openhands_otel._internal.collector.state.stream import WAITING_LIMIT, Broker
from openhands_otel.stats import RemovedUpdate
from otlp_sender import Sender

from .held import HeldStore

PARTS = ("costs", "usage_to_metrics", "calls_by_model")


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        yield viewer


class Follower:
    """Knows what the events say."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.rows: dict[str, dict[str, Any]] = {}
        self.totals: dict[str, Any] = {}
        self.kinds: list[str] = []
        self.last_id = ""

    def read(self) -> dict[str, Any]:
        """One event."""
        for line in self._lines:
            if line.startswith("id: "):
                self.last_id = line.removeprefix("id: ")
            elif line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                self._take(event)
                return event
        raise AssertionError("the stream ended")

    def until(self, cost: float) -> None:
        """Read until the totals say so."""
        while self.totals.get("accumulated_cost") != cost:
            self.read()

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        self.kinds.append(kind)
        if kind == "snapshot":
            self.rows = {row["conversation_id"]: row for row in event["state"]["conversations"]}
        elif kind == "conversation":
            self.rows[event["conversation"]["conversation_id"]] = event["conversation"]
        elif kind == "changes":
            for changes in event["conversations"]:
                self.rows[changes["conversation_id"]] |= changes
        elif kind == "removed":
            self.rows.pop(event["conversation_id"], None)
        self.totals = event["state"]["totals"] if kind == "snapshot" else event.get("totals", self.totals)


@contextmanager
def following(viewer: Viewer, last_id: str = "", **query: str) -> Iterator[Follower]:
    with (
        httpx.Client(trust_env=False, timeout=100) as client,
        client.stream(
            "GET",
            f"{viewer.url}/api/v1/events",
            params={"told": "changes"} | query,
            headers={"last-event-id": last_id} if last_id else {},
        ) as stream,
    ):
        yield Follower(stream.iter_lines())


def known(viewer: Viewer, *without: str) -> dict[str, dict[str, Any]]:
    rows = viewer.http.get("/api/v1/state").json()["conversations"]
    return {row["conversation_id"]: {k: v for k, v in row.items() if k not in without} for row in rows}


def bare(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {k: v for k, v in row.items() if k not in PARTS} for name, row in rows.items()}


def test_rows_are_what_they_are_whatever_changes(viewer: Viewer) -> None:
    sender = Sender("p")
    viewer.send(sender.spend(0.0).introduce("c").converse("c", 0.0).introduce("d").converse("d", 0.0))
    with following(viewer) as told:
        assert told.read()["type"] == "snapshot"
        for step in range(1, 6):
            sender.spend(float(step)).converse("c", step / 2).converse("d", step / 2)
            sender.state("c", semconv.Status.RUNNING if step % 2 else semconv.Status.PAUSED)
            if step == 3:
                sender.introduce("child", parent="c").converse("child", 0.0)
            viewer.send(sender)
            told.until(float(step))
            assert bare(told.rows) == known(viewer, *PARTS)
        assert "changes" in told.kinds
        # A part that is new is told, with all the others.
        viewer.send(sender.spend(6.0).converse("c", 0.5, model="another"))
        told.until(6.0)
        assert told.rows["c"]["costs"] == known(viewer)["c"]["costs"]
        at = told.last_id
    viewer.send(sender.spend(7.0).converse("d", 3.0))
    with following(viewer, at) as again:
        again.rows = told.rows
        again.until(7.0)
        assert "snapshot" not in again.kinds
        assert bare(again.rows) == known(viewer, *PARTS)


def test_of_the_conversation_that_is_looked_at_the_whole_is_told(viewer: Viewer) -> None:
    sender = Sender("q")
    viewer.send(sender.introduce("open").converse("open", 1.0))
    with following(viewer) as before:
        before.read()
    for last_id in ("", before.last_id):
        with following(viewer, last_id, whole="open") as told:
            while "open" not in told.rows:
                told.read()
            cost = told.rows["open"]["accumulated_cost"] + 1
            viewer.send(sender.converse("open", cost))
            while told.rows["open"]["accumulated_cost"] != cost or told.kinds[-1] != "totals":
                told.read()
            assert told.rows["open"] == known(viewer)["open"]
            assert told.rows["open"]["costs"][0]["accumulated_cost"] == cost


def test_many_changes_are_one_event(viewer: Viewer) -> None:
    many = Sender("crowd")
    for number in range(200):
        many.introduce(f"many-{number}").converse(f"many-{number}", 0.0)
    viewer.send(many)
    with following(viewer) as told:
        told.read()
        for cost in (1.0, 2.0):
            for number in range(200):
                many.converse(f"many-{number}", cost)
            viewer.send(many)
            while any(told.rows[f"many-{number}"]["accumulated_cost"] != cost for number in range(200)):
                told.read()
        assert told.kinds.count("changes") <= 2


def test_who_comes_between_two_tellings_misses_no_change() -> None:
    """Kind: a row changes and changes back within a quarter of a second, and somebody was told what was in between."""
    with HeldStore() as held:
        first = held.store.broker.subscribe(by_changes=True)
        assert first is not None
        sender = Sender("p").spend(1.0).introduce("c").converse("c", 1.0).state("c", semconv.Status.RUNNING)
        held.take(sender)
        held.run(first.next())
        frame = held.store.broker.frame(RemovedUpdate(conversation_id=""), held.store.broker.position)
        last_id = frame.decode().partition("\n")[0].removeprefix("id: ")

        held.take(sender.state("c", semconv.Status.PAUSED))
        late = [Heard(held, by_changes, since) for by_changes in (True, False) for since in (None, last_id)]
        held.take(sender.state("c", semconv.Status.RUNNING))
        known = held.conversation("c").status
        assert known == "running"
        for each in late:
            assert each.status == "paused"
            while each.status != known:
                each.listen()


class Heard:
    """What one viewer that subscribes now is told of the only conversation."""

    def __init__(self, held: HeldStore, by_changes: bool, since: str | None) -> None:
        self._held = held
        subscription = held.store.broker.subscribe(by_changes=by_changes)
        assert subscription is not None
        self._subscription = subscription
        self.status = ""
        self._take(held.run(greeting(held, since)))

    def listen(self) -> None:
        for frame in self._held.run(self._subscription.next()):
            self._take(frame)

    def _take(self, frames: bytes) -> None:
        for line in frames.decode().splitlines():
            event = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {"type": ""}
            if event["type"] == "snapshot":
                self.status = event["state"]["conversations"][0]["status"]
            elif event["type"] == "conversation":
                self.status = event["conversation"]["status"]
            elif event["type"] == "changes":
                self.status = event["conversations"][0].get("status", self.status)


async def greeting(held: HeldStore, since: str | None) -> bytes:
    return held.store.greeting(since)


def test_a_telling_that_fails_is_told_of_and_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with HeldStore() as held:
        viewer = held.store.broker.subscribe(by_changes=True)
        assert viewer is not None
        sender = Sender("p").spend(1.0).introduce("c").converse("c", 1.0).state("c", semconv.Status.RUNNING)
        held.take(sender)
        held.run(viewer.next())
        with monkeypatch.context() as broken:
            broken.setattr(Broker, "frame", lambda *_: 1 / 0)
            held.take(sender.state("c", semconv.Status.PAUSED))
            held.run(viewer.next())
            assert any("live updates" in problem for problem in held.store.health.problems)
        held.take(sender.spend(2.0))
        told = b""
        while b'"paused"' not in told:
            told = b"".join(held.run(viewer.next()))
        assert not any("live updates" in problem for problem in held.store.health.problems)


def test_whoever_is_told_of_changes_and_takes_none_is_let_go() -> None:
    """No change may be left out for another: it takes up again where it was, and is told the whole."""
    broker = Broker()
    slow, patient = broker.subscribe(by_changes=True), broker.subscribe()
    assert slow is not None
    assert patient is not None
    for position in range(2 * WAITING_LIMIT):
        for by_changes in (False, True):
            update = RemovedUpdate(conversation_id=str(position))
            broker.publish(f"changes {position}", update, position, by_changes=by_changes)
    assert slow.closed
    assert slow.depth <= WAITING_LIMIT
    assert not patient.closed


@pytest.mark.parametrize("query", ["told=nothing", "told=rows&told=rows", "view=screen"])
def test_what_is_no_way_of_telling_is_refused(viewer: Viewer, query: str) -> None:
    assert viewer.http.get(f"/api/v1/events?{query}").status_code == 400
