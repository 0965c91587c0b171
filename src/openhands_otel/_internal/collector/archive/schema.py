"""The database's tables, and the check that a file is ours before anything is written to it."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Final, NoReturn

from openhands_otel._internal.host.state_folder import keep_private

APPLICATION_ID: Final = 0x4F484F54
"""SQLite's mark for whose file it is: OHOT."""
_MAGIC: Final = b"SQLite format 3\0"
SCHEMA_VERSION: Final = 6
FIRST_VERSION: Final = 1
"""Layouts from this one on are converted (upgrade.py)."""

BLOCK_S: Final = 10_800
"""Three hours. Where days begin on no full three hours, rows of three hours a day are read beside the blocks."""
SUMS: Final = (
    "dollars", "fine", "rest", "savings", "prompt", "completion", "cache_read", "cache_write", "reasoning", "calls",
    "unpriced", "seconds",
)  # fmt: skip
"""What is added up, of spend and of blocks of it. A cost is dollars + fine / 2**30 + rest: whole numbers add up without
rounding, whoever adds them."""

_SPEND_COLUMNS: Final = """
    cube INTEGER NOT NULL, quarter INTEGER NOT NULL, place INTEGER NOT NULL, dollars INTEGER NOT NULL,
    fine INTEGER NOT NULL, rest REAL NOT NULL, savings REAL NOT NULL, prompt INTEGER NOT NULL,
    completion INTEGER NOT NULL, cache_read INTEGER NOT NULL, cache_write INTEGER NOT NULL,
    reasoning INTEGER NOT NULL, calls INTEGER NOT NULL, unpriced INTEGER NOT NULL, seconds REAL NOT NULL,
    PRIMARY KEY (cube, quarter, place)
"""

SPEND_TABLES: Final = f"""
CREATE TABLE places (
    id INTEGER PRIMARY KEY, cube INTEGER NOT NULL, conversation TEXT NOT NULL, service TEXT NOT NULL,
    namespace TEXT NOT NULL, labels TEXT NOT NULL, own_labels TEXT NOT NULL, provider TEXT NOT NULL,
    model TEXT NOT NULL, role TEXT NOT NULL, agent TEXT NOT NULL, usage_id TEXT NOT NULL, cost_source TEXT NOT NULL,
    run TEXT NOT NULL,
    UNIQUE (cube, conversation, service, namespace, labels, own_labels, provider, model, role, agent, usage_id,
            cost_source, run)
);
CREATE TABLE spend ({_SPEND_COLUMNS}) WITHOUT ROWID;
CREATE TABLE presence (
    conversation TEXT NOT NULL, process TEXT NOT NULL, since REAL NOT NULL, until REAL NOT NULL,
    PRIMARY KEY (conversation, process)
) WITHOUT ROWID;
CREATE TABLE runs (
    conversation TEXT NOT NULL, number INTEGER NOT NULL, begun REAL, ended REAL, outcome TEXT, error TEXT,
    cost REAL NOT NULL DEFAULT 0, calls INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (conversation, number)
) WITHOUT ROWID;
CREATE INDEX runs_begun ON runs (begun);
CREATE TABLE dates (name TEXT PRIMARY KEY, unix_s REAL NOT NULL);
CREATE TABLE forgotten (key TEXT PRIMARY KEY, at REAL NOT NULL, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE salt (salt TEXT NOT NULL);
CREATE TABLE erasures (
    at REAL NOT NULL, asked TEXT NOT NULL, row_count INTEGER NOT NULL, cost REAL NOT NULL, calls INTEGER NOT NULL
);
"""
"""What was spent by quarter-hour and place (spend.py), who held which conversation when, since when there are dates,
what stands for what is forgotten (forgotten.py)."""


SPANS_TABLES: Final = """
CREATE TABLE spans (
    id INTEGER PRIMARY KEY, received REAL NOT NULL, size INTEGER NOT NULL, trace TEXT NOT NULL, span TEXT NOT NULL,
    parent TEXT NOT NULL, conversation TEXT NOT NULL, service TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
    started INTEGER NOT NULL, ended INTEGER NOT NULL, labels TEXT NOT NULL, facts TEXT NOT NULL, details TEXT NOT NULL,
    UNIQUE (trace, span)
);
CREATE INDEX spans_conversation ON spans (conversation, kind);
CREATE INDEX spans_service ON spans (service);
CREATE INDEX spans_size ON spans (size);
CREATE TABLE erased_spans (key TEXT PRIMARY KEY, at INTEGER NOT NULL, rule TEXT NOT NULL) WITHOUT ROWID;
"""
"""Spans in the order in which they came (spans.py), and what keeps those that are erased from coming back
(span_forgetting.py). Times are unix nanoseconds, but for ``received``, in seconds."""


def _changed(what: str, row: str) -> str:
    """A trigger that makes the block of a row stale, unless it is."""
    cube, block = f"{row}.cube", f"{row}.quarter / {BLOCK_S} * {BLOCK_S}"
    return f"""
CREATE TRIGGER spend_{what.lower()} AFTER {what} ON spend
    WHEN NOT EXISTS (SELECT 1 FROM stale WHERE cube = {cube} AND block = {block})
BEGIN
    INSERT INTO stale VALUES ({cube}, {block});
    DELETE FROM blocks WHERE cube = {cube} AND quarter = {block};
END;
"""


BLOCKS: Final = f"""
CREATE TABLE blocks ({_SPEND_COLUMNS}) WITHOUT ROWID;
CREATE TABLE stale (cube INTEGER NOT NULL, block INTEGER NOT NULL, PRIMARY KEY (cube, block)) WITHOUT ROWID;
INSERT INTO stale SELECT DISTINCT cube, quarter / {BLOCK_S} * {BLOCK_S} FROM spend;
{_changed("INSERT", "NEW")}{_changed("UPDATE", "NEW")}{_changed("DELETE", "OLD")}
"""
"""Sums of spend by three hours, and which of them are to be made anew (blocks.py)."""

