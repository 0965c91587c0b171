"""Spans in the database: taken in, asked for, and let go of by age and size, the first to come first."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from typing import Final

from openhands_otel._internal.collector.archive.span_forgetting import ErasedSpans
from openhands_otel._internal.collector.spans.span import Span

TRIM: Final = 500
"""Spans that one step lets go of, about."""

_ADD: Final = (
    "INSERT OR IGNORE INTO spans (received, size, trace, span, parent, conversation, service, kind, name, started,"
    " ended, labels, facts, details) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def add(connection: sqlite3.Connection, spans: Iterable[Span], received: float) -> int:
    """Take in spans that came at ``received`` (unix seconds); returns how many bytes they add.

    What is there already stays as it is: a sender that got no answer says it again.
    """
    added = 0
    with connection as database:
        erased = ErasedSpans.read(database)
        for span in spans:
            if erased.holds(span):
                continue
            texts = (span.labels, span.facts, span.details)
            row = (received, span.size, span.trace, span.span, span.parent, span.conversation, span.service, span.kind)
            cursor = database.execute(_ADD, (*row, span.name, span.started, span.ended, *texts))
            added += span.size * cursor.rowcount
    return added


def held_bytes(connection: sqlite3.Connection) -> int:
    """Bytes that all of them take, about."""
    return int(connection.execute("SELECT total(size) FROM spans").fetchone()[0])


def trim(connection: sqlite3.Connection, older_than: float, excess: int) -> int:
    """Let go of some that came before a time (unix seconds), and of the oldest until ``excess`` bytes are free.

    Returns how many bytes are free by that; 0 where there was nothing to do.
    """
    freed = last = size_so_far = 0
    now, rows = time.time(), connection.execute("SELECT id, size, received FROM spans ORDER BY id")
    for looked_at, (number, size, received) in enumerate(rows, 1):
        size_so_far += size
        if received < older_than or freed < excess:
            freed, last = size_so_far, number
        elif received <= now:
            break
        # What came while the clock was ahead is at least as old as what came after it.
        if last and looked_at >= TRIM:
            break
    rows.close()
    if last:
        with connection as database:
            database.execute("DELETE FROM spans WHERE id <= ?", (last,))
    return freed
