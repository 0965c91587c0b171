"""Spend by quarter-hour and place, in the database: how it is written, made coarser with age, and asked for.

A year of a hundred agents is a million rows, so what is asked is added up by SQLite; what few rows come out of that are
grouped, filtered and named by the spend room.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from openhands_otel._internal.collector.archive.blocks import TOTAL_COLUMNS, rows_between
from openhands_otel._internal.collector.archive.schema import SUMS
from openhands_otel._internal.collector.points.series import Attributes
from openhands_otel._internal.collector.state.placing import (
    FLEET_MEASURES,
    UNDATED,
    Booked,
    Cube,
    Place,
    place_of,
)
from openhands_otel._internal.collector.state.runs import Run
from openhands_otel._internal.exact import INT64_MAX, ExactSum
from openhands_otel._internal.spend.amounts import CALLS_FIELD, Amount
from openhands_otel._internal.spend.rows import QUARTER_S, Dimension, SpendRow

Present = tuple[str, str, float, float]
"""A conversation, a process that held it, since and until when (unix seconds)."""

READ: Final = "read"
"""Stands for the process where a conversation was read from OpenHands' files; keys of processes are ids."""
ROW_LIMIT: Final = 5_000_000
"""Rows of a file; beyond them the oldest lose their date, a tenth at a time."""
MEMORY_ROW_LIMIT: Final = 200_000
"""The same without a file."""
DATED_SINCE: Final = "spend"
"""Name of the date before which spend has none."""
_FINE: Final = 2**30
"""Parts of a dollar that are counted in whole numbers."""

_PLACE: Final = Place._fields
_FIND: Final = f"SELECT id FROM places WHERE {' AND '.join(f'{name} = ?' for name in _PLACE)}"
_MAKE: Final = f"INSERT INTO places ({', '.join(_PLACE)}) VALUES ({', '.join('?' * len(_PLACE))})"
_ADD: Final = (
    f"INSERT INTO spend (cube, quarter, place, {', '.join(SUMS)}) VALUES (?, ?, ?, {', '.join('?' * len(SUMS))})"
    f" ON CONFLICT DO UPDATE SET {', '.join(f'{name} = {name} + excluded.{name}' for name in SUMS)}"
)
_LABELS: Final = "COALESCE(json_extract(own_labels, ?), json_extract(labels, ?), '')"
HAS_LABEL: Final = "(json_extract(own_labels, ?) = ? OR json_extract(labels, ?) = ?)"
"""A condition of SQL: whether a place has a label, its own or its process's; takes path, value, path, value."""
_PROCESS_LABELS: Final = "COALESCE(json_extract(labels, ?), '')"
_COLUMNS: Final = {str(dimension): str(dimension) for dimension in Dimension}
FLEET_DIMENSIONS: Final = frozenset(
    {
        Dimension.SERVICE,
        Dimension.NAMESPACE,
        Dimension.PROVIDER,
        Dimension.MODEL,
        Dimension.ROLE,
        Dimension.AGENT,
        Dimension.COST_SOURCE,
    }
)
"""What processes tell as a whole: grouped by these alone, rows are what the totals are made of."""


@dataclass(frozen=True, slots=True)
class ArchiveQuestion:
    """What is asked of the archive."""

    names: Sequence[str]
    """Dimensions and labels that rows are to be told apart by."""
    bounds: Sequence[float]
    """Where one period ends and the next begins, unix seconds, rising: rows are summed up between them."""
    undated: bool
    """Whether what has no date belongs to it."""


def book(connection: sqlite3.Connection, booked: Iterable[Booked]) -> None:
    """Add amounts to what is held of their quarter-hours and places."""
    for quarter, place, amount in booked:
        _add(connection, quarter, place, _numbers(amount))
        if place.run:
            connection.execute(
                "INSERT INTO runs (conversation, number, cost, calls) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
                " SET cost = cost + excluded.cost, calls = calls + excluded.calls",
                (place.conversation, int(place.run.rpartition("#")[2]), amount.cost.value, amount.calls),
            )


def book_sum(
    connection: sqlite3.Connection, service: str, metric: str, attributes: Attributes, parts: Iterable[int | float]
) -> None:
    """Book one of the sums of processes whose record is gone, without a date."""
    amount = Amount()
    for part in parts:
        amount.grow(FLEET_MEASURES.get(metric, CALLS_FIELD), 0, part)
    book(connection, [(UNDATED, place_of(Cube.FLEET, "", (), service, attributes), amount)])


def _add(connection: sqlite3.Connection, quarter: int, place: Place, numbers: Iterable[int | float]) -> None:
    row = connection.execute(_FIND, place).fetchone()
    number = connection.execute(_MAKE, place).lastrowid if row is None else row[0]
    connection.execute(_ADD, (place.cube, quarter, number, *numbers))


