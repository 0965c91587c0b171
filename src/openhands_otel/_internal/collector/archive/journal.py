"""Requests that were acknowledged and are not in the database yet: a killed collector reads them when it starts again.

Changes reach the database some four times a second, those of a crowd every few seconds. A process that ended just
before a ``kill -9`` would not say a second time what was acknowledged in between, so each body is appended to a file
before it is acknowledged: written, not synced, which outlives the process, not the machine. Two files take turns.
``turn`` begins a new one when a round of saving begins; ``settle`` deletes what came before once all that it changed is
saved. Replaying is harmless: the rules of ``series.py`` make a request that is taken twice count once.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openhands_otel._internal.collector.state.placing import RecordKey

JOURNAL_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of one file. Beyond them nothing is appended: saving has failed for long, and health says so."""
_LONG: Final = JOURNAL_LIMIT // 8
"""Bytes from which saving should not wait."""
_HEADER: Final = struct.Struct("<IQ??16s")
"""Length of the body, and the fields of an JournalEntry in their order."""


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One request as it was sent; ``received`` in unix nanoseconds, ``coding`` is its content encoding."""

    body: bytes
    received: int
    json: bool
    replayed: bool
    coding: str


class Journal:
    """Beside a database; without one (None) nothing is kept. An OSError is the caller's to note."""

    def __init__(self, database: Path | None) -> None:
        self._current = None if database is None else database.with_name(f"{database.name}-requests")
        self._before = None if database is None else database.with_name(f"{database.name}-requests.old")
        self.misses = False
        """Whether a request could not be written whose changes may not be saved yet."""
        self._descriptor: int | None = None
        self._size = 0 if self._current is None or not self._current.exists() else self._current.stat().st_size

    @property
    def is_empty(self) -> bool:
        """Whether nothing was appended since the last turn."""
        return self._size == 0

    @property
    def is_long(self) -> bool:
        """Whether much was appended since the last turn, so that saving should not wait."""
        return self._size > _LONG

    @property
    def waits(self) -> bool:
        """Whether an earlier file is there that is not settled."""
        return self._before is not None and self._before.exists()

    def append(self, entry: JournalEntry) -> None:
        """Add one request; raises OSError where it cannot be written."""
        coding = entry.coding.encode()
        record = _HEADER.pack(len(entry.body), entry.received, entry.json, entry.replayed, coding) + entry.body
        if self._current is None or self._size + len(record) > JOURNAL_LIMIT:
            return
        try:
            self._write(self._current, record)
        except OSError:
            self.misses = True
            raise

    def _write(self, current: Path, record: bytes) -> None:
        if self._descriptor is None:
            self._descriptor = os.open(current, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        written = os.write(self._descriptor, record)
        self._size += written
        if written < len(record):
            # The disk is full. What stands half written would hide what comes after it.
            os.ftruncate(self._descriptor, self._size - written)
            self._size -= written
            raise OSError("the disk is full")

    def turn(self) -> None:
        """Begin a new file; what was appended until now waits to be settled. Nothing happens while something waits."""
        if self._current is None or self._before is None or self.is_empty or self.waits:
            return
        self.close()
        self._size = 0
        # Somebody may have deleted it: then there is nothing that could wait.
        with contextlib.suppress(FileNotFoundError):
            os.replace(self._current, self._before)

    def settle(self) -> None:
        """All that stood in the file before the last turn is saved: delete it."""
        self.misses = False
        if self._before is not None:
            self._before.unlink(missing_ok=True)

    def entries(self) -> Iterator[JournalEntry]:
        """What an earlier run left, oldest first. A record that was being written when it ended is left out, and taken
        out: it would hide what comes after it."""
        for file in (self._before, self._current):
            if file is None:
                continue
            whole = 0
            for entry, end in _read(file):
                whole = end
                yield entry
            if file is self._current and whole < self._size:
                os.truncate(file, whole)
                self._size = whole

    def close(self) -> None:
        """Close the file; ``append`` opens it again."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
        self._descriptor = None


class Settling:
    """When the file before the last turn may go: once each record that was changed by then has been saved."""

    def __init__(self, journal: Journal, changed: Callable[[], Iterable[RecordKey]]) -> None:
        self._journal = journal
        self._changed = changed
        # An earlier run's file is in memory by now, and nothing of it is saved.
        self._unsaved = set(changed())

    def begin(self) -> None:
        """A round of saving begins."""
        if not self._journal.waits:
            self._journal.turn()
            self._unsaved = set(self._changed())

    def saved(self, records: Iterable[RecordKey]) -> None:
        """These are in the database."""
        self._unsaved.difference_update(records)

    def end(self) -> None:
        """A round of saving has ended. What is marked no longer left memory meanwhile, and was saved as it did."""
        self._unsaved &= set(self._changed())
        if not self._unsaved and (self._journal.waits or self._journal.misses):
            self._journal.settle()


def _read(file: Path) -> Iterator[tuple[JournalEntry, int]]:
    """Its records, each with where it ends."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return
    at = 0
    while at + _HEADER.size <= len(content):
        length, received, json, replayed, coding = _HEADER.unpack_from(content, at)
        body = content[at + _HEADER.size : at + _HEADER.size + length]
        coded = coding.rstrip(b"\0")
        if len(body) < length or not coded.isalpha():
            # Torn, or what a machine that lost its power has left of it: nothing, or zeros.
            return
        at += _HEADER.size + length
        yield JournalEntry(body, received, json, replayed, coded.decode("ascii")), at
