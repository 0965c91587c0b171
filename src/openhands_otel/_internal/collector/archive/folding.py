"""Sums of what has no record any more, by service, metric and attributes: with the records they make the totals."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Final

from openhands_otel._internal.collector.points.series import Attributes
from openhands_otel._internal.collector.state.process import Process, Record
from openhands_otel._internal.collector.state.sharing import SHARED
from openhands_otel._internal.exact import ExactSum
from openhands_otel.semconv import OVERFLOW

TOTALS_LIMIT: Final = 20_000
"""Sums of processes whose record is gone, by service, metric and attributes; more share one for each metric."""


def fold_process(connection: sqlite3.Connection, record: Record) -> None:
    """Add what a process adds to the totals, whose record is about to go."""
    for metric, attributes, amount in Process.from_record(record).contributions():
        fold(connection, record["service"], metric, attributes, (amount,))


def fold(
    connection: sqlite3.Connection, service: str, metric: str, attributes: Attributes, parts: Iterable[int | float]
) -> None:
    """Add some numbers to a sum."""
    key = (service, metric, json.dumps(attributes, separators=(",", ":")))
    query = "SELECT partials FROM folded WHERE service = ? AND metric = ? AND attributes = ?"
    row = connection.execute(query, key).fetchone()
    if row is None and connection.execute("SELECT count(*) FROM folded").fetchone()[0] >= TOTALS_LIMIT:
        key = (OVERFLOW, metric, json.dumps(SHARED, separators=(",", ":")))
        row = connection.execute(query, key).fetchone()
    total = ExactSum(json.loads(row[0]) if row else ())
    for part in parts:
        total.add(part)
    connection.execute("INSERT OR REPLACE INTO folded VALUES (?, ?, ?, ?)", (*key, json.dumps(total.parts)))


def unname(connection: sqlite3.Connection, service: str) -> None:
    """Have a service's name go, with all that was said of what its sums are of; the totals stay."""
    sums = connection.execute("SELECT metric, partials FROM folded WHERE service = ?", (service,)).fetchall()
    connection.execute("DELETE FROM folded WHERE service = ?", (service,))
    for metric, partials in sums:
        fold(connection, OVERFLOW, metric, SHARED, json.loads(partials))
