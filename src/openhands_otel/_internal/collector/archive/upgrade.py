"""A file of the layout before as one of this layout: what it holds has no date, and all of it is still there.

The file is copied aside first, and converted in one transaction.
"""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

from openhands_otel._internal.collector.archive import spend
from openhands_otel._internal.collector.archive.schema import SPEND, VERSION
from openhands_otel._internal.collector.state.conversation import Conversation
from openhands_otel._internal.collector.state.fleet import Process
from openhands_otel._internal.collector.state.placing import Unbooked


def upgrade(connection: sqlite3.Connection, path: Path) -> Path | None:
    """Convert a file where it is of the layout before; returns where the copy of it is then."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return None
    aside = path.with_name(f"{path.name}.layout-{version}")
    with sqlite3.connect(aside) as copy:
        connection.backup(copy)
    copy.close()
    aside.chmod(0o600)
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        for statement in filter(str.strip, SPEND.split(";")):
            connection.execute(statement)
        _book_all(connection)
        spend.begin_dates(connection, time.time())
        connection.execute(f"PRAGMA user_version = {VERSION}")
    return aside


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
