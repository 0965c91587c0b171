"""Spend by blocks of three hours: sums of what SQLite would else add up from quarter-hours again for each question.

They can never disagree with the rows that they are sums of. Triggers of the schema see to it: whatever changes a row
takes its block's sums away and marks the block as stale. A stale block is read row by row, until ``add_up`` has added
it up. What has no date is no block's.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from openhands_otel._internal.collector.archive.schema import BLOCK_S, SUMS
from openhands_otel._internal.collector.state.placing import UNDATED

BLOCKS_AT_ONCE: Final = 100
"""Blocks that one transaction adds up: a tenth of a second where a hundred agents work."""
_SETTLED_S: Final = 3600
"""How long after its end a block is left alone: what was spent in it may still be on its way."""

MONEY: Final = frozenset({"dollars", "fine", "rest"})
# All else as floats: what hostile senders say may be more than SQLite's integers hold, and then it gives up.
TOTAL_COLUMNS: Final = ", ".join(f"{'sum' if name in MONEY else 'total'}({name})" for name in SUMS)
"""Of rows of spend, in the order of SUMS."""

_ROWS: Final = "SELECT * FROM spend WHERE cube = :cube AND quarter >= :{} AND quarter < :{}"
_STALE: Final = (
    f"SELECT spend.* FROM stale JOIN spend ON spend.cube = :cube AND quarter >= block AND quarter < block + {BLOCK_S}"
    " WHERE stale.cube = :cube AND block >= :first AND block < :last"
)
_BY_BLOCKS: Final = " UNION ALL ".join(
    (
        "SELECT * FROM blocks WHERE cube = :cube AND quarter >= :first AND quarter < :last",
        _STALE,
        _ROWS.format("begin", "first"),
        _ROWS.format("last", "end"),
    )
)


def rows_between(cube: int, begin: float, end: float) -> tuple[str, dict[str, float]]:
    """A query for rows that add up to what was spent in a period, and its values."""
    first, last = -(-begin // BLOCK_S) * BLOCK_S, end // BLOCK_S * BLOCK_S
    if last <= first or begin <= UNDATED:
        return _ROWS.format("begin", "end"), {"cube": cube, "begin": begin, "end": end}
    return _BY_BLOCKS, {"cube": cube, "begin": begin, "first": first, "last": last, "end": end}


def add_up(connection: sqlite3.Connection, now: float) -> bool:
    """Add up some stale blocks that are over; True where there may be more of them."""
    stale = connection.execute(
        "SELECT cube, block FROM stale WHERE block > ? AND block < ? LIMIT ?",
        (UNDATED, now - BLOCK_S - _SETTLED_S, BLOCKS_AT_ONCE),
    ).fetchall()
    with connection as database:
        for cube, block in stale:
            database.execute(
                f"INSERT INTO blocks SELECT cube, :block, place, {TOTAL_COLUMNS} FROM spend"
                f" WHERE cube = :cube AND quarter >= :block AND quarter < :block + {BLOCK_S} GROUP BY place",
                {"cube": cube, "block": block},
            )
            database.execute("DELETE FROM stale WHERE cube = ? AND block = ?", (cube, block))
    return len(stale) == BLOCKS_AT_ONCE
