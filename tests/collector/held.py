"""A store without a network, for tests of what it knows rather than of how it is asked."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Coroutine, Iterable
from contextlib import closing
from pathlib import Path
from typing import Self

from openhands_otel._internal.collector.archive.history import Archive
from openhands_otel._internal.collector.archive.listings import archived_stats
from openhands_otel._internal.collector.archive.samples import history
from openhands_otel._internal.collector.archive.spend import ArchiveQuestion, ask
from openhands_otel._internal.collector.housekeeping import Housekeeping
from openhands_otel._internal.collector.points.decode import decode_metrics
from openhands_otel._internal.collector.store import Store
from openhands_otel._internal.spend.amounts import Amount
from openhands_otel.stats import ConversationStats, History
from otlp_sender import Sender


class HeldStore:
    """A store, its archive and its housekeeping, whose rounds the test makes itself."""

    def __init__(self, database: Path | None = None, conversation_limit: int = 2_000) -> None:
        self._archive = Archive(database)
        self.store = Store(self._archive)
        self.housekeeping = Housekeeping(self.store, conversation_limit, retention_s=86_400)
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> Self:
        self.store.restore(self.run(self._archive.open()))
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.housekeeping.stop())
        self.run(self._archive.close())
        self._loop.close()

    def archived(self, conversation: str) -> str | None:
        """The state of a conversation as the archive has it."""
        return self.run(self._archive.read(lambda database: archived_stats(database, conversation)))

    def history(self, subject: str, since: float, until: float, bucket_s: float) -> History:
        return self.run(self._archive.read(lambda database: history(database, subject, since, until, bucket_s)))

    def run[T](self, work: Coroutine[None, None, T]) -> T:
        return self._loop.run_until_complete(work)

    def take(self, sender: Sender) -> int:
        """Take what a sender has; returns how many points were refused."""
        return self.take_body(sender.body())

    def take_body(self, body: bytes, at: float | None = None, replayed: bool = False) -> int:
        received = time.time_ns() if at is None else int(at * 1e9)
        return self.run(self.store.receive(decode_metrics(body, json=False), received, replayed)).count

    def take_at_once(self, senders: Iterable[Sender]) -> None:
        """As from as many connections, whose requests wait for the archive beside each other."""

        async def all_of_them() -> None:
            decoded = [decode_metrics(sender.body(), json=False) for sender in senders]
            await asyncio.gather(*(self.store.receive(each, time.time_ns()) for each in decoded))

        self.run(all_of_them())

    def let_all_go(self) -> None:
        """As if all had been silent for long: what may leave memory leaves it."""
        for process in self.store.fleet.processes.values():
            process.seen, process.pulse.heard = 0.0, -1e9
        for conversation in self.store.conversations.by_id.values():
            conversation.seen = 0.0
        self.store.fleet.lives.judge()
        while self.run(self.housekeeping.let_go()):
            pass

    def conversation(self, conversation_id: str) -> ConversationStats:
        return self.store.conversations.stats(self.store.conversations.by_id[conversation_id])

    def spent(
        self, *names: str, since: float = 1.0, until: float = 4e9, undated: bool = True
    ) -> dict[tuple[str, ...], Amount]:
        """What the archive holds by these names; ``undated``: with what has no date."""
        while self.run(self.housekeeping.save()):
            pass
        found: dict[tuple[str, ...], Amount] = {}
        question = ArchiveQuestion(names, (since, until), undated)
        for row in self.run(self.store.archive.read(lambda connection: list(ask(connection, question)))):
            key = tuple(row.keys.get(name, "") for name in names)
            found.setdefault(key, Amount()).include(row.amount)
        return found

    @property
    def cost(self) -> float:
        return self.store.totals().accumulated_cost


_BROUGHT = {
    4: ("blocks", "stale"),
    3: ("spans", "erased_spans"),
    2: ("spend", "places", "presence", "runs", "dates", "forgotten", "salt", "erasures"),
}


def as_layout(database: Path, layout: int) -> None:
    """Take away what later layouts than this one have brought."""
    with closing(sqlite3.connect(database)) as connection, connection:
        if layout < 6:
            connection.execute("DROP INDEX spans_call_times")
        if layout < 4:
            for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                connection.execute(f"DROP TRIGGER {trigger}")
        for table in (table for later, tables in _BROUGHT.items() if later > layout for table in tables):
            connection.execute(f"DROP TABLE {table}")
        if 2 <= layout < 5:
            connection.execute("ALTER TABLE runs DROP COLUMN tool_calls")
        connection.execute(f"PRAGMA user_version = {layout}")


def write_as_before(database: Path) -> None:
    """Rewrite what a database holds as the first release wrote it: one stream of each series, no time of arrival."""
    with closing(sqlite3.connect(database)) as connection, connection:
        for table, rows, key in (("processes", "series", "key"), ("conversations", "held", "id")):
            for name, text in connection.execute(f"SELECT {key}, record FROM {table}").fetchall():
                record = json.loads(text)
                record.pop("taken_up", None)
                record[rows] = [_row_before(row) for row in record[rows]]
                connection.execute(f"UPDATE {table} SET record = ? WHERE {key} = ?", (json.dumps(record), name))


def _row_before(row: list[object]) -> list[object]:
    """A row with start, time, base, value and whether it ended, in the row itself."""
    *what, series = row
    assert isinstance(series, list)
    start, at, value, ended = series[:4]
    if len(what) == 2:
        return [*what, start, at, 0, value, ended]
    process, name, attributes, keyed, _ = what
    return [process, name, attributes, start, at, 0, value, ended, keyed]