def _numbers(amount: Amount) -> tuple[int | float, ...]:
    whole = (max(-INT64_MAX, min(count, INT64_MAX)) for count in amount.whole)
    return (*amount.cost.split(_FINE), amount.savings.value, *whole, amount.seconds.value)


def ask(connection: sqlite3.Connection, question: ArchiveQuestion) -> Iterator[SpendRow]:
    """Rows that add up to what was spent, read from OpenHands' files included."""
    names = set(question.names)
    labels = names - set(Dimension)
    if names - labels <= FLEET_DIMENSIONS and not any(_on_points(connection, label) for label in labels):
        yield from _rows(connection, Cube.FLEET, question)
    else:
        yield from _rows(connection, Cube.CONVERSATIONS, question)
        yield from _unplaced(connection, question)
    yield from _rows(connection, Cube.READ, question)


def held(connection: sqlite3.Connection, condition: str, values: Sequence[object]) -> list[Booked]:
    """The rows that meet a condition of SQL."""
    query = (
        f"SELECT quarter, spend.cube, {', '.join(_PLACE[1:])}, {', '.join(SUMS)} FROM spend JOIN places ON id = place"
        f" WHERE {condition}"
    )
    last = len(_PLACE) + 1
    return [
        (quarter, Place(Cube(cube), *row[: last - 2]), _amount(row[last - 2 :], Cube.FLEET))
        for quarter, cube, *row in connection.execute(query, values)
    ]


def replace(connection: sqlite3.Connection, quarter: int, place: Place, amount: Amount) -> None:
    """Have a row say something else; where that is nothing there is no row."""
    (number,) = connection.execute(_FIND, place).fetchone()
    where = (place.cube, quarter, number)
    connection.execute("DELETE FROM spend WHERE cube = ? AND quarter = ? AND place = ?", where)
    if amount.anything:
        connection.execute(_ADD, (*where, *_numbers(amount)))


def path_of(label: str) -> str:
    """Where a label is in the JSON of labels."""
    # Neither a quote nor NUL, at which SQLite believes a path to end.
    return '$."' + label.replace('"', "").replace("\0", "") + '"'


def note_presence(connection: sqlite3.Connection, present: Iterable[Present]) -> None:
    """Note from when until when a process held a conversation."""
    connection.executemany(
        "INSERT INTO presence VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
        " SET since = min(since, excluded.since), until = max(until, excluded.until)",
        present,
    )


def presence(connection: sqlite3.Connection) -> list[Present]:
    """Who held which conversation, and when."""
    return connection.execute("SELECT * FROM presence ORDER BY since").fetchall()


def note_runs(connection: sqlite3.Connection, runs: Iterable[Run]) -> None:
    """Note how far runs are."""
    connection.executemany(
        "INSERT INTO runs (conversation, number, begun, ended, outcome, error, tool_calls) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET begun = excluded.begun, ended = excluded.ended, outcome = excluded.outcome,"
        " error = excluded.error, tool_calls = excluded.tool_calls",
        [
            (run.conversation, run.number, run.begun, run.ended, run.outcome, run.error, min(run.tool_calls, INT64_MAX))
            for run in runs
        ],
    )


def begin_dates(connection: sqlite3.Connection, now: float) -> None:
    """From here on spend has dates; what was spent before has none."""
    connection.execute("INSERT OR REPLACE INTO dates VALUES (?, ?)", (DATED_SINCE, now))


def forget_dates(connection: sqlite3.Connection, before: float) -> None:
    """Take the date, the conversation and the labels of calls from what was spent before a time; never the money."""
    before = before // QUARTER_S * QUARTER_S
    old = connection.execute(
        f"SELECT spend.cube, {', '.join(_PLACE[1:])}, {TOTAL_COLUMNS}"
        " FROM spend JOIN places ON id = place WHERE quarter > ? AND quarter < ? GROUP BY spend.cube, place",
        (UNDATED, before),
    ).fetchall()
    if not old:
        return
    for cube, *row in old:
        place = Place(Cube(cube), *row[: len(_PLACE) - 1])
        # What was read is replaced by its conversation when its files are read again, as its mark below tells.
        conversation = place.conversation if place.cube is Cube.READ else ""
        place = place._replace(conversation=conversation, own_labels="{}", usage_id="", run="")
        _add(connection, UNDATED, place, row[len(_PLACE) - 1 :])
    for cube in Cube:
        connection.execute("DELETE FROM spend WHERE cube = ? AND quarter > ? AND quarter < ?", (cube, UNDATED, before))
    connection.execute("DELETE FROM places WHERE id NOT IN (SELECT place FROM spend)")
    # What was read keeps its mark: its files may still be there, and be read again.
    connection.execute("DELETE FROM presence WHERE until < ? AND process != ?", (before, READ))
    connection.execute("DELETE FROM runs WHERE begun < ?", (before,))
    begin_dates(connection, before)


