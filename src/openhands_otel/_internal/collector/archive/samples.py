"""What was asked of over time: the accumulated values of a conversation, or of everything, in buckets."""

from __future__ import annotations

import sqlite3
from typing import Final

from openhands_otel.stats import History, HistoryPoint

HISTORY_BUCKETS: Final = 2_000

EVERYTHING: Final = ""
"""Subject of the samples that are not about one conversation."""


def history(connection: sqlite3.Connection, subject: str, since: float, until: float, bucket_s: float) -> History:
    """The last sample of each bucket between two times (unix seconds), and the last before them."""
    rows = connection.execute(
        # SQLite takes the other columns from the row that has the maximum.
        "SELECT max(at), cost, prompt, completion, calls FROM samples"
        " WHERE subject = ? AND at >= ? AND at <= ? GROUP BY CAST(at / ? AS INTEGER) ORDER BY at LIMIT ?",
        (subject, since, until, bucket_s, HISTORY_BUCKETS),
    )
    before = connection.execute(
        "SELECT at, cost, prompt, completion, calls FROM samples WHERE subject = ? AND at < ? ORDER BY at DESC LIMIT 1",
        (subject, since),
    ).fetchone()
    return History(
        conversation_id=subject or None,
        bucket_s=bucket_s,
        before=None if before is None else _point(before),
        points=tuple(_point(row) for row in rows),
    )


def _point(row: tuple[float, float, int, int, int]) -> HistoryPoint:
    at, cost, prompt, completion, calls = row
    return HistoryPoint(
        unix_s=at, accumulated_cost=cost, prompt_tokens=prompt, completion_tokens=completion, llm_calls=calls
    )
