"""Which run money belongs to, how each ended, and what becomes of a run whose process dies."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from openhands_otel import semconv
from openhands_otel._internal.spend.rows import Dimension
from otlp_sender import Sender

from .held import HeldStore

SECOND = 1_000_000_000
BEGUN = time.time_ns() // SECOND * SECOND - 600 * SECOND


def at(seconds: float) -> int:
    return BEGUN + int(seconds * SECOND)


def say(
    sender: Sender,
    cost: float,
    status: str,
    seconds: float,
    outcome: str | None = None,
    error: str | None = None,
    titles: float = 0.0,
) -> Sender:
    """What a process tells of conversation c: its cost, its status, and how its last run ended if that stands."""
    told = sender.spend(cost + titles, at=at(seconds)).converse("c", cost, at=at(seconds))
    told.converse("c", titles, role="title", at=at(seconds)).state("c", status, at=at(seconds))
    if outcome is not None:
        how = {semconv.CONVERSATION_ID: "c", semconv.RUN_OUTCOME: outcome}
        told.add(semconv.CONVERSATION_OUTCOME, 1, how | ({semconv.ERROR_TYPE: error} if error else {}), at=at(seconds))
    return told


def costs(held: HeldStore) -> dict[str, float]:
    return {key: amount.cost.value for (key,), amount in held.spent(Dimension.RUN).items()}


def runs(database: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute("SELECT number, begun, ended, outcome, error FROM runs ORDER BY number").fetchall()
    return [(number, _since(begun), _since(ended), *how) for number, begun, ended, *how in found]


def _since(unix_s: float | None) -> float | None:
    return None if unix_s is None else round(unix_s - BEGUN / SECOND, 3)


def test_each_run_has_what_was_spent_in_it_and_what_came_between_has_none(tmp_path: Path) -> None:
    sender = Sender("p", start=at(0))
    with HeldStore(tmp_path / "history") as held:
        held.take(say(sender, 0.0, "running", 1))
        held.take(say(sender, 1.0, "running", 2))
        held.take(say(sender, 1.5, "finished", 3, "finished"))
        held.take(say(sender, 1.5, "finished", 4, "finished", titles=0.25))
        held.take(say(sender, 1.5, "running", 5, titles=0.25))
        held.take(say(sender, 3.75, "error", 6, "error", "AuthenticationError", titles=0.25))
        assert costs(held) == {"c#1": 1.5, "": 0.25, "c#2": 2.25}
    assert runs(tmp_path / "history") == [
        (1, 1, 3, "finished", None),
        (2, 5, 6, "error", "AuthenticationError"),
    ]


def test_a_run_that_is_over_when_it_is_heard_of_is_one_all_the_same(tmp_path: Path) -> None:
    with HeldStore(tmp_path / "history") as held:
        held.take(say(Sender("p", start=at(0)), 1.5, "finished", 3, "stuck"))
        assert costs(held) == {"c#1": 1.5}
    assert runs(tmp_path / "history") == [(1, 0, 3, "stuck", None)]


def test_a_second_run_that_is_over_when_it_is_heard_of_is_told_by_its_calls(tmp_path: Path) -> None:
    sender = Sender("p", start=at(0))
    with HeldStore(tmp_path / "history") as held:
        held.take(say(sender, 1.0, "running", 1))
        held.take(say(sender, 1.0, "finished", 2, "finished"))
        held.take(say(sender, 3.0, "finished", 5, "finished"))
        held.take(say(sender, 3.0, "finished", 6, "finished"))
        assert costs(held) == {"c#1": 1.0, "c#2": 2.0}
    assert runs(tmp_path / "history") == [(1, 1, 2, "finished", None), (2, 2, 5, "finished", None)]


def test_a_run_goes_on_after_the_viewers_restart(tmp_path: Path) -> None:
    sender = Sender("p", start=at(0))
    with HeldStore(tmp_path / "history") as held:
        held.take(say(sender, 1.0, "running", 1))
    with HeldStore(tmp_path / "history") as held:
        held.take(say(sender, 2.0, "running", 2))
        held.take(say(sender, 2.5, "finished", 3, "finished"))
        assert costs(held) == {"c#1": 2.5}
    assert runs(tmp_path / "history") == [(1, 1, 3, "finished", None)]


def test_a_conversation_that_another_process_takes_up_is_in_another_run(tmp_path: Path) -> None:
    with HeldStore(tmp_path / "history") as held:
        held.take(say(Sender("killed", start=at(0)), 1.0, "running", 1))
        held.take(say(Sender("next", start=at(5)), 0.5, "running", 6))
        held.take(say(Sender("next", start=at(5)), 0.75, "finished", 7, "finished"))
        assert costs(held) == {"c#1": 1.0, "c#2": 0.75}
    assert runs(tmp_path / "history") == [(1, 1, 5, None, None), (2, 6, 7, "finished", None)]


def test_a_repeated_request_begins_no_run(tmp_path: Path) -> None:
    sender = Sender("p", start=at(0))
    bodies = [
        say(sender, 1.0, "running", 1).body(),
        say(sender, 1.0, "finished", 2, "finished").body(),
    ]
    with HeldStore(tmp_path / "history") as held:
        for body in (*bodies, *bodies, bodies[0]):
            held.take_body(body)
        assert costs(held) == {"c#1": 1.0}
    assert len(runs(tmp_path / "history")) == 1
