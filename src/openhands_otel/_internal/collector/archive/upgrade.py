"""A file of an older layout as one of this layout: all that it holds is still there; of layout 1 it has no date.

The file is copied aside first, and converted in one transaction.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

from openhands_otel._internal.collector.archive import spend
from openhands_otel._internal.collector.archive.schema import LAYOUTS, SCHEMA_VERSION
from openhands_otel._internal.collector.state.conversation import Conversation
from openhands_otel._internal.collector.state.placing import Unbooked
from openhands_otel._internal.collector.state.process import Process


def upgrade(connection: sqlite3.Connection, path: Path) -> Path | None:
    """Convert a file where it is of an older layout; returns where the copy of it is then."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return None
    aside = _private_file(path, f"layout-{version}")
    try:
        with closing(sqlite3.connect(aside)) as copy:
            connection.backup(copy)
        convert(connection)
    except BaseException:
        # The file is as it was. Each further try would leave another copy, where there may be no room for one.
        aside.unlink(missing_ok=True)
        raise
    return aside


def convert(connection: sqlite3.Connection) -> None:
    """Make an older layout this one, in one transaction."""
    (before,) = connection.execute("PRAGMA user_version").fetchone()
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for layout in range(before + 1, SCHEMA_VERSION + 1):
            _make(connection, LAYOUTS[layout])
            if layout == 2:
                _book_all(connection)
                spend.begin_dates(connection, time.time())
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _make(connection: sqlite3.Connection, tables: str) -> None:
    """As ``executescript`` does, which would commit what was begun."""
    statement = ""
    for part in tables.split(";"):
        statement += f"{part};"
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""


def _private_file(path: Path, what: str) -> Path:
    """A new file beside one, for its owner alone; an earlier copy stays as it is."""
    for number in count(1):
        aside = path.with_name(f"{path.name}.{what}" + (f"-{number}" if number > 1 else ""))
        with suppress(FileExistsError):
            os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            return aside
    raise AssertionError("numbers do not end")


def _book_all(connection: sqlite3.Connection) -> None:
    for service, metric, attributes, parts in connection.execute("SELECT * FROM folded").fetchall():
        pairs = tuple((str(name), value) for name, value in json.loads(attributes))
        spend.book_sum(connection, service, metric, pairs, json.loads(parts))
    unbooked = Unbooked()
    for (record,) in connection.execute("SELECT record FROM processes"):
        process = Process.from_record(json.loads(record))
        process.book_undated(unbooked)
        spend.book(connection, unbooked.take(process.key))
    for (record,) in connection.execute("SELECT record FROM conversations"):
        conversation = Conversation.from_record(json.loads(record))
        conversation.book_undated(unbooked)
        spend.book(connection, unbooked.take(conversation.key))
        spend.note_presence(connection, [(conversation.id, *held) for held in conversation.held_by()])
