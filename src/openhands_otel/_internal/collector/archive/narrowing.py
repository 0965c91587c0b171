"""The database as who may look at one service sees it.

For the length of a question every table is hidden behind a view of its name that shows that service's rows alone. So
whatever is asked is answered of nothing else, and a table that nobody thought of here shows nothing.

A conversation is a service's if all processes that worked on it were: with what another one spent there, nobody's
token for the one alone shows it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from openhands_otel._internal.collector.state.placing import Cube

_WHOSE: Final = "(SELECT service FROM temp.narrowed_to)"
_SERVICES: Final = "SELECT 1 FROM json_each(record, '$.services')"
_IS_OURS: Final = f"EXISTS ({_SERVICES}) AND NOT EXISTS ({_SERVICES} WHERE value IS NOT {_WHOSE})"
_PLACES: Final = f"SELECT id FROM main.places WHERE service = {_WHOSE}"
_TREE_IS_OURS: Final = (
    "NOT resident AND NOT EXISTS"
    f" (SELECT 1 FROM json_each(record, '$.folded_services') WHERE value IS NOT {_WHOSE})"
    " AND (json_extract(record, '$.folded_descendants') = 0 OR json_type(record, '$.folded_services') = 'array')"
)
"""Whether nothing that others spent is in the cost of its tree. Of those in memory the tree is known there."""
_ALONE: Final = "json_set(stats, '$.tree_cost', json_extract(stats, '$.accumulated_cost'), '$.descendants', 0)"
_BY_QUARTERS: Final = f"""
    SELECT '' AS subject, min(quarter + 900, CAST(strftime('%s', 'now') AS INTEGER)) AS at,
        sum(cost) OVER rising AS cost, CAST(sum(prompt) OVER rising AS INTEGER) AS prompt,
        CAST(sum(completion) OVER rising AS INTEGER) AS completion, CAST(sum(calls) OVER rising AS INTEGER) AS calls
    FROM (
        SELECT quarter, sum(dollars) + sum(fine) / 1073741824.0 + sum(rest) AS cost, total(prompt) AS prompt,
            total(completion) AS completion, total(calls) AS calls
        FROM main.spend WHERE cube = {Cube.FLEET:d} AND place IN ({_PLACES}) GROUP BY quarter
    )
    WINDOW rising AS (ORDER BY quarter)
"""
"""Samples of everything know no service: those of one are what its quarter-hours add up to."""


def _of_ours(column: str) -> str:
    return f"EXISTS (SELECT 1 FROM main.conversations WHERE id = {column} AND {_IS_OURS})"


_SHOWN: Final = {
    "conversations": (
        f"SELECT id, seen, resident, record, CASE WHEN {_TREE_IS_OURS} THEN stats ELSE {_ALONE} END AS stats"
        f" FROM main.conversations WHERE {_IS_OURS}"
    ),
    "samples": f"SELECT * FROM main.samples WHERE {_of_ours('subject')} UNION ALL {_BY_QUARTERS}",
    "places": f"SELECT * FROM main.places WHERE service = {_WHOSE}",
    "spend": f"SELECT * FROM main.spend WHERE place IN ({_PLACES})",
    "blocks": f"SELECT * FROM main.blocks WHERE place IN ({_PLACES})",
    "stale": "SELECT * FROM main.stale",
    "dates": "SELECT * FROM main.dates",
    "presence": f"SELECT * FROM main.presence WHERE {_of_ours('conversation')}",
    "runs": f"SELECT * FROM main.runs WHERE {_of_ours('conversation')}",
    "spans": (
        f"SELECT * FROM main.spans WHERE service = {_WHOSE} AND NOT EXISTS"
        f" (SELECT 1 FROM main.conversations WHERE main.conversations.id = conversation AND NOT ({_IS_OURS}))"
    ),
}
"""What each table shows; the others show nothing. Dates, and which blocks are stale, are nobody's."""


def narrowed[T](connection: sqlite3.Connection, service: str, ask: Callable[[sqlite3.Connection], T]) -> T:
    """What ``ask`` finds of one service; it writes nothing."""
    tables = [name for (name,) in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")]
    hidden = [name for name in tables if not name.startswith("sqlite_")]
    try:
        connection.execute("CREATE TEMP TABLE narrowed_to AS SELECT ? AS service", (service,))
        for name in hidden:
            shown = _SHOWN.get(name, f'SELECT * FROM main."{name}" WHERE 0')
            connection.execute(f'CREATE TEMP VIEW "{name}" AS {shown}')
        return ask(connection)
    finally:
        for name in hidden:
            connection.execute(f'DROP VIEW IF EXISTS temp."{name}"')
        connection.execute("DROP TABLE IF EXISTS temp.narrowed_to")
        connection.commit()
