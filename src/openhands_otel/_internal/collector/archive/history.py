"""What must outlive memory, in SQLite, in a thread of its own.

One thread does all reads and writes in the order they were asked for, so a read sees every write asked before it, and
the event loop never waits for a disk. Without a database file the same tables live in memory: there is one way only.
What may happen to the file meanwhile is database.py's business.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from openhands_otel._internal.collector.archive import blocks, forgotten, reading, span_forgetting, spans, spend
from openhands_otel._internal.collector.archive.database import DatabaseFile, Lost
from openhands_otel._internal.collector.archive.folding import fold_process
from openhands_otel._internal.collector.archive.forgetting import ErasureRequest, forget
from openhands_otel._internal.collector.archive.forgotten import Erasure
from openhands_otel._internal.collector.points.series import Attributes
from openhands_otel._internal.collector.spans.span import Span
from openhands_otel._internal.collector.state.placing import CONVERSATION_RECORDS, PROCESS_RECORDS, Booked, RecordKey
from openhands_otel._internal.collector.state.process import Process, Record
from openhands_otel._internal.collector.state.runs import Run
from openhands_otel._internal.collector.state.totals import TotalKey, TotalSums
from openhands_otel._internal.spend.handover import Handover

MEMORY_SAMPLE_LIMIT: Final = 200_000
"""Samples kept when there is no file to put them into."""
MEMORY_CONVERSATION_LIMIT: Final = 2_000
MEMORY_PROCESS_LIMIT: Final = 50_000
"""Conversations and processes kept then beside those that the store holds. A process that speaks again after its record
is gone would count as a new one, so of them there are many: they are small."""
SAMPLE_LIMIT: Final = 5_000_000
RECORD_LIMIT: Final = 200_000
"""The same for a file, which is a disk's affair: some hundred megabytes each."""
_TRIM_EVERY: Final = 200
"""Transactions after which a file is looked at for these limits."""

HistorySample = tuple[str, int, float, int, int, int]
"""Subject, unix seconds, cost, prompt tokens, completion tokens, calls."""


@dataclass(slots=True)
class Transaction:
    """What one transaction writes."""

    processes: list[tuple[Record, bool]] = field(default_factory=list[tuple[Record, bool]])
    """Records, each with whether it stays in memory."""
    conversations: list[tuple[Record, str, bool]] = field(default_factory=list[tuple[Record, str, bool]])
    """Records, each with the state that viewers see as JSON, and whether it stays in memory."""
    samples: list[HistorySample] = field(default_factory=list[HistorySample])
    spent: dict[RecordKey, list[Booked]] = field(default_factory=dict[RecordKey, "list[Booked]"])
    """What is booked with each record."""
    present: list[spend.Present] = field(default_factory=list[spend.Present])
    runs: list[Run] = field(default_factory=list[Run])

    def singles(self) -> Iterator[tuple[str, Transaction]]:
        """Each record in a batch of its own, with the key, id or subject that it is of."""
        for process in self.processes:
            key = PROCESS_RECORDS, process[0]["key"]
            yield key[1], Transaction(processes=[process], spent={key: self.spent.get(key, [])})
        for conversation in self.conversations:
            key = CONVERSATION_RECORDS, conversation[0]["id"]
            yield (
                key[1],
                Transaction(
                    conversations=[conversation],
                    spent={key: self.spent.get(key, [])},
                    present=[each for each in self.present if each[0] == key[1]],
                    runs=[run for run in self.runs if run.conversation == key[1]],
                ),
            )
        for sample in self.samples:
            yield f"the samples of {sample[0] or 'everything'}", Transaction(samples=[sample])

    def names(self) -> Iterator[str]:
        """Keys, ids and subjects of all that is in it."""
        return (name for name, _ in self.singles())


@dataclass(slots=True)
class Found:
    """What there is of some that are out of memory, by key of a process and id of a conversation."""

    processes: dict[str, Record]
    conversations: dict[str, Record]
    forgotten_processes: dict[str, Record] = field(default_factory=dict[str, Record])
    """What is kept of those without a record that somebody had forgotten."""
    forgotten_conversations: dict[str, Record] = field(default_factory=dict[str, Record])


@dataclass(slots=True)
class Restored:
    """What an earlier run of the collector left."""

    totals: TotalSums
    """Over all processes that ever were."""
    processes: list[Record]
    """Those that were in memory; the money of the others is in the totals only."""
    conversations: list[Record]
    conversation_count: int


