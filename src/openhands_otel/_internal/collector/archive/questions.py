"""Questions about spend as people and programs put them: read, checked, and answered from a database.

The viewer's API and a report of a file that no viewer has open ask by the same words and get the same figures.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing, contextmanager
from itertools import batched
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from zoneinfo import ZoneInfo

from openhands_otel._internal.collector.archive.forgotten import Erasure, erasures
from openhands_otel._internal.collector.archive.schema import VERSION, UnusableDatabase, check, refuse
from openhands_otel._internal.collector.archive.spend import Present, Question, ask, first_quarter, presence
from openhands_otel._internal.collector.archive.upgrade import convert
from openhands_otel._internal.spend.conditions import Condition, ConditionError
from openhands_otel._internal.spend.periods import Period, PeriodError, ago, asked, period_of, quarter
from openhands_otel._internal.spend.questions import SpendQuestion
from openhands_otel._internal.spend.rows import QUARTER_S, Dimension, SpendRow, Unit
from openhands_otel._internal.spend.zones import ZoneError, zone_of
from openhands_otel._internal.terminal_text import printable
from openhands_otel.stats import Spend

_NUMBER: Final = re.compile(r"[0-9]{1,20}(\.[0-9]*)?(e[+-]?[0-9]{1,3})?")
_OUTCOMES: Final = {
    Dimension.RUN: "SELECT conversation || '#' || number AS id, outcome FROM runs WHERE id IN ({})",
    Dimension.CONVERSATION: "SELECT id, json_extract(stats, '$.outcome') FROM conversations WHERE id IN ({})",
}
_MOST_NAMES: Final = 8
_MOST_PERIODS: Final = 20_000
_LOOK_EVERY: Final = 64
"""Periods after which is looked whether nothing was spent for long."""
_LATEST: Final = 4e10
"""Unix seconds, after all that is plausible."""


class BadQuestion(ValueError):
    """It cannot be understood; the message is one line that says what to write."""


def read_question(given: Mapping[str, Iterable[str]], zone_by_default: str | None) -> SpendQuestion:
    """Read what is asked. Raises BadQuestion.

    Args:
        given: by, since, until, last, timezone, where and top, each as often as it was given.
        zone_by_default: IANA name of the zone where none is asked for; None for this machine's.
    """
    values = {name: list(texts) for name, texts in given.items()}
    try:
        zone = zone_of(_single(values, "timezone") or zone_by_default)
        now = time.time()
        since, until, last = (_single(values, name) for name in ("since", "until", "last"))
        if last is not None and since is not None:
            raise BadQuestion("give since or last, not both")
        begin = _moment(since, now, zone).begin if since else ago(last, now, zone) if last else None
        where = tuple(Condition.of(text) for text in values.get("where", ()))
        question = SpendQuestion(
            by=tuple(name for text in values.get("by", ()) for name in map(str.strip, text.split(",")) if name),
            zone=zone,
            since=None if begin is None else quarter(begin),
            until=_end(until, now, zone),
            where=where,
            top=_count(_single(values, "top")),
        )
    except (PeriodError, ZoneError, ConditionError) as error:
        raise BadQuestion(printable(str(error), 300)) from None
    if len(question.by) > _MOST_NAMES or len(question.where) > _MOST_NAMES:
        raise BadQuestion(f"by and where take {_MOST_NAMES} names at most")
    if question.since is not None and question.until is not None and question.until <= question.since:
        raise BadQuestion("until must be after since")
    return question


def answer(connection: sqlite3.Connection, question: SpendQuestion) -> Spend:
    """What a database holds of it. Raises BadQuestion."""
    rows = list(ask(connection, _for_archive(connection, question)))
    return question.answered_by(rows, _outcomes(connection, question, rows))


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
            _of_this_layout(connection) as readable,
        ):
            yield readable
    except sqlite3.Error as error:
        refuse(path, error)


@contextmanager
def _of_this_layout(connection: sqlite3.Connection) -> Generator[sqlite3.Connection]:
    """The same, or where it is of an older layout a copy that is converted, and gone afterwards."""
    if connection.execute("PRAGMA user_version").fetchone() == (VERSION,):
        yield connection
        return
    with TemporaryDirectory(prefix="openhands-otel-") as folder, closing(sqlite3.connect(Path(folder, "copy"))) as copy:
        connection.backup(copy)
        convert(copy)
        yield copy


def _for_archive(connection: sqlite3.Connection, question: SpendQuestion) -> Question:
    """A question as it is put to the archive."""
    first = float(first_quarter(connection) or QUARTER_S)
    since = first if question.since is None else max(question.since, first)
    until = _LATEST if question.until is None else question.until
    bounds = (since, until) if question.finest is None else _bounds(connection, question.finest, since, until, question)
    return Question(question.names, bounds, undated=question.since is None)


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


def _outcomes(connection: sqlite3.Connection, question: SpendQuestion, rows: Iterable[SpendRow]) -> dict[str, str]:
    """How runs, or else conversations, ended, by id."""
    found: dict[str, str] = {}
    for dimension, query in _OUTCOMES.items():
        if dimension not in question.by:
            continue
        ids = sorted({row.keys[dimension] for row in rows if dimension in row.keys})
        for some in batched(ids, 500):
            asked_for = query.format(", ".join("?" * len(some)))
            found |= {name: outcome for name, outcome in connection.execute(asked_for, some) if outcome is not None}
        break
    return found


def _single(values: Mapping[str, list[str]], name: str) -> str | None:
    texts = values.get(name, [])
    if len(texts) > 1:
        raise BadQuestion(f"{name} is given {len(texts)} times")
    return texts[0] if texts else None


def _moment(text: str, now: float, zone: ZoneInfo) -> Period:
    """A period by name, or a moment in unix seconds, whatever size it is."""
    if _NUMBER.fullmatch(text):
        moment = min(float(text), _LATEST)
        return Period(text, moment, moment)
    return asked(text, now, zone)


def _end(until: str | None, now: float, zone: ZoneInfo) -> float | None:
    if not until:
        return None
    period = _moment(until, now, zone)
    # The last quarter-hour counts as a whole.
    return -quarter(-period.end)


def _count(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 1_000_000:
        raise BadQuestion("top must be a whole number above 0")
    return int(text)
