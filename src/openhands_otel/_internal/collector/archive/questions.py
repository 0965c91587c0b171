"""Questions about spend, answered from a database: for the viewer's API, and for reports of a file itself."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from itertools import batched
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from openhands_otel._internal.collector.archive.forgotten import Erasure, erasures
from openhands_otel._internal.collector.archive.schema import (
    SCHEMA_VERSION,
    UnusableDatabase,
    check,
    check_layout,
    refuse,
)
from openhands_otel._internal.collector.archive.spend import ArchiveQuestion, Present, ask, first_quarter, presence
from openhands_otel._internal.collector.archive.upgrade import convert
from openhands_otel._internal.spend.periods import LATEST, period_of
from openhands_otel._internal.spend.questions import SpendQuestion
from openhands_otel._internal.spend.reading import BadQuestion
from openhands_otel._internal.spend.rows import QUARTER_S, Described, Dimension, SpendRow, Unit
from openhands_otel.stats import Spend

_ENDED: Final = {
    Dimension.RUN: "SELECT conversation || '#' || number, outcome, tool_calls, conversation FROM runs"
    " WHERE conversation IN ({})",
    Dimension.CONVERSATION: "SELECT id, json_extract(stats, '$.outcome'), json_extract(stats, '$.tool_calls'), id"
    " FROM conversations WHERE id IN ({})",
}
"""How runs, or else conversations, ended, how many tools they called, and whose they are."""
_NAMED: Final = "SELECT id, json_extract(stats, '$.name') FROM conversations WHERE id IN ({})"
_AT_ONCE: Final = 500
"""Values of one query."""
_MOST_PERIODS: Final = 20_000
_LOOK_EVERY: Final = 64
"""Periods after which is looked whether nothing was spent for long."""


def answer(connection: sqlite3.Connection, question: SpendQuestion) -> Spend:
    """What a database holds of it. Raises BadQuestion."""
    rows = list(ask(connection, _for_archive(connection, question)))
    return question.answered_by(rows, _described(connection, question, rows))


def answer_from_file(path: Path, question: SpendQuestion) -> Spend:
    """The same of a file, whether or not a viewer has it open; it is left as it is.

    Raises BadQuestion, and UnusableDatabase where the file is not ours, or is of a later layout.
    """
    with _reading(path) as connection:
        return answer(connection, question)


def presence_from_file(path: Path) -> list[Present]:
    """Who held which conversation, and when, as a file says. Raises UnusableDatabase likewise."""
    with _reading(path) as connection:
        return presence(connection)


def erasures_from_file(path: Path) -> list[Erasure]:
    """What was ever forgotten of a file. Raises UnusableDatabase likewise."""
    with _reading(path) as connection:
        return erasures(connection)


@contextmanager
def _reading(path: Path) -> Generator[sqlite3.Connection]:
    check(path)
    if not path.exists():
        raise UnusableDatabase(f"there is no {path}: a viewer that keeps its history there makes it")
    try:
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0)) as connection,
            _of_this_layout(path, connection) as readable,
        ):
            yield readable
    except sqlite3.Error as error:
        refuse(path, error)


@contextmanager
def _of_this_layout(path: Path, connection: sqlite3.Connection) -> Generator[sqlite3.Connection]:
    """The same, or where it is of an older layout a copy that is converted, and gone afterwards."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    check_layout(path, version)
    if version == SCHEMA_VERSION:
        yield connection
        return
    with TemporaryDirectory(prefix="openhands-otel-") as folder, closing(sqlite3.connect(Path(folder, "copy"))) as copy:
        connection.backup(copy)
        convert(copy)
        yield copy


def _for_archive(connection: sqlite3.Connection, question: SpendQuestion) -> ArchiveQuestion:
    """A question as it is put to the archive."""
    first = float(first_quarter(connection) or QUARTER_S)
    since = first if question.since is None else max(question.since, first)
    until = LATEST if question.until is None else question.until
    bounds = (since, until) if question.finest is None else _bounds(connection, question.finest, since, until, question)
    return ArchiveQuestion(question.names, bounds, undated=question.since is None)


def _bounds(
    connection: sqlite3.Connection, unit: Unit, since: float, until: float, question: SpendQuestion
) -> list[float]:
    """Where the periods end in which something may have been spent."""
    bounds, now = [since], time.time()
    while bounds[-1] < until:
        if bounds[-1] > now or len(bounds) % _LOOK_EVERY == 1:
            # A clock that was wrong once has left spend in the past or future, however far; or there is none at all.
            ahead = first_quarter(connection, bounds[-1])
            if ahead is None or ahead >= until:
                break
            bounds[-1] = max(bounds[-1], period_of(unit, ahead, question.zone).begin)
        bounds.append(min(period_of(unit, bounds[-1], question.zone).end, until))
        if len(bounds) > _MOST_PERIODS:
            raise BadQuestion(f"that are more than {_MOST_PERIODS} {unit}s: ask for fewer, or for longer ones")
    return bounds


def _described(
    connection: sqlite3.Connection, question: SpendQuestion, rows: Iterable[SpendRow]
) -> dict[str, Described]:
    """What is known of runs, or else of conversations, by id."""
    dimension = next((each for each in _ENDED if each in question.by), None)
    if dimension is None:
        return {}
    ids = {row.keys[dimension] for row in rows if dimension in row.keys}
    if dimension is Dimension.RUN:
        ids = {name.rpartition("#")[0] for name in ids}
    told = _found(connection, _ENDED[dimension], ids)
    names = dict(_found(connection, _NAMED, {conversation for *_, conversation in told}))
    return {
        name: Described(outcome, names.get(conversation), tools if question.is_whole(dimension) else None)
        for name, outcome, tools, conversation in told
    }


def _found(connection: sqlite3.Connection, query: str, ids: Iterable[str]) -> list[Any]:
    return [
        row
        for some in batched(sorted(ids), _AT_ONCE)
        for row in connection.execute(query.format(", ".join("?" * len(some))), some)
    ]
