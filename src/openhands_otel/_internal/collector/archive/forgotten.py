"""What the database keeps of processes and conversations that are forgotten: a hash, and how far their streams were.

The salt of the hashes is the file's own, so that they say nothing to whoever has not got the file, and nobody finds a
name by them but by trying it.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass

from openhands_otel._internal.collector.state.erased import Record, hash_of


@dataclass(frozen=True, slots=True)
class Erasure:
    """What somebody had forgotten, and when (unix seconds)."""

    at: float
    asked: str
    """By what: names as hashes."""
    rows: int
    cost: float
    calls: int


def salt_of(connection: sqlite3.Connection) -> str:
    """The file's salt; made where it is asked for first."""
    row = connection.execute("SELECT salt FROM salt").fetchone()
    if row is None:
        row = (secrets.token_hex(16),)
        connection.execute("INSERT INTO salt VALUES (?)", row)
    return row[0]


def keep(connection: sqlite3.Connection, table: str, name: str, record: Record) -> None:
    """Keep what stands for a record that is forgotten; nothing new leaves what stood for it before."""
    key = hash_of(salt_of(connection), table, name)
    text = json.dumps(record, separators=(",", ":"))
    connection.execute(
        "INSERT INTO forgotten VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET at = excluded.at,"
        " record = iif(excluded.record = '{}', record, excluded.record)",
        (key, time.time(), text),
    )


def find(connection: sqlite3.Connection, table: str, names: Iterable[str]) -> dict[str, Record]:
    """What stands for some of these, by name."""
    row = connection.execute("SELECT salt FROM salt").fetchone()
    found: dict[str, Record] = {}
    if row is None:
        return found
    for name in names:
        key = hash_of(row[0], table, name)
        kept = connection.execute("SELECT record FROM forgotten WHERE key = ?", (key,)).fetchone()
        if kept is not None:
            found[name] = json.loads(kept[0])
    return found


def when(connection: sqlite3.Connection, table: str, name: str) -> float | None:
    """When it was forgotten, unix seconds; None if it was not."""
    row = connection.execute("SELECT salt FROM salt").fetchone()
    if row is None:
        return None
    kept = connection.execute("SELECT at FROM forgotten WHERE key = ?", (hash_of(row[0], table, name),)).fetchone()
    return None if kept is None else kept[0]


def note_erasure(connection: sqlite3.Connection, erasure: Erasure) -> None:
    """Have it be known that something was forgotten."""
    row = (erasure.at, erasure.asked, erasure.rows, erasure.cost, erasure.calls)
    connection.execute("INSERT INTO erasures VALUES (?, ?, ?, ?, ?)", row)


def erasures(connection: sqlite3.Connection) -> list[Erasure]:
    """All that was ever forgotten, oldest first."""
    return [Erasure(*row) for row in connection.execute("SELECT * FROM erasures ORDER BY at")]
