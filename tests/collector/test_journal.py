"""A collector that is killed has all that it acknowledged when it is back, also of processes that are no more."""

from __future__ import annotations

import os
import random
import stat
import time
from pathlib import Path

import pytest
from viewer_process import Viewer, start_viewer, wait_for

from openhands_otel._internal.collector.archive.journal import JOURNAL_LIMIT, Journal, JournalEntry
from openhands_otel._internal.collector.receive.receiver import Receiver
from openhands_otel._internal.collector.receive.span_intake import SpanIntake
from otlp_sender import Sender

from .held import HeldStore


def kill(viewer: Viewer) -> None:
    viewer.http.close()
    viewer.process.kill()
    viewer.process.wait()


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-requests*"))


def entry(number: int, size: int = 100) -> JournalEntry:
    return JournalEntry(bytes([number % 256]) * size, 1_000 + number, number % 2 == 0, number % 3 == 0, "gzip")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite3"


def test_what_was_acknowledged_is_there_after_kill_9(database: Path) -> None:
    """Stands for all that is answered 200 and written later: a process that has ended cannot say it again."""
    spent = 0.0
    for run in range(4):
        viewer = start_viewer(database=database)
        try:
            assert viewer.state().totals.accumulated_cost == pytest.approx(spent, abs=1e-12)
            for number in range(run * 20, run * 20 + 20):
                viewer.send(Sender(f"short-{number}").spend(0.25).converse(f"conversation-{number}", 0.25))
                spent += 0.25
        finally:
            kill(viewer)
    viewer = start_viewer(database=database)
    try:
        state = viewer.state()
        assert state.totals.accumulated_cost == pytest.approx(spent, abs=1e-12)
        assert sum(one.accumulated_cost for one in state.conversations) == pytest.approx(spent, abs=1e-12)
        wait_for(lambda: files(database.parent) == [], "the journal's end, once all is saved")
    finally:
        viewer.stop()


def test_nothing_is_left_behind_where_all_is_saved(database: Path) -> None:
    viewer = start_viewer(database=database)
    viewer.send(Sender("one").spend(0.5))
    assert viewer.stop() == 0
    assert files(database.parent) == []
    viewer = start_viewer(database=database)
    try:
        assert viewer.state().totals.accumulated_cost == 0.5
    finally:
        viewer.stop()


def test_a_record_that_was_being_written_hides_none_before_it(database: Path) -> None:
    journal = Journal(database)
    kept = [entry(number) for number in range(5)]
    for each in kept:
        journal.append(each)
    (file,) = files(database.parent)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for cut in range(file.stat().st_size - 1, 0, -37):
        os.truncate(file, cut)
        found = list(Journal(database).entries())
        assert found == kept[: len(found)]


@pytest.mark.parametrize(
    "left",
    [bytes(40), bytes(8192), b"\xff" * 100, random.Random(7).randbytes(5_000)],
    ids=["one empty record", "a page of zeros", "ones", "noise"],
)
def test_what_a_lost_machine_left_at_the_end_hides_nothing_and_stops_nobody(database: Path, left: bytes) -> None:
    """A file that had grown, and was not written when the power went, ends in zeros; or in whatever stood there."""
    journal = Journal(database)
    body = Sender("short").spend(0.25).converse("c", 0.25).body()
    journal.append(JournalEntry(body, time.time_ns(), False, False, "identity"))
    journal.close()
    (file,) = files(database.parent)
    with file.open("ab") as behind:
        behind.write(left)
    with HeldStore(database) as held:
        receiver = Receiver(held.store, SpanIntake(held.store, 0.0, 0))
        held.run(receiver.take_again())
        assert held.cost == 0.25
        # Before anything of it is saved another request comes, and the viewer is killed.
        later = Sender("later").spend(0.5).body()
        held.run(receiver.take("metrics", later, json=False, received=time.time_ns()))
        assert [each.body for each in Journal(database).entries()] == [body, later]


def test_an_earlier_file_waits_until_it_is_settled(database: Path) -> None:
    journal = Journal(database)
    journal.append(entry(1))
    journal.turn()
    journal.append(entry(2))
    journal.turn()  # the first still waits: nothing of it may go
    journal.append(entry(3))
    assert list(Journal(database).entries()) == [entry(1), entry(2), entry(3)]
    journal.settle()
    assert list(Journal(database).entries()) == [entry(2), entry(3)]


def test_it_does_not_grow_for_ever_where_nothing_can_be_saved(database: Path) -> None:
    journal = Journal(database)
    for number in range(70):
        journal.append(entry(number, 1024 * 1024))
    assert sum(file.stat().st_size for file in files(database.parent)) <= JOURNAL_LIMIT


def test_without_a_database_nothing_is_written(tmp_path: Path) -> None:
    journal = Journal(None)
    journal.append(entry(1))
    journal.turn()
    assert list(journal.entries()) == []
    assert list(tmp_path.iterdir()) == []
