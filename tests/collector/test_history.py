"""What outlives the collector, and what it does with a file that it cannot use."""

from __future__ import annotations

import asyncio
import math
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from openhands_otel._internal.collector import housekeeping
from openhands_otel._internal.collector.archive import journal, upgrade
from openhands_otel._internal.collector.archive.database import DatabaseFile
from openhands_otel._internal.collector.archive.history import HistorySample, Transaction
from openhands_otel._internal.collector.archive.journal import JournalEntry
from openhands_otel._internal.collector.archive.questions import presence_from_file
from openhands_otel._internal.collector.archive.samples import EVERYTHING
from openhands_otel._internal.collector.archive.schema import UnusableDatabase, connect
from openhands_otel._internal.spend.rows import Dimension
from otlp_sender import Sender

from .held import HeldStore, as_layout


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite3"


def test_a_restart_finds_totals_and_conversations_as_they_were(database: Path) -> None:
    spent = [0.1, 0.2, 0.30000000000000004, 1e-9]
    with HeldStore(database) as held:
        for number, cost in enumerate(spent):
            sender = Sender(f"p{number}").spend(cost).introduce(f"c{number}", parent="c0" if number else None)
            held.take(sender.converse(f"c{number}", cost).state(f"c{number}", "running"))
        parts, conversations = held.store.breakdown(), held.store.all_stats()
    with HeldStore(database) as held:
        assert held.cost == math.fsum(spent)
        assert held.store.all_stats() == conversations
        again = held.store.breakdown()
        assert again.by_model == parts.by_model
        assert again.totals.conversations_seen == 4


def test_after_a_restart_a_retry_counts_once_and_the_process_counts_on(database: Path) -> None:
    sender = Sender("p")
    first = sender.spend(0.1).converse("c", 0.1).body()
    with HeldStore(database) as held:
        held.take_body(first)
    with HeldStore(database) as held:
        held.take_body(first)
        assert (held.cost, held.conversation("c").accumulated_cost) == (0.1, 0.1)
        held.take(sender.spend(0.3).converse("c", 0.3))
        assert (held.cost, held.conversation("c").accumulated_cost) == (0.3, 0.3)


def test_a_killed_collector_has_lost_only_what_it_had_not_saved(database: Path) -> None:
    held = HeldStore(database)
    held.__enter__()
    sender = Sender("p")
    held.take(sender.spend(0.1))
    held.run(held.housekeeping.save())
    held.take(sender.spend(0.2))
    held.run(held.store.archive.close())
    with HeldStore(database) as after:
        assert after.cost == 0.1
        after.take(sender.spend(0.3))
        assert after.cost == 0.3


