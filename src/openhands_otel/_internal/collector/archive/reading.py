"""Spend that an import has read from OpenHands' own files: a lower bound, beside what processes have told.

It counts as long as no process has told of the same time: then it gives way, by whole quarter-hours, so that no dollar
counts twice. When it was read stands among the times in which conversations were held, so that whoever reads these
files again leaves it out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from openhands_otel._internal.collector.archive import spend
from openhands_otel._internal.collector.archive.forgotten import when
from openhands_otel._internal.collector.archive.spend import READ
from openhands_otel._internal.collector.state.placing import CONVERSATION_RECORDS, Booked, Cube, Place
from openhands_otel._internal.exact import ExactSum
from openhands_otel._internal.spend.amounts import TOKEN_FIELDS, Amount
from openhands_otel._internal.spend.handover import Handover, ReadConversation, ReadRow
from openhands_otel._internal.spend.rows import CLOCKS_S, QUARTER_S

_OF_CONVERSATION: Final = "place IN (SELECT id FROM places WHERE cube = ? AND conversation = ?)"


def take(connection: sqlite3.Connection, handover: Handover) -> None:
    """Put what was read in the place of what was read before of the same conversations."""
    with connection as database:
        for conversation in handover.conversations:
            name = conversation.conversation_id
            database.execute(f"DELETE FROM spend WHERE cube = ? AND {_OF_CONVERSATION}", (Cube.READ, Cube.READ, name))
            spend.book(database, _booked(conversation))
            forgotten = when(database, CONVERSATION_RECORDS, name)
            if forgotten is not None:
                _give_way(database, name, 0.0, forgotten)
                if not _is_there(database, name):
                    continue
            database.execute("INSERT OR REPLACE INTO presence VALUES (?, ?, 0, ?)", (name, READ, conversation.until))
            held = database.execute(
                "SELECT since, until FROM presence WHERE conversation = ? AND process != ?", (name, READ)
            ).fetchall()
            known = dict(sorted(conversation.known))
            for since, until in held:
                # What came while the files were read.
                if until > known.get(since, 0.0):
                    _give_way(database, name, max(since, known.get(since, 0.0)), until)


def give_way(connection: sqlite3.Connection, present: Iterable[spend.Present]) -> None:
    """Take away what was read of times of which processes tell now; before these are noted."""
    if connection.execute("SELECT 1 FROM spend WHERE cube = ? LIMIT 1", (Cube.READ,)).fetchone() is None:
        return
    for conversation, process, since, until in present:
        known = connection.execute(
            "SELECT since, until FROM presence WHERE conversation = ? AND process = ?", (conversation, process)
        ).fetchone()
        if known is None:
            _give_way(connection, conversation, since, until)
            continue
        if since < known[0]:
            _give_way(connection, conversation, since, known[0])
        if until > known[1]:
            _give_way(connection, conversation, known[1], until)


def _give_way(connection: sqlite3.Connection, conversation: str, since: float, until: float) -> None:
    connection.execute(
        f"DELETE FROM spend WHERE cube = ? AND quarter > ? AND quarter <= ? AND {_OF_CONVERSATION}",
        (Cube.READ, since - QUARTER_S - CLOCKS_S, until + CLOCKS_S, Cube.READ, conversation),
    )


def _is_there(connection: sqlite3.Connection, conversation: str) -> bool:
    query = f"SELECT 1 FROM spend WHERE cube = ? AND {_OF_CONVERSATION} LIMIT 1"
    if connection.execute(query, (Cube.READ, Cube.READ, conversation)).fetchone() is not None:
        return True
    connection.execute(
        "DELETE FROM places WHERE conversation = ? AND id NOT IN (SELECT place FROM spend)", (conversation,)
    )
    return False


def _booked(conversation: ReadConversation) -> Iterable[Booked]:
    for row in conversation.rows:
        place = Place(
            Cube.READ,
            conversation.conversation_id,
            provider=row.provider,
            model=row.model,
            role=row.role,
            agent=row.agent,
            usage_id=row.usage_id,
            cost_source=row.cost_source,
        )
        yield int(row.begin // QUARTER_S * QUARTER_S), place, _amount(row)


def _amount(row: ReadRow) -> Amount:
    return Amount(
        cost=ExactSum([row.cost]),
        calls=row.calls,
        unpriced_calls=row.unpriced_calls,
        seconds=ExactSum([row.seconds]),
        **{name: getattr(row, name) for name in TOKEN_FIELDS.values()},
    )
