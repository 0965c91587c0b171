"""Spend added up by blocks answers any question as its rows do, whatever was done to them and whatever is added up."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openhands_otel._internal.collector.archive import blocks, reading, schema, spend
from openhands_otel._internal.collector.archive.schema import BLOCK_S
from openhands_otel._internal.collector.archive.spend import ArchiveQuestion, ask
from openhands_otel._internal.collector.state.placing import UNDATED, Cube, Place
from openhands_otel._internal.spend.amounts import Amount
from openhands_otel._internal.spend.handover import Handover, ReadConversation, ReadRow
from openhands_otel._internal.spend.periods import periods
from openhands_otel._internal.spend.rows import QUARTER_S, Dimension, Unit

BEGIN = 1_774_656_000
"""Two days in which Europe turns its clocks."""
QUARTERS = 2 * 96
ALWAYS = float(BEGIN + 10 * 86_400)
ZONES = ["UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns"]

quarters = st.integers(0, QUARTERS - 1).map(lambda number: BEGIN + number * QUARTER_S)
places = st.tuples(
    st.sampled_from([Cube.FLEET, Cube.CONVERSATIONS]),
    st.sampled_from(["", "a", "b"]),
    st.sampled_from(["m", "n"]),
    st.sampled_from(["{}", '{"team":"x"}']),
).map(lambda told: Place(told[0], told[1], model=told[2], own_labels=told[3]))
costs = st.floats(0.0, 1e6, allow_subnormal=False)
Step = Callable[[sqlite3.Connection], object]


def amount(cost: float) -> Amount:
    spent = Amount(prompt_tokens=int(cost), calls=1)
    spent.cost.add(cost)
    spent.seconds.add(cost / 3)
    return spent


def booked(quarter: int, place: Place, cost: float) -> Step:
    return lambda connection: spend.book(connection, [(quarter, place, amount(cost))])


def replaced(quarter: int, place: Place, cost: float) -> Step:
    def step(connection: sqlite3.Connection) -> None:
        spend.book(connection, [(quarter, place, amount(1.0))])
        spend.replace(connection, quarter, place, amount(cost) if cost else Amount())

    return step


def imported(quarter: int, conversation: str, cost: float) -> Step:
    row = ReadRow(begin=quarter, cost=cost, calls=1)
    read = ReadConversation(conversation_id=conversation, until=quarter + QUARTER_S, rows=[row])
    return lambda connection: reading.take(connection, Handover(conversations=[read]))


def told_late(conversation: str, quarter: int) -> Step:
    return lambda connection: reading.give_way(connection, [(conversation, "p", float(quarter), quarter + 7_200.0)])


def undated(quarter: int) -> Step:
    return lambda connection: spend.forget_dates(connection, quarter)


def added_up(quarter: int) -> Step:
    return lambda connection: blocks.add_up(connection, float(quarter))


steps = st.one_of(
    st.builds(booked, quarters, places, costs),
    st.builds(replaced, quarters, places, costs),
    st.builds(imported, quarters, st.sampled_from(["a", "b"]), costs),
    st.builds(told_late, st.sampled_from(["a", "b"]), quarters),
    st.builds(undated, quarters),
    st.builds(added_up, quarters),
)


def answers(connection: sqlite3.Connection, zone: str, unit: Unit) -> dict[object, tuple[object, ...]]:
    every = [period.begin for period in periods(unit, BEGIN - 86_400.0, BEGIN + 4 * 86_400.0, ZoneInfo(zone))]
    question = ArchiveQuestion((Dimension.MODEL, Dimension.CONVERSATION, "team"), every, undated=True)
    found: dict[object, tuple[object, ...]] = {}
    for row in ask(connection, question):
        spent = row.amount
        exact = tuple(pytest.approx(part.value, rel=1e-12, abs=1e-12) for part in (spent.cost, spent.seconds))
        found[row.begin, *sorted(row.keys.items()), spent.read_cost.value > 0] = (*exact, spent.whole)
    return found


@settings(max_examples=60)
@given(done=st.lists(steps, max_size=30), zone=st.sampled_from(ZONES), unit=st.sampled_from([Unit.HOUR, Unit.DAY]))
def test_blocks_say_what_rows_say_whatever_is_done_to_them(done: list[Step], zone: str, unit: Unit) -> None:
    connection = schema.connect(None)
    for step in done:
        step(connection)
    connection.commit()
    told = answers(connection, zone, unit)
    while blocks.add_up(connection, ALWAYS):
        pass
    assert connection.execute("SELECT count(*) FROM stale WHERE block > ?", (UNDATED,)).fetchone() == (0,)
    assert told == answers(connection, zone, unit)
    with connection:
        connection.execute("DELETE FROM blocks")
        connection.execute("DELETE FROM stale")
        connection.execute(f"INSERT INTO stale SELECT DISTINCT cube, quarter / {BLOCK_S} * {BLOCK_S} FROM spend")
    assert told == answers(connection, zone, unit)


def test_what_is_added_up_is_no_longer_read_row_by_row() -> None:
    connection = schema.connect(None)
    for number in range(96):
        booked(BEGIN + number * QUARTER_S, Place(Cube.FLEET, model="m"), 0.5)(connection)
    connection.commit()
    assert not blocks.add_up(connection, ALWAYS)
    query, values = blocks.rows_between(Cube.FLEET, BEGIN, BEGIN + 86_400)
    assert len(connection.execute(query, values).fetchall()) == 8
    booked(BEGIN, Place(Cube.FLEET, model="m"), 0.5)(connection)
    query, values = blocks.rows_between(Cube.FLEET, BEGIN, BEGIN + 86_400)
    assert len(connection.execute(query, values).fetchall()) == 7 + BLOCK_S // QUARTER_S