def trim(connection: sqlite3.Connection, limit: int) -> None:
    """Where there are too many rows, the oldest lose their date."""
    (rows,) = connection.execute("SELECT count(*) FROM spend").fetchone()
    if rows <= limit:
        return
    query = "SELECT quarter FROM spend WHERE quarter > ? ORDER BY quarter LIMIT 1 OFFSET ?"
    row = connection.execute(query, (UNDATED, rows - limit + limit // 10)).fetchone()
    newest = connection.execute("SELECT max(quarter) FROM spend").fetchone()[0]
    forget_dates(connection, min(row[0] if row else newest, newest))


def dated_since(connection: sqlite3.Connection) -> float | None:
    """The date before which spend has none; None where all has."""
    row = connection.execute("SELECT unix_s FROM dates WHERE name = ?", (DATED_SINCE,)).fetchone()
    return None if row is None else row[0]


def first_quarter(connection: sqlite3.Connection, since: float = UNDATED + 1) -> int | None:
    """The first quarter-hour from a time on in which something was spent."""
    query = "SELECT min(quarter) FROM spend WHERE cube = ? AND quarter >= ?"
    firsts = [connection.execute(query, (cube, since)).fetchone() for cube in Cube]
    return min((first for (first,) in firsts if first is not None), default=None)


def _on_points(connection: sqlite3.Connection, label: str) -> bool:
    query = "SELECT 1 FROM places WHERE own_labels != '{}' AND json_extract(own_labels, ?) IS NOT NULL LIMIT 1"
    return connection.execute(query, (path_of(label),)).fetchone() is not None


def _rows(
    connection: sqlite3.Connection, cube: Cube, question: ArchiveQuestion, labels: str = _LABELS
) -> Iterator[SpendRow]:
    names = list(dict.fromkeys(question.names))
    for begin, end in pairwise(question.bounds):
        for keys, amount in _sums(connection, cube, names, begin, end, labels):
            yield SpendRow(begin, end, keys, amount)
    before = dated_since(connection)
    if question.undated and before is not None:
        for keys, amount in _sums(connection, cube, names, UNDATED, UNDATED + 1, labels):
            yield SpendRow(None, before, keys, amount)


def _unplaced(connection: sqlite3.Connection, question: ArchiveQuestion) -> Iterator[SpendRow]:
    """What processes say as a whole and not of conversations, or the other way round; a process's labels are both's."""
    names = [name for name in dict.fromkeys(question.names) if name in FLEET_DIMENSIONS or name not in _COLUMNS]
    shared = ArchiveQuestion(names, question.bounds, question.undated)
    rest: dict[tuple[object, ...], tuple[SpendRow, Amount]] = {}
    for sign, cube in ((1, Cube.FLEET), (-1, Cube.CONVERSATIONS)):
        for row in _rows(connection, cube, shared, _PROCESS_LABELS):
            key = row.begin, tuple(row.keys.items())
            rest.setdefault(key, (row, Amount()))[1].include(row.amount, sign)
    for row, amount in rest.values():
        if amount.anything:
            yield SpendRow(row.begin, row.end, row.keys, amount)


def _sums(
    connection: sqlite3.Connection, cube: Cube, names: Sequence[str], begin: float, end: float, labels: str
) -> Iterator[tuple[dict[str, str], Amount]]:
    columns, paths = ["1"], dict[str, str]()
    for name in names:
        if name in _COLUMNS:
            columns.append(_COLUMNS[name])
        else:
            path = f"path{len(paths)}"
            columns.append(labels.replace("?", f":{path}"))
            paths[path] = path_of(name)
    groups = ", ".join(str(number) for number in range(1, len(columns) + 1))
    rows, values = rows_between(cube, begin, end)
    query = (
        f"SELECT {', '.join(columns)}, {TOTAL_COLUMNS} FROM ({rows}) AS spent"
        f" JOIN places ON id = place GROUP BY {groups}"
    )
    for row in connection.execute(query, {**paths, **values}):
        keys = {name: str(value) for name, value in zip(names, row[1:], strict=False) if value != ""}
        yield keys, _amount(row[len(columns) :], cube)


def _amount(sums: Sequence[Any], cube: Cube) -> Amount:
    dollars, fine, rest, savings, prompt, completion, read, write, reasoning, calls, unpriced, seconds = sums
    more, fine = divmod(fine, _FINE)
    cost = ExactSum([dollars + more, fine / _FINE, rest])
    return Amount(
        cost=cost,
        read_cost=copy(cost) if cube is Cube.READ else ExactSum(),
        savings=ExactSum([savings]),
        prompt_tokens=int(prompt),
        completion_tokens=int(completion),
        cache_read_tokens=int(read),
        cache_write_tokens=int(write),
        reasoning_tokens=int(reasoning),
        calls=int(calls),
        unpriced_calls=int(unpriced),
        seconds=ExactSum([seconds]),
    )