def test_the_more_is_saved_the_longer_the_next_waits_unless_the_journal_grows_long(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crowd's records are not written at each of its requests; what a question needs is written when it is asked."""
    monkeypatch.setattr(housekeeping, "_SAVED_PER_S", 1e-9)
    with HeldStore(database) as held:
        held.take(Sender("p").converse("c", 0.1))
        held.run(held.housekeeping._round())
        assert held.store.unsaved() == []
        held.take(Sender("p").converse("c", 0.2))
        held.run(held.housekeeping._round())
        assert held.store.unsaved() == [("conversations", "c")]
        held.run(held.store.save_all())
        assert held.store.unsaved() == []
        held.take(Sender("p").converse("c", 0.3))
        monkeypatch.setattr(journal, "_LONG", 0)
        held.store.note(JournalEntry(b"as long as may be", 1, False, False, "identity"))
        held.run(held.housekeeping._round())
        assert held.store.unsaved() == []


def test_money_stays_when_its_process_is_forgotten(database: Path) -> None:
    old = time.time() - 3 * 86_400
    with HeldStore(database) as held:
        for number in range(5):
            held.take_body(Sender(f"old{number}").spend(0.1).body(), at=old)
        held.take(Sender("new").spend(0.1))
        held.run(held.housekeeping.save())
        held.run(held.housekeeping.let_go())
        held.run(held.store.archive.purge(time.time() - 86_400))
        assert held.cost == math.fsum([0.1] * 6)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM processes").fetchone() == (1,)
    with HeldStore(database) as held:
        assert held.cost == math.fsum([0.1] * 6)


def test_a_parent_holds_what_left_memory_over_a_restart_too(database: Path) -> None:
    with HeldStore(database, conversation_limit=10) as held:
        sender = Sender("p", start=1).introduce("top").converse("top", 1.0)
        late = sender.introduce("gone", parent="top").converse("gone", 0.5).body()
        held.take_body(late, at=1_000.0)
        for number in range(12):
            held.take(sender.introduce(f"c{number}").converse(f"c{number}", 0.1))
        held.housekeeping.notice_silence(time.time())
        held.run(held.housekeeping.let_go())
        assert "gone" not in held.store.conversations
        top = held.conversation("top") if "top" in held.store.conversations else None
    with HeldStore(database, conversation_limit=10) as held:
        assert "gone" not in held.store.conversations
        held.take_body(late)
        assert held.conversation("gone").accumulated_cost == 0.5
        assert held.conversation("top").tree_cost == 1.5
        assert top is None or top.tree_cost == 1.5


def test_history_is_bucketed_and_knows_what_was_before() -> None:
    with HeldStore() as held:
        samples = [(EVERYTHING, 100 + step, step * 0.5, step, 0, step) for step in range(60)]
        held.run(held.store.archive.write(_batch(samples)))
        history = held.history(EVERYTHING, 110, 200, 10)
        assert [(point.unix_s, point.accumulated_cost) for point in history.points] == [
            (119, 9.5),
            (129, 14.5),
            (139, 19.5),
            (149, 24.5),
            (159, 29.5),
        ]
        assert history.before is not None
        assert (history.before.unix_s, history.before.llm_calls) == (109, 9)


def test_each_conversation_has_a_history_of_its_own() -> None:
    with HeldStore() as held:
        held.take(Sender("p").spend(0.3).converse("c", 0.2))
        held.run(held.housekeeping.save())
        now = time.time()
        [point] = held.history("c", now - 60, now + 60, 1).points
        [total] = held.history(EVERYTHING, now - 60, now + 60, 1).points
        assert (point.accumulated_cost, total.accumulated_cost) == (0.2, 0.3)


def test_what_could_not_be_saved_is_saved_later(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HeldStore(database) as held:
        held.take(Sender("p").spend(0.2).converse("c", 0.2))
        with monkeypatch.context() as broken:
            broken.setattr(held.store.archive, "_write", _fail)
            with pytest.raises(sqlite3.OperationalError):
                held.run(held.housekeeping.save())
        held.run(held.housekeeping.save())
    with HeldStore(database) as held:
        assert (held.cost, held.conversation("c").accumulated_cost) == (0.2, 0.2)


def test_what_could_not_leave_memory_stays_whole(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with HeldStore(database, conversation_limit=10) as held:
        sender = Sender("p").introduce("top").converse("top", 1.0)
        for number in range(20):
            held.take_body(sender.introduce(f"c{number}", parent="top").converse(f"c{number}", 0.5).body(), at=1_000.0)
        held.housekeeping.notice_silence(time.time())
        with monkeypatch.context() as broken:
            broken.setattr(held.store.archive, "_write", _fail)
            with pytest.raises(sqlite3.OperationalError):
                held.run(held.housekeeping.let_go())
        assert len(held.store.conversations) == 21
        assert (held.conversation("top").tree_cost, held.conversation("top").descendants) == (11.0, 20)


@pytest.mark.parametrize("content", [b"no database at all\n", b"SQLite format 3\0" + bytes(84), bytes(4096)])
def test_a_file_that_is_not_ours_is_refused_and_left_as_it_was(database: Path, content: bytes) -> None:
    database.write_bytes(content)
    with pytest.raises(UnusableDatabase, match="--database"):
        connect(database)
    assert database.read_bytes() == content
    assert list(database.parent.iterdir()) == [database]


def test_another_programs_database_is_refused_and_left_as_it_was(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE accounts (name TEXT)")
    before = database.read_bytes()
    with pytest.raises(UnusableDatabase, match="another program"):
        connect(database)
    assert database.read_bytes() == before


def test_a_damaged_database_is_refused_and_left_as_it_was(database: Path) -> None:
    with HeldStore(database) as held:
        for number in range(200):
            held.take(Sender(f"p{number}").spend(0.1))
            held.run(held.housekeeping.save())
    content = bytearray(database.read_bytes())
    content[4096 : 4096 + 8192] = b"\xa5" * 8192
    database.write_bytes(content)
    with pytest.raises(UnusableDatabase, match=r"damaged|cannot be used"):
        connect(database)
    assert database.read_bytes() == bytes(content)


def test_a_database_of_a_later_layout_is_refused(database: Path) -> None:
    connect(database).close()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA user_version = 99")
        # Out of the write-ahead log and into the file.
        connection.execute("PRAGMA journal_mode = DELETE")
    with pytest.raises(UnusableDatabase, match="layout 99"):
        connect(database)


def test_a_later_layout_that_only_the_log_tells_of_is_refused_and_stays(database: Path) -> None:
    """A later release converts a file in its log, and the file's own header says nothing of it until that is full."""
    with HeldStore(database) as held:
        held.take(Sender("p").spend(0.2))
    later = f"""
import os, sqlite3
connection = sqlite3.connect({str(database)!r})
connection.executescript("BEGIN; CREATE TABLE later (x); PRAGMA user_version = 99; COMMIT")
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", later]).returncode == -signal.SIGKILL
    with pytest.raises(UnusableDatabase, match="layout 99"):
        DatabaseFile(database).open()
    with pytest.raises(UnusableDatabase, match="layout 99"):
        presence_from_file(database)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (99,)
    assert not list(database.parent.glob("*.layout-*"))


def test_an_empty_file_has_nothing_to_report(database: Path) -> None:
    database.touch()
    with pytest.raises(UnusableDatabase, match="layout 0"):
        presence_from_file(database)


def test_a_file_that_could_not_be_converted_is_as_it_was_and_leaves_no_copy(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tried again and again where the disk is full, copies would take what room is left."""
    with HeldStore(database) as held:
        held.take(Sender("p").spend(0.2))
    as_layout(database, 5)
    with monkeypatch.context() as full:
        full.setattr(upgrade, "convert", _fail)
        for _ in range(2):
            file = DatabaseFile(database)
            with pytest.raises(UnusableDatabase, match="full"):
                file.open()
            file.close()
    assert not list(database.parent.glob("*.layout-*"))
    with HeldStore(database) as held:
        assert held.cost == 0.2
    assert [each.name for each in database.parent.glob("*.layout-*")] == [f"{database.name}.layout-5"]


@pytest.mark.parametrize("named", ["as it is", "by a link"])
def test_a_second_collector_cannot_have_the_same_database(database: Path, named: str) -> None:
    other = database
    if named == "by a link":
        (database.parent / "elsewhere").mkdir()
        other = database.parent / "elsewhere" / "linked.sqlite3"
        other.symlink_to(database)
    with HeldStore(database), pytest.raises(UnusableDatabase, match="in use"):
        DatabaseFile(other).open()
    first = DatabaseFile(other)
    first.open()
    # As one that was damaged.
    first.replace(lambda connection: None)
    assert other.is_symlink() == (named == "by a link")
    for name in (database, other):
        with pytest.raises(UnusableDatabase, match="in use"):
            DatabaseFile(name).open()
    first.close()


@pytest.mark.parametrize("waits", ["the rounds", "a question", "a request"])
def test_what_is_cancelled_while_it_is_written_is_in_the_history_once(
    database: Path, monkeypatch: pytest.MonkeyPatch, waits: str
) -> None:
    """The end of the viewer, and a client that hangs up, cancel who waits. What the thread has written is written."""
    written, go_on = threading.Event(), threading.Event()
    with HeldStore(database, conversation_limit=10) as held:
        store, keeper = held.store, held.housekeeping
        for number in range(3):
            held.take(Sender(f"p{number}").spend(0.5).introduce(f"c{number}").converse(f"c{number}", 0.5))
        write = store.archive._write  # pyright: ignore[reportPrivateUsage]

        def write_slowly(batch: Transaction) -> None:
            write(batch)
            written.set()
            assert go_on.wait(100)

        async def cancel_in_the_middle() -> None:
            loop = asyncio.get_running_loop()
            if waits == "the rounds":
                keeper.start()
                waiting = asyncio.create_task(wait_and(keeper.stop))
            elif waits == "a question":
                waiting = asyncio.create_task(store.save_all())
            else:
                monkeypatch.setattr(type(store.fleet), "crowded", property(lambda _: not written.is_set()))
                monkeypatch.setattr(type(store.fleet), "silent", lambda *_: list(store.fleet.processes))
                waiting = asyncio.create_task(keeper.make_room())
            await loop.run_in_executor(None, written.wait, 100)
            waiting.cancel()
            loop.call_later(0.05, go_on.set)
            await asyncio.gather(waiting, return_exceptions=True)

        async def wait_and(stop: Callable[[], Awaitable[None]]) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await stop()

        with monkeypatch.context() as slow:
            slow.setattr(store.archive, "_write", write_slowly)
            held.run(cancel_in_the_middle())
        while held.run(keeper.save()):
            pass
        assert held.cost == 1.5
        for names in ((), (Dimension.CONVERSATION,), (Dimension.MODEL,)):
            spent = held.spent(*names)
            assert math.fsum(amount.cost.value for amount in spent.values()) == 1.5, names


def _batch(samples: list[HistorySample]) -> Transaction:

    return Transaction(samples=samples)


def _fail(_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")
