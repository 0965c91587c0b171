"""Which notices went to whom, in the database: each once, also over restarts.

A row is an event and a target, both as digests. Its text is there only until it is sent.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from openhands_otel.semconv import NoticeKind

KEPT_S: Final = 400 * 86_400.0
"""How long it is known that somebody was told: longer than the longest period of a budget, and than a year's rest."""
TRIED_S: Final = 86_400.0
"""How long a notice is news; what could not be sent by then is dropped."""
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS notices (
    event TEXT NOT NULL, target TEXT NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL, text TEXT,
    PRIMARY KEY (event, target)
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class Due:
    """What a target has not been told yet."""

    event: str
    kind: NoticeKind
    text: str
    at: float
    """Unix seconds when it was seen first."""


def prepare(database: sqlite3.Connection) -> None:
    """Make the table, if there is none: only viewers that tell somebody have it."""
    with database:
        database.execute(_TABLE)


def introduce(database: sqlite3.Connection, target: str, now: float) -> bool:
    """Note that there is this target; returns whether that is new."""
    with database:
        made = database.execute("INSERT OR IGNORE INTO notices VALUES ('', ?, ?, '', NULL)", (target, now))
    return made.rowcount > 0


def note(
    database: sqlite3.Connection,
    notices: Iterable[tuple[str, NoticeKind, str]],
    target: str,
    now: float,
    told: bool = False,
) -> None:
    """Keep what holds (event, kind, text); what is known already stays as it is. ``told``: as if it had been sent."""
    rows = [(event, target, now, kind, None if told else text) for event, kind, text in notices]
    with database:
        database.executemany("INSERT OR IGNORE INTO notices VALUES (?, ?, ?, ?, ?)", rows)


def due(database: sqlite3.Connection, target: str, now: float) -> list[Due]:
    """What a target has not been told, oldest first."""
    rows = database.execute(
        "SELECT event, kind, text, at FROM notices WHERE target = ? AND text IS NOT NULL AND at > ? ORDER BY at, event",
        (target, now - TRIED_S),
    )
    return [Due(event, NoticeKind(kind), text, at) for event, kind, text, at in rows]


def sent(database: sqlite3.Connection, target: str, events: Iterable[str]) -> None:
    """They went out: that is known from now on, and their text is not."""
    with database:
        database.executemany(
            "UPDATE notices SET text = NULL WHERE event = ? AND target = ?", [(event, target) for event in events]
        )


def forget_texts(database: sqlite3.Connection) -> None:
    """Nothing of what waits is sent any more: it may be of those that are forgotten."""
    if database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'notices'").fetchone() is not None:
        database.execute("UPDATE notices SET text = NULL")


def purge(database: sqlite3.Connection, now: float) -> None:
    """Forget what is old; of what was never sent the text."""
    with database:
        database.execute("UPDATE notices SET text = NULL WHERE at < ?", (now - TRIED_S,))
        database.execute("DELETE FROM notices WHERE at < ? AND event != ''", (now - KEPT_S,))