class Archive:
    """The only door to the database. Methods without ``async`` run in its thread."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._file = DatabaseFile(path)
        self._writes = 0
        self.forgets = False
        """Whether there is anything that somebody had forgotten."""
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="openhands-otel-history")

    async def open(self) -> Restored:
        """Open or create the database and read what is needed at the start."""
        return await self._in_thread(self._open)

    async def write(self, batch: Transaction) -> None:
        """Raises Lost where nothing that was written before is there any more: see ``rebuild``."""
        await self._in_thread(lambda: self._write(batch))

    async def look(self) -> str | None:
        """See that what was written is still there. Returns what will be wrong with the file at the next start."""
        return await self._in_thread(self._look)

    async def rebuild(self, totals: Sequence[tuple[TotalKey, list[float]]]) -> None:
        """Begin a new database, with the sums of all that is not in memory as a whole, after Lost."""
        await self._in_thread(lambda: self._file.replace(lambda connection: _begin_anew(connection, totals)))

    async def find(self, processes: Sequence[str], conversations: Sequence[str]) -> tuple[list[Record], list[Record]]:
        """Records of those that are out of memory, where there are any."""
        found = await self.recall(processes, conversations)
        return list(found.processes.values()), list(found.conversations.values())

    async def recall(self, processes: Sequence[str], conversations: Sequence[str]) -> Found:
        """All that there is of those that are out of memory."""
        try:
            return await self._in_thread(lambda: self._recall(processes, conversations))
        except Lost:
            # Then there is nothing: the next round makes a database without them.
            return Found({}, {})

    async def forget(self, request: ErasureRequest, dry_run: bool) -> Erasure:
        """Erase what was asked for, while nobody else changes it; in a dry run tell only what that would come to."""
        return await self.change(lambda connection: forget(connection, request, dry_run))

    async def purge(self, older_than: float, dates_older_than: float = 0.0) -> None:
        """Forget what is older, but never the money; of older spend than ``dates_older_than`` the date."""
        await self.change(lambda connection: self._purge_from(connection, older_than, dates_older_than))

    async def read[T](self, ask: Callable[[sqlite3.Connection], T]) -> T:
        """What ``ask`` finds; it writes nothing."""
        return await self._in_thread(lambda: self._file.use(ask))

    async def add_up(self) -> bool:
        """Add up some of what questions are answered by; True where there may be more to do."""
        return await self.change(lambda connection: blocks.add_up(connection, time.time()))

    async def change[T](self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Have ``work`` write what is its own."""
        return await self._in_thread(lambda: self._file.write(work))

    async def take_read(self, handover: Handover) -> None:
        """Take in what was read from OpenHands' own files."""
        await self.change(lambda connection: reading.take(connection, handover))

    async def add_spans(self, added: Sequence[Span], received: float) -> int:
        """Take in spans that came at ``received`` (unix seconds); returns how many bytes they add."""
        return await self.change(lambda connection: spans.add(connection, added, received))

    async def trim_spans(self, older_than: float, excess: int) -> int:
        """Let go of a bounded number of old spans, or of the oldest while ``excess`` bytes are too many.

        Returns how many bytes are free by that; 0 where there was nothing to do.
        """
        return await self.change(lambda connection: spans.trim(connection, older_than, excess))

    async def close(self) -> None:
        await self._in_thread(self._close)
        self._executor.shutdown(wait=False)

    async def _in_thread[T](self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _open(self) -> Restored:
        self._file.open()
        self.forgets = bool(self._row("SELECT 1 FROM forgotten LIMIT 1", ()))
        return self._file.use(_read_restored)

    def _look(self) -> str | None:
        self._file.ensure()
        return self._file.warning()

    def _write(self, batch: Transaction) -> None:
        self._file.write(lambda connection: self._write_to(connection, batch))

    def _write_to(self, connection: sqlite3.Connection, batch: Transaction) -> None:
        with connection as database:
            database.executemany(
                "INSERT INTO processes (key, seen, resident, record) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE"
                " SET seen = excluded.seen, resident = excluded.resident, record = excluded.record",
                [
                    (record["key"], record["seen"], stays, json.dumps(record, separators=(",", ":")))
                    for record, stays in batch.processes
                ],
            )
            database.executemany(
                "INSERT INTO conversations (id, seen, resident, record, stats) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET seen = excluded.seen, resident = excluded.resident,"
                " record = excluded.record, stats = excluded.stats",
                [
                    (record["id"], record["seen"], stays, json.dumps(record, separators=(",", ":")), stats)
                    for record, stats, stays in batch.conversations
                ],
            )
            database.executemany("INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?, ?, ?)", batch.samples)
            for booked in batch.spent.values():
                spend.book(database, booked)
            reading.give_way(database, batch.present)
            spend.note_presence(database, batch.present)
            spend.note_runs(database, batch.runs)
            self._writes += 1
            if self.path is None or self._writes % _TRIM_EVERY == 0:
                self._trim(database, batch)

    def _trim(self, database: sqlite3.Connection, batch: Transaction) -> None:
        """Keep the newest, and the money of the others. Without a file all of this is memory."""
        samples = MEMORY_SAMPLE_LIMIT if self.path is None else SAMPLE_LIMIT
        conversations = MEMORY_CONVERSATION_LIMIT if self.path is None else RECORD_LIMIT
        processes = MEMORY_PROCESS_LIMIT if self.path is None else RECORD_LIMIT
        if batch.spent and self._writes % _TRIM_EVERY == 0:
            spend.trim(database, spend.MEMORY_ROW_LIMIT if self.path is None else spend.ROW_LIMIT)
        if batch.samples:
            newest = "SELECT max(rowid) FROM samples"
            database.execute(f"DELETE FROM samples WHERE rowid <= ({newest}) - ?", (samples,))
        if self.path is not None or not all(stays for *_, stays in (*batch.processes, *batch.conversations)):
            older = "NOT resident ORDER BY seen DESC LIMIT -1 OFFSET ?"
            ids = f"SELECT id FROM conversations WHERE {older}"
            database.execute(f"DELETE FROM conversations WHERE id IN ({ids})", (conversations,))
            keys = f"SELECT key FROM processes WHERE {older}"
            self._forget_processes(database, f"key IN ({keys})", processes)

    def _recall(self, processes: Sequence[str], conversations: Sequence[str]) -> Found:
        found = Found(self._records("processes", processes), self._records("conversations", conversations))
        if self.forgets:
            gone = [key for key in processes if key not in found.processes]
            found.forgotten_processes = self._file.use(lambda held: forgotten.find(held, PROCESS_RECORDS, gone))
            none = [name for name in conversations if name not in found.conversations]
            found.forgotten_conversations = self._file.use(
                lambda held: forgotten.find(held, CONVERSATION_RECORDS, none)
            )
        return found

    def _records(self, table: str, keys: Sequence[str]) -> dict[str, Record]:
        column = "key" if table == "processes" else "id"
        found: dict[str, Record] = {}
        for key in keys:
            row = self._row(f"SELECT record FROM {table} WHERE {column} = ?", (key,))
            if row is not None:
                found[key] = json.loads(row[0])
        return found

    def _rows(self, query: str, values: Sequence[object]) -> list[Any]:
        return self._file.use(lambda connection: connection.execute(query, values).fetchall())

    def _row(self, query: str, values: Sequence[object]) -> Any:
        return next(iter(self._rows(query, values)), None)

    def _purge_from(self, connection: sqlite3.Connection, older_than: float, dates_older_than: float) -> None:
        with connection as database:
            spend.forget_dates(database, dates_older_than)
            database.execute("DELETE FROM samples WHERE at < ?", (older_than,))
            database.execute("DELETE FROM forgotten WHERE at < ?", (min(older_than, dates_older_than),))
            span_forgetting.purge(database, min(older_than, dates_older_than))
            database.execute("DELETE FROM conversations WHERE seen < ? AND NOT resident", (older_than,))
            self._forget_processes(database, "seen < ? AND NOT resident", older_than)

    def _forget_processes(self, database: sqlite3.Connection, which: str, limit: float) -> None:
        for (record,) in database.execute(f"SELECT record FROM processes WHERE {which}", (limit,)):
            fold_process(database, json.loads(record))
        database.execute(f"DELETE FROM processes WHERE {which}", (limit,))

    def _close(self) -> None:
        self._file.close()


def _read_restored(connection: sqlite3.Connection) -> Restored:
    totals = TotalSums()
    for service, metric, attributes, partials in connection.execute("SELECT * FROM folded"):
        for partial in json.loads(partials):
            totals.replace(service, metric, _pairs(json.loads(attributes)), 0.0, partial)
    processes: list[Record] = []
    for text, resident in connection.execute("SELECT record, resident FROM processes"):
        record = cast(Record, json.loads(text))
        for metric, attributes, amount in Process.from_record(record).contributions():
            if amount:
                totals.replace(record["service"], metric, attributes, 0.0, amount)
        if resident:
            processes.append(record)
    conversations = [
        cast(Record, json.loads(record))
        for (record,) in connection.execute("SELECT record FROM conversations WHERE resident")
    ]
    (count,) = connection.execute("SELECT count(*) FROM conversations").fetchone()
    return Restored(totals, processes, conversations, count)


def _begin_anew(connection: sqlite3.Connection, totals: Sequence[tuple[TotalKey, list[float]]]) -> None:
    _write_totals(connection, totals)
    with connection as database:
        for (service, metric, attributes), partials in totals:
            spend.book_sum(database, service, metric, attributes, partials)
        spend.begin_dates(database, time.time())


def _write_totals(connection: sqlite3.Connection, totals: Sequence[tuple[TotalKey, list[float]]]) -> None:
    with connection as database:
        database.executemany(
            "INSERT OR REPLACE INTO folded VALUES (?, ?, ?, ?)",
            [
                (service, metric, json.dumps(attributes, separators=(",", ":")), json.dumps(partials))
                for (service, metric, attributes), partials in totals
            ],
        )


def _pairs(pairs: list[Any]) -> Attributes:
    return tuple((str(name), value) for name, value in pairs)
