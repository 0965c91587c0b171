"""Spend has a place in time, and every way of asking for it adds up to the totals."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from openhands_otel import semconv
from openhands_otel._internal.collector.archive.questions import answer, answer_from_file
from openhands_otel._internal.spend.reading import read_question
from openhands_otel._internal.spend.rows import Dimension, Unit
from otlp_sender import Sender

from .held import HeldStore, as_layout

SECOND = 1_000_000_000
NOON = int(time.time()) // 86_400 * 86_400 - 12 * 3600
"""Noon of yesterday (UTC), unix seconds."""


def at(hours: float) -> int:
    """So long after that noon, unix nanoseconds."""
    return int((NOON + hours * 3600) * SECOND)


def by_hour(held: HeldStore, *names: str) -> dict[float, float]:
    """Cost of each hour with something in it, by hours after that noon."""
    found: dict[float, float] = {}
    for hour in range(-6, 12):
        since = NOON + hour * 3600
        costs = [
            amount.cost.value for amount in held.spent(*names, since=since, until=since + 3600, undated=False).values()
        ]
        if any(costs):
            found[hour] = pytest.approx(sum(costs), abs=1e-12)
    return found


def sender(name: str = "p", **resource: str) -> Sender:
    return Sender(name, start=at(-1), resource=resource)


def test_what_was_spent_between_two_points_belongs_to_the_later_ones_quarter_hour() -> None:
    with HeldStore() as held:
        for hours, cost in ((0, 1.0), (2.2, 1.5), (2.3, 1.75)):
            held.take(sender().spend(cost, at=at(hours)).converse("c", cost, at=at(hours)))
        assert by_hour(held) == by_hour(held, Dimension.CONVERSATION) == {0: 1.0, 2: 0.75}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_a_late_point_moves_money_between_quarter_hours_and_never_totals(order: tuple[int, ...]) -> None:
    points = [(0, 1.0), (1, 3.0), (2, 3.5)]
    with HeldStore() as held:
        for index in (*order, *order):
            hours, cost = points[index]
            held.take(sender().spend(cost, at=at(hours)).converse("c", cost, at=at(hours)))
            assert sum(amount.cost.value for amount in held.spent().values()) == held.cost
        assert by_hour(held) == by_hour(held, Dimension.CONVERSATION) == {0: 1.0, 1: 2.0, 2: 0.5}


def test_a_late_point_moves_money_after_a_restart_too(tmp_path: Path) -> None:
    with HeldStore(tmp_path / "history") as held:
        held.take(sender().spend(3.0, at=at(2)))
    with HeldStore(tmp_path / "history") as held:
        held.take(sender().spend(1.0, at=at(0)))
        assert by_hour(held) == {0: 1.0, 2: 2.0}


@pytest.mark.parametrize("stamp", [at(0) + 3600 * SECOND, at(0) - 401 * 86_400 * SECOND, 0, 2**62])
def test_a_stamp_that_cannot_be_gives_way_to_the_time_of_arrival(stamp: int) -> None:
    with HeldStore() as held:
        held.take_body(sender().spend(1.0, at=stamp).body(), at=NOON)
        assert by_hour(held) == {0: 1.0}


def test_a_clock_that_is_some_minutes_ahead_and_an_old_stamp_are_believed() -> None:
    with HeldStore() as held:
        held.take_body(sender("a").spend(1.0, at=at(0.1)).body(), at=NOON)
        held.take_body(sender("b").spend(2.0, at=at(-6)).body(), at=NOON)
        assert by_hour(held) == {0: 1.0, -6: 2.0}


def test_rows_know_whose_spend_it_was_and_what_for() -> None:
    attributes = {
        semconv.CONVERSATION_ID: "c",
        semconv.REQUEST_MODEL: "gpt",
        semconv.PROVIDER_NAME: "openai",
        semconv.LLM_ROLE: "agent",
        semconv.USAGE_ID: "main",
        f"{semconv.LABEL_PREFIX}instance": "astropy-1",
    }
    team = {semconv.SERVICE_NAMESPACE: "ci", f"{semconv.LABEL_PREFIX}team": "payments"}
    with HeldStore() as held:
        told = sender("p", **team).introduce("c")
        told.add(semconv.CONVERSATION_COST, 0.5, {**attributes, semconv.COST_SOURCE: "provider"})
        told.add(semconv.CONVERSATION_TOKENS, 70, {**attributes, semconv.TOKEN_TYPE: "input"})
        told.add(semconv.CONVERSATION_CALLS, 2, attributes).add(semconv.CONVERSATION_LLM_TIME, 1.5, attributes)
        held.take(told.spend(0.5).add(semconv.CALLS, 2, {semconv.REQUEST_MODEL: "gpt"}))
        for name, value in {
            Dimension.CONVERSATION: "c",
            Dimension.USAGE_ID: "main",
            "instance": "astropy-1",
            "team": "payments",
            Dimension.NAMESPACE: "ci",
            Dimension.SERVICE: "agent",
            Dimension.MODEL: "gpt",
        }.items():
            [(key, amount)] = [each for each in held.spent(name).items() if each[1].cost.value]
            assert (key, amount.cost.value) == ((value,), 0.5), name
        amount = held.spent(Dimension.CONVERSATION, "instance", "team")["c", "astropy-1", "payments"]
        assert ("c", "Agent") in held.spent(Dimension.CONVERSATION, Dimension.AGENT)
        assert (amount.calls, amount.prompt_tokens, amount.seconds.value) == (2, 70, 1.5)


@pytest.mark.parametrize("unit", Unit)
def test_a_viewer_that_has_nothing_yet_says_so_by_any_time(unit: Unit) -> None:
    with HeldStore() as held:
        question = read_question({"by": [unit]}, "UTC")
        spent = held.run(held.store.archive.read(lambda connection: answer(connection, question)))
        assert (spent.groups, spent.total.accumulated_cost) == ((), 0.0)


@pytest.mark.parametrize("unit", Unit)
def test_what_a_clock_of_1970_has_booked_stands_beside_what_is_of_now(unit: Unit) -> None:
    with HeldStore() as held:
        held.take_body(Sender("old", start=1).spend(1.0, at=2 * 3600 * SECOND).body(), at=2 * 3600)
        held.take(sender().spend(2.0, at=at(0)))
        question = read_question({"by": [unit]}, "UTC")
        held.spent()
        spent = held.run(held.store.archive.read(lambda connection: answer(connection, question)))
        assert [group.accumulated_cost for group in spent.groups] == [1.0, 2.0]


def test_what_no_conversation_told_is_a_row() -> None:
    with HeldStore() as held:
        held.take(sender().spend(2.0).converse("c", 0.5))
        spent = held.spent(Dimension.CONVERSATION)
        assert {key: amount.cost.value for key, amount in spent.items()} == {("c",): 0.5, ("",): 1.5}


def test_spend_that_has_lost_its_date_is_still_there(tmp_path: Path) -> None:
    with HeldStore(tmp_path / "history") as held:
        for hours, cost in ((0, 1.0), (2, 1.5), (4, 1.75)):
            held.take(sender().spend(cost, at=at(hours)).converse("c", cost, at=at(hours)))
        held.spent()
        held.run(held.store.archive.purge(0.0, NOON + 3 * 3600))
        assert by_hour(held) == by_hour(held, Dimension.CONVERSATION) == {4: 0.25}
        assert held.spent(Dimension.MODEL)["gpt",].cost.value == held.cost == 1.75
        question = read_question({"by": ["day"]}, "UTC")
        spent = held.run(held.store.archive.read(lambda connection: answer(connection, question)))
        day = time.strftime("%Y-%m-%d", time.gmtime(NOON))
        assert [group.keys["day"] for group in spent.groups] == [f"before {day}", day]


def test_numbers_that_no_sum_of_sqlite_holds_lose_their_date_as_others_do(tmp_path: Path) -> None:
    with HeldStore(tmp_path / "history") as held:
        most = 2**53
        for number in range(1_100):
            when = at(-1 - number / 4)
            one = Sender(f"p{number}", start=at(-300)).spend(0.5, at=when)
            held.take(one.add(semconv.INPUT_TOKENS, most, {semconv.REQUEST_MODEL: "gpt"}, at=when))
        held.spent()
        held.run(held.store.archive.purge(0.0, NOON))
        ((_, amount),) = held.spent().items()
        assert (amount.cost.value, amount.prompt_tokens) == (550.0, 1_100 * most)


def test_a_file_of_the_layout_before_is_copied_and_converted_and_all_of_it_adds_up(tmp_path: Path) -> None:
    database = tmp_path / "history"
    with HeldStore(database) as held:
        held.take(sender("p").spend(1.0).converse("c", 0.75).add(semconv.CALLS, 3))
        held.take_body(sender("q").spend(2.0).body(), at=1_000.0)
        held.run(held.housekeeping.save())
        held.run(held.housekeeping.let_go())
        held.run(held.store.archive.purge(2_000.0))
    as_layout(database, 1)
    before = database.read_bytes()
    spent = answer_from_file(database, read_question({"by": ["conversation"]}, "UTC"))
    assert {group.keys["conversation"]: group.accumulated_cost for group in spent.groups} == {
        "c": 0.75,
        "no conversation": 2.25,
    }
    assert database.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if "layout" in path.name] == []
    for _ in range(2):
        with HeldStore(database) as held:
            assert held.cost == 3.0
            assert sum(amount.cost.value for amount in held.spent().values()) == 3.0
            assert held.spent(Dimension.CONVERSATION)["c",].cost.value == 0.75
            assert sum(amount.calls for amount in held.spent().values()) == 3
            assert by_hour(held) == {}
    with closing(sqlite3.connect(tmp_path / "history.layout-1")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM conversations").fetchone() == (1,)
    with HeldStore(database) as held:
        held.take(sender("p").spend(1.25, at=at(1)).converse("c", 1.0, at=at(1)))
        assert by_hour(held) == by_hour(held, Dimension.CONVERSATION) == {1: 0.25}


def test_a_file_without_sums_by_blocks_gets_them_and_keeps_its_dates(tmp_path: Path) -> None:
    database = tmp_path / "history"
    with HeldStore(database) as held:
        held.take(sender("p").spend(0.5, at=at(1)).converse("c", 0.5, at=at(1)))
    as_layout(database, 2)
    with HeldStore(database) as held:
        held.take(sender("p").spend(1.25, at=at(7)).converse("c", 1.25, at=at(7)))
        while held.run(held.store.archive.add_up()):
            pass
        assert by_hour(held) == by_hour(held, Dimension.CONVERSATION) == {1: 0.5, 7: 0.75}
        assert held.spent(Dimension.CONVERSATION)["c",].cost.value == 1.25


@pytest.mark.parametrize("unit", ["hour", "day", "week", "month"])
def test_what_was_spent_while_the_clock_was_ahead_is_in_every_report_that_has_no_end(unit: str) -> None:
    with HeldStore() as held:
        held.take(sender().spend(1.0, at=at(0)))
        for years, cost in ((4, 3.0), (9, 3.5)):
            ahead = NOON + years * 365 * 86_400
            held.take_body(sender(str(years)).spend(cost, at=ahead * SECOND).body(), at=ahead)
        held.spent()
        for query in ({}, {"since": [str(NOON)]}):
            question = read_question({"by": [unit], "timezone": ["UTC"], **query}, None)
            found = held.run(held.store.archive.read(lambda connection, asked=question: answer(connection, asked)))
            assert [group.accumulated_cost for group in found.groups] == [1.0, 3.0, 3.5]
            assert found.total.accumulated_cost == held.cost


@pytest.mark.parametrize("on_points", [False, True])
def test_what_no_conversation_told_has_the_labels_of_its_process(on_points: bool) -> None:
    label = f"{semconv.LABEL_PREFIX}team"
    with HeldStore() as held:
        held.take(sender("p", **{label: "payments"}).spend(2.0).converse("c", 0.5))
        held.take(sender("q", **{label: "search"}).spend(0.25).converse("c", 0.25))
        if on_points:
            told = sender("r", **{label: "payments"}).spend(0.125)
            held.take(told.add(semconv.CONVERSATION_COST, 0.125, {semconv.CONVERSATION_ID: "d", label: "search"}))
        spent = {key: amount.cost.value for key, amount in held.spent("team").items() if amount.cost.value}
        assert spent == {("payments",): 2.0, ("search",): 0.25 + (0.125 if on_points else 0.0)}
