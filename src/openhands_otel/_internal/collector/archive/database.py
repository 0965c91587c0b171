"""The file that the history is in: ours alone to write, open to readers, and looked after while we run.

SQLite goes on writing to a file that is no longer there, and believes its cache where the file has been overwritten. So
before each use it is asked whether file and log are still what was left. A file that was deleted or replaced is made
anew out of the one that is still open; one that is damaged is set aside, and memory has to fill a new one (Lost).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Final

from openhands_otel._internal.collector.archive import schema
from openhands_otel._internal.collector.archive.schema import UnusableDatabase
from openhands_otel._internal.collector.archive.upgrade import upgrade
from openhands_otel._internal.log import logger

try:
    import fcntl
except ModuleNotFoundError:  # Windows: SQLite's own exclusive lock has to do (schema.connect).
    fcntl = None

_REOPEN_AFTER: Final = 4
"""Failures in a row after which a fresh connection may do better: one that was opened read-only stays so."""
_RUINED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

_OVERWRITTEN: Final = "the database was overwritten by something else"


Identity = tuple[int, int] | None
"""Device and inode; None where there is no file."""


class Lost(Exception):
    """What the file held cannot be read any more: what memory holds must be written anew (DatabaseFile.replace)."""


class DatabaseFile:
    """One database. Used by one thread at a time."""

    def __init__(self, path: Path | None) -> None:
        # The file itself, whatever links lead to it: by another name it is the same file, and is locked so.
        self.path = None if path is None else path.resolve()
        self._connection: sqlite3.Connection | None = None
        self._lock: int | None = None
        self._identities: tuple[Identity, ...] = ()
        self._content: tuple[int, int] = (0, 0)
        self._failures = 0
        self._ruin: str | None = None

    @property
    def connection(self) -> sqlite3.Connection:
        if self._ruin is not None:
            raise Lost(self._ruin)
        if self._connection is None:
            raise UnusableDatabase("the database is not open")
        return self._connection

    def open(self) -> None:
        """Raises UnusableDatabase."""
        if self.path is not None:
            # Before anything is left beside it: a file that is not ours stays as it was.
            schema.check(self.path)
            self._take_lock(self.path)
        self._connect()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                connection.close()
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def ensure(self) -> None:
        """Have a file that what is written now will be found in.

        Raises Lost, UnusableDatabase, sqlite3.Error or OSError.
        """
        if self.path is None:
            return
        if self._ruin is not None:
            raise Lost(self._ruin)
        if self._connection is None or self._failures >= _REOPEN_AFTER:
            self._take_lock(self.path)
            self._connect()
        elif what := self._displaced(_identities(self.path)):
            self._make_anew(self.path, what)
        elif self._content != _content(self.path):
            self._verify(self.path)

    def _displaced(self, found: tuple[Identity, ...]) -> str | None:
        """What happened to the file or to what stands beside it; None if all are those that are open."""
        file, *beside = zip(self._identities, found, strict=True)
        if file[0] != file[1]:
            return "replaced" if file[1] else "deleted"
        # Log and index are made when they are needed, by a reader too.
        return "parted from its log" if any(before and before != now for before, now in beside) else None

    def write[T](self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Have ``work`` write into a file that is there. Raises as ``ensure`` does.

        What changed in the file meanwhile is taken for ours, as far as it is the same file, and a database still.
        """
        self.ensure()
        result = self.use(work)
        if self.path is not None and self._displaced(_identities(self.path)) is None:
            if self._content != _content(self.path) and not schema.begins_well(self.path):
                self._ruin = _OVERWRITTEN
                raise Lost(self._ruin)
            self._note(self.path)
        return result

    def use[T](self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something with the connection, and learn from how it goes."""
        connection = self.connection
        try:
            result = work(connection)
        except sqlite3.Error as error:
            self._failures += 1
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _RUINED:
                self._ruin = f"the database is damaged ({error})"
                raise Lost(self._ruin) from error
            raise
        self._failures = 0
        return result

    def warning(self) -> str | None:
        """What will be wrong with the file at the next start, though it can be written now."""
        if self.path is None or not self.path.exists():
            return None
        # The superuser may write everything; the mark still tells what was meant.
        if not (os.access(self.path, os.W_OK) and self.path.stat().st_mode & 0o200):
            return f"{self.path} is read-only: make it writable (chmod u+w)"
        if not os.access(self.path.parent, os.W_OK):
            return f"{self.path.parent} is read-only: make it writable (chmod u+w)"
        return None

    def replace(self, fill: Callable[[sqlite3.Connection], None]) -> None:
        """Set what is there aside and put a new file in its place, filled before anybody can see it."""
        if self.path is None:
            raise UnusableDatabase("a database in memory cannot be replaced")
        self._take_lock(self.path)
        fresh = _beside(self.path, "new")
        _remove(fresh)
        connection = schema.connect(fresh)
        try:
            fill(connection)
        finally:
            connection.close()
        aside = self._set_aside(self.path, "damaged")
        self._swap(self.path, fresh)
        logger.warning("history: %s was damaged and is now %s; a new one holds the totals", self.path, aside)

    def _make_anew(self, path: Path, what: str) -> None:
        """The file that is still open has everything: copy it to where it belongs."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._take_lock(path)
        fresh = _beside(path, "new")
        try:
            _remove(fresh)
            copy = sqlite3.connect(fresh)
            try:
                self.connection.backup(copy)
            finally:
                copy.close()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _RUINED:
                raise
            self._ruin = f"the database was {what}, and what was in it cannot be read ({error})"
            raise Lost(self._ruin) from error
        taken = _identity(path) not in {None, self._identities[0]}
        aside = self._set_aside(path, "replaced") if taken else None
        self._swap(path, fresh)
        moved = f", and what took its place is now {aside}" if aside else ""
        logger.warning("history: %s was %s while in use; it is written anew%s", path, what, moved)

    def _swap(self, path: Path, fresh: Path) -> None:
        # The old connection first: at its end SQLite removes the log by its name, whosever that is by then.
        old, self._connection = self._connection, None
        with contextlib.suppress(sqlite3.Error):
            if old is not None:
                old.close()
        _remove(path)
        os.replace(fresh, path)
        self._connect()

    def _set_aside(self, path: Path, why: str) -> Path:
        aside = _free(path, f"{why}-{time.strftime('%Y%m%d-%H%M')}")
        for part in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{path}{part}", f"{aside}{part}")
        return aside

    def _verify(self, path: Path) -> None:
        """Somebody else wrote into the file: is it still one?"""
        try:
            sound = path.stat().st_size > 0 and schema.is_sound(path)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _RUINED:
                raise
            sound = False
        if not sound:
            self._ruin = _OVERWRITTEN
            raise Lost(self._ruin)
        self._note(path)

    def _connect(self) -> None:
        # The new one before the old one goes: an old one that cannot write may still be read.
        connection = schema.connect(self.path, in_use=self._connection is not None)
        if self.path is not None:
            self._upgrade(connection, self.path)
        old, self._connection = self._connection, connection
        self._failures, self._ruin = 0, None
        with contextlib.suppress(sqlite3.Error):
            if old is not None:
                old.close()
        if self.path is not None:
            self._note(self.path)

    def _upgrade(self, connection: sqlite3.Connection, path: Path) -> None:
        try:
            aside = upgrade(connection, path)
        except BaseException as error:
            connection.close()
            if isinstance(error, (sqlite3.Error, OSError)):
                schema.refuse(path, error)
            raise
        if aside is not None:
            logger.warning("history: %s was of an older layout and is converted; the file as it was is %s", path, aside)

    def _note(self, path: Path) -> None:
        self._identities, self._content = _identities(path), _content(path)

    def _take_lock(self, path: Path) -> None:
        """Be the only collector that writes this file; the lock goes with the process, however it ends."""
        if fcntl is None:
            return
        beside = _beside(path, "lock")
        if self._lock is not None and _identity(beside) == _stamp(os.fstat(self._lock)):
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            schema.refuse(path, error)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            schema.refuse(path, "locked")
        except OSError:
            # A file system without locks: as good as one can have it there.
            os.close(lock)
            return
        if self._lock is not None:
            os.close(self._lock)
        self._lock = lock


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}.{what}")


def _free(path: Path, what: str) -> Path:
    """A name beside a file that nothing has: what was set aside a moment ago may be all that is left of the history."""
    names = (what if number == 1 else f"{what}-{number}" for number in count(1))
    return next(aside for aside in (_beside(path, name) for name in names) if not aside.exists())


def _remove(path: Path) -> None:
    for part in ("", "-wal", "-shm"):
        Path(f"{path}{part}").unlink(missing_ok=True)


def _stamp(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino


def _identity(path: Path) -> Identity:
    try:
        return _stamp(path.stat())
    except FileNotFoundError:
        return None


def _identities(path: Path) -> tuple[Identity, ...]:
    return tuple(_identity(Path(f"{path}{part}")) for part in ("", "-wal", "-shm"))


def _content(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_size, found.st_mtime_ns