TOOL_CALLS: Final = "ALTER TABLE runs ADD COLUMN tool_calls INTEGER NOT NULL DEFAULT 0;\n"
"""Of each run."""

CALL_TIMES: Final = "CREATE INDEX spans_call_times ON spans (ended, started) WHERE kind = 'call';\n"
"""How long LLM calls took, by when they ended: percentiles of a period are read from it alone (latency.py)."""

LAYOUTS: Final = {2: SPEND_TABLES, 3: SPANS_TABLES, 4: BLOCKS, 5: TOOL_CALLS, 6: CALL_TIMES}
"""What each layout has brought to the one before. What stands here is not changed: there are files of it."""

_CREATE: Final = f"""
BEGIN;
CREATE TABLE processes (key TEXT PRIMARY KEY, seen REAL NOT NULL, resident INTEGER NOT NULL, record TEXT NOT NULL);
CREATE TABLE conversations (
    id TEXT PRIMARY KEY, seen REAL NOT NULL, resident INTEGER NOT NULL, record TEXT NOT NULL, stats TEXT NOT NULL
);
CREATE INDEX conversations_resident ON conversations (resident, seen);
CREATE INDEX processes_resident ON processes (resident, seen);
CREATE TABLE samples (
    subject TEXT NOT NULL, at INTEGER NOT NULL, cost REAL NOT NULL, prompt INTEGER NOT NULL,
    completion INTEGER NOT NULL, calls INTEGER NOT NULL, UNIQUE (subject, at)
);
CREATE INDEX samples_at ON samples (at);
CREATE TABLE folded (
    service TEXT NOT NULL, metric TEXT NOT NULL, attributes TEXT NOT NULL, partials TEXT NOT NULL,
    PRIMARY KEY (service, metric, attributes)
);
{"".join(LAYOUTS.values())}
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""

_ADVICE: Final = "move it away or name another file with --database"


class UnusableDatabase(Exception):
    """The file cannot be used; the message is one line that says why and what to do."""


def connect(path: Path | None, in_use: bool = False) -> sqlite3.Connection:
    """Open a database of ours, or make one where there is none. A file that is not ours is left as it was.

    ``in_use``: this process has it open already, which is why it is known to be ours.
    """
    if path is None:
        connection = sqlite3.connect(":memory:")
        connection.executescript(_CREATE)
        return connection
    if not in_use:
        check(path)
    try:
        new = _is_new(path)
        keep_private(path)
        connection = sqlite3.connect(path, timeout=0.2)
    except (OSError, sqlite3.Error) as error:
        refuse(path, error)
    try:
        _prepare(connection, path, new)
    except sqlite3.Error as error:
        connection.close()
        refuse(path, error)
    except UnusableDatabase:
        connection.close()
        raise
    return connection


def check(path: Path) -> None:
    """Raise UnusableDatabase if there is a file that is not ours. Not while it is open: see _check_header."""
    try:
        if not _is_new(path):
            _check_header(path)
    except OSError as error:
        refuse(path, error)


def is_sound(path: Path) -> bool:
    """Whether the file is a whole database of ours, as a reader that knows nothing of it finds it."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=0.2)
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        return application == APPLICATION_ID and connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    finally:
        connection.close()


def begins_well(path: Path) -> bool:
    """Whether the file begins as every database of SQLite does: that costs nothing, and tells what was written over."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except FileNotFoundError:
        # Deleted or moved away, which is seen by its name.
        return True


def _is_new(path: Path) -> bool:
    return not path.exists() or path.stat().st_size == 0


def _prepare(connection: sqlite3.Connection, path: Path, new: bool) -> None:
    # Two collectors that write one history would each overwrite what the other knows. database.py keeps them apart by
    # a lock beside the file, so that others may read it; collectors of before held the file itself.
    if sys.platform == "win32":
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    connection.commit()
    if new:
        # Before the switch to WAL, so that the mark stands in the file itself from the first moment.
        connection.executescript(_CREATE)
    else:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise UnusableDatabase(f"{path} is damaged ({' '.join(verdict.split())}): {_ADVICE}")
        # The header may be older than the log, in which a later release has left its mark when it was killed.
        check_layout(path, connection.execute("PRAGMA user_version").fetchone()[0])
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


def _check_header(path: Path) -> None:
    # Read as plain bytes: looking at somebody else's file through SQLite might already change it. Closing the file
    # takes this process' own locks away from it (POSIX), so it must not be open through SQLite yet.
    with path.open("rb") as file:
        header = file.read(100)
    version, application = int.from_bytes(header[60:64]), int.from_bytes(header[68:72])
    if not header.startswith(_MAGIC):
        raise UnusableDatabase(f"{path} is not a database: {_ADVICE}")
    if application != APPLICATION_ID:
        raise UnusableDatabase(f"{path} is a database of another program: {_ADVICE}")
    check_layout(path, version)


def check_layout(path: Path, version: int) -> None:
    """Raise UnusableDatabase for a layout that is not known here."""
    if not FIRST_VERSION <= version <= SCHEMA_VERSION:
        raise UnusableDatabase(f"{path} has layout {version} and this release reads {SCHEMA_VERSION}: {_ADVICE}")


def refuse(path: Path, error: Exception | str) -> NoReturn:
    if "locked" in str(error):
        raise UnusableDatabase(
            f"{path} is in use by another program, another viewer say: stop it or name another file with --database"
        ) from None
    raise UnusableDatabase(f"{path} cannot be used as a database ({error}): {_ADVICE}") from None
