"""Which run money belongs to, how each ended, and what becomes of a run whose process dies."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from openhands_otel import semconv
from openhands_otel._internal.collector.archive import listings
from openhands_otel._internal.collector.archive.questions import answer_from_file
from openhands_otel._internal.spend.reading import read_question
from openhands_otel._internal.spend.rows import Dimension
from otlp_sender import Sender

from .held import HeldStore, as_layout

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


def test_a_run_has_the_tools_that_were_called_in_it(tmp_path: Path) -> None:
    """Those of all processes and runs are told as one count: a run has what it grew by, once, whatever is repeated."""
    database = tmp_path / "history"
    sender = Sender("p", start=at(0))

    def tools(count: int, seconds: float) -> Sender:
        return sender.add(semconv.CONVERSATION_TOOL_CALLS, count, {semconv.CONVERSATION_ID: "c"}, at=at(seconds))

    def told() -> list[int]:
        with closing(sqlite3.connect(database)) as connection:
            return [count for (count,) in connection.execute("SELECT tool_calls FROM runs ORDER BY number")]

    with HeldStore(database) as held:
        held.take(say(sender, 0.0, "running", 1))
        tools(2, 2)
        held.take(say(sender, 1.0, "running", 2))
        body = tools(3, 3).body()
        held.take_body(body)
        held.take_body(body)
        assert held.conversation("c").tool_calls == 3
    with HeldStore(database) as held:
        held.take_body(body)
        tools(4, 4)
        held.take(say(sender, 1.5, "finished", 4, "finished"))
        assert held.spent(Dimension.RUN)["c#1",].cost.value == 1.5
        tools(9, 6)
        held.take(say(sender, 2.0, "running", 6))
    assert told() == [4, 5]
    question = read_question({"by": ["run"]}, "UTC")
    spent = answer_from_file(database, question)
    assert {each.keys["run"]: each.tool_calls for each in spent.groups} == {"c#1": 4, "c#2": 5}
    by_model = answer_from_file(database, read_question({"by": ["run,model"]}, "UTC"))
    assert {each.tool_calls for each in by_model.groups} == {None}, "a part of a run has not all of its tools"
    with closing(sqlite3.connect(database)) as connection:
        _, listed = listings.runs(connection, {})
    assert [run.tool_calls for run in listed] == [5, 4]


def test_a_file_that_knew_no_tools_of_runs_learns_of_them(tmp_path: Path) -> None:
    database = tmp_path / "history"
    with HeldStore(database) as held:
        held.take(say(Sender("p", start=at(0)), 0.0, "running", 1))
        held.run(held.housekeeping.save())
    as_layout(database, 4)
    with HeldStore(database) as held:
        sender = Sender("p", start=at(0))
        sender.add(semconv.CONVERSATION_TOOL_CALLS, 2, {semconv.CONVERSATION_ID: "c"}, at=at(3))
        held.take(say(sender, 1.0, "running", 3))
        held.run(held.housekeeping.save())
        _, listed = held.run(held.store.archive.read(lambda connection: listings.runs(connection, {})))
        assert [(run.number, run.tool_calls) for run in listed] == [(1, 2)]
