"""What may happen to the database while the viewer runs: deleted, overwritten, full, locked, read by others.

The kind of fault: something that worked at the start is taken to work for ever. Each time the live totals go on, health
says what is wrong for as long as it is, and what a restart finds is what was shown.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import socket
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from viewer_process import PROTOBUF, start_viewer, wait_for

from openhands_otel._internal.collector.archive.database import DatabaseFile, Lost
from openhands_otel._internal.collector.archive.schema import is_sound
from openhands_otel._internal.collector.receive.grpc_receiver import GrpcReceiver
from openhands_otel._internal.collector.server import Collector
from openhands_otel.settings import ViewerSettings
from otlp_sender import Sender

from .held import HeldStore

PATIENCE_S = 60


class Running:
    """A viewer with a database of its own, and a process that spends."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "state" / "history.sqlite3"
        self.viewer = start_viewer(database=self.database)
        self._sender = Sender("p")
        self.spent = 0.0

    def spend(self) -> None:
        """One more dollar, which must be seen at once, by a conversation too."""
        self.spent += 1.0
        self.viewer.send(self._sender.spend(self.spent).converse("c", self.spent))
        state = self.viewer.state()
        assert state.totals.accumulated_cost == state.conversations[0].accumulated_cost == self.spent

    def health(self) -> str:
        response = self.viewer.http.get("/healthz")
        return "" if response.status_code == 200 else response.text

    def wait_until_saved(self) -> None:
        """What is shown stands in the file that has the database's name, and health says so."""
        wait_for(lambda: self.saved() == self.spent and not self.health(), f"${self.spent} saved", PATIENCE_S)

    def saved(self) -> float | None:
        try:
            with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as reader:
                (cost,) = reader.execute("SELECT max(cost) FROM samples WHERE subject = ''").fetchone()
                return cost
        except sqlite3.Error:
            return None

    def assert_a_restart_would_find_all_of_it(self) -> None:
        """What is in the files now is what a viewer that was killed now would leave."""
        with tempfile.TemporaryDirectory() as folder:
            for part in ("", "-wal"):
                shutil.copy(f"{self.database}{part}", folder)
            with HeldStore(Path(folder) / self.database.name) as held:
                assert held.cost == self.spent
                assert held.conversation("c").accumulated_cost == self.spent
                # A retry of the last point counts once: the process is known, not its total only.
                held.take(self._sender.spend(self.spent))
                assert held.cost == self.spent


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = Running(tmp_path_factory.mktemp("trouble"))
    try:
        yield made
    finally:
        made.viewer.stop()


@pytest.fixture
def running(one: Running) -> Running:
    one.spend()
    one.wait_until_saved()
    return one


def delete(database: Path) -> None:
    database.unlink()


def delete_with_log(database: Path) -> None:
    for part in ("", "-wal", "-shm"):
        Path(f"{database}{part}").unlink(missing_ok=True)


def delete_folder(database: Path) -> None:
    shutil.rmtree(database.parent)


def delete_log(database: Path) -> None:
    Path(f"{database}-wal").unlink()


def replace_by_nonsense(database: Path) -> None:
    other = database.with_name("other")
    other.write_bytes(b"something else entirely\n" * 500)
    os.replace(other, database)


def overwrite(database: Path) -> None:
    content = bytearray(database.read_bytes())
    content[:] = b"\xa5" * len(content)
    with database.open("r+b") as file:
        file.write(content)


def truncate(database: Path) -> None:
    os.truncate(database, 0)


HARMS = pytest.mark.parametrize(
    "harm",
    [delete, delete_with_log, delete_folder, delete_log, replace_by_nonsense, overwrite, truncate],
    ids=lambda harm: harm.__name__,
)


@HARMS
def test_a_file_that_is_gone_or_ruined_is_made_anew_with_everything(
    running: Running, harm: Callable[[Path], None]
) -> None:
    harm(running.database)
    running.spend()
    running.wait_until_saved()
    running.spend()
    running.wait_until_saved()
    running.assert_a_restart_would_find_all_of_it()


@HARMS
def test_what_happens_to_a_file_while_it_is_written_is_seen_at_the_next_look(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """Kind: what somebody else did is taken for what our own write did to the file, and never seen again."""
    path = tmp_path / "state" / "history.sqlite3"
    file = DatabaseFile(path)
    file.open()

    def write(connection: sqlite3.Connection) -> None:
        with connection:
            connection.execute("INSERT INTO samples VALUES ('', 1, 0.5, 0, 0, 0)")
        harm(path)

    try:
        try:
            file.write(write)
            file.ensure()
        except Lost:
            file.replace(lambda _: None)
        assert is_sound(path)
    finally:
        file.close()


def test_a_deleted_file_comes_back_though_nobody_spends(running: Running) -> None:
    running.database.unlink()
    wait_for(lambda: running.saved() is not None, "the file came back", PATIENCE_S)
    running.assert_a_restart_would_find_all_of_it()


def test_a_full_disk_shows_in_health_and_saving_resumes(running: Running) -> None:
    """The limit on a file's size stands for the disk: SQLite gets the same refusal from the kernel."""
    pid = running.viewer.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    running.spend()
    wait_for(lambda: "history" in running.health(), "health told", PATIENCE_S)
    running.spend()
    assert running.viewer.state().receiver.problems
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    running.wait_until_saved()
    running.assert_a_restart_would_find_all_of_it()


def test_a_writer_that_keeps_the_lock_shows_in_health_and_saving_resumes(running: Running) -> None:
    with closing(sqlite3.connect(running.database)) as other:
        other.execute("BEGIN IMMEDIATE")
        running.spend()
        wait_for(lambda: "locked" in running.health(), "health told", PATIENCE_S)
        # A process that is new has to be looked up, which a lock does not hinder.
        running.viewer.send(Sender("new").spend(0.0))
        running.spend()
        other.rollback()
    running.wait_until_saved()
    running.assert_a_restart_would_find_all_of_it()


def test_a_file_that_became_read_only_shows_in_health(running: Running) -> None:
    running.database.chmod(0o400)
    wait_for(lambda: "read-only" in running.health(), "health told", PATIENCE_S)
    running.spend()
    running.database.chmod(0o600)
    running.wait_until_saved()
    running.assert_a_restart_would_find_all_of_it()


def test_others_may_read_while_the_viewer_writes(running: Running) -> None:
    with closing(sqlite3.connect(f"file:{running.database}?mode=ro", uri=True)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM processes").fetchone() != (0,)
        running.spend()
        wait_for(lambda: running.saved() == running.spent, "the viewer wrote beside a reader", PATIENCE_S)
    assert not running.health()


def test_a_second_viewer_cannot_have_the_same_database(running: Running) -> None:
    with pytest.raises(AssertionError, match="ended with code 1"):
        start_viewer(database=running.database)
    assert not running.health()


def test_a_ruined_file_costs_no_money_of_those_who_have_left_memory(tmp_path: Path) -> None:
    database = tmp_path / "history.sqlite3"
    with HeldStore(database) as held:
        for number in range(30):
            held.take_body(Sender(f"old{number}").spend(0.1, model=f"m{number % 3}").body(), at=time.time() - 7200)
        new = Sender("new")
        held.take(new.spend(0.7))
        make_rounds(held, 2)
        assert len(held.store.fleet.processes) == 1
        before = held.store.breakdown()
        overwrite(database)
        make_rounds(held, 3)
        assert held.store.health.problems == ()
        assert list(tmp_path.glob("*.damaged-*"))
        held.take(new.spend(0.7))
        assert held.store.breakdown().by_model == before.by_model
    with HeldStore(database) as held:
        assert held.store.breakdown().by_model == before.by_model
        assert held.cost == before.totals.accumulated_cost


def test_what_was_set_aside_is_never_written_over(tmp_path: Path) -> None:
    """The first of two that were ruined within a minute has the history, and the second what was spent since."""
    database = tmp_path / "history.sqlite3"
    with HeldStore(database) as held:
        for number in range(2):
            held.take(Sender(f"p{number}").spend(0.1))
            make_rounds(held, 2)
            overwrite(database)
            make_rounds(held, 3)
            assert held.store.health.problems == ()
            assert len([each for each in tmp_path.glob("*.damaged-*") if not each.name.endswith("-wal")]) == number + 1


def make_rounds(held: HeldStore, count: int) -> None:
    for _ in range(count):
        held.housekeeping._due.clear()  # pyright: ignore[reportPrivateUsage]
        held.run(held.housekeeping._round())  # pyright: ignore[reportPrivateUsage]


def test_an_end_in_which_a_part_fails_closes_and_saves_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    database = tmp_path / "history.sqlite3"

    stop = GrpcReceiver.stop

    async def fail(receiver: GrpcReceiver) -> None:
        await stop(receiver)
        raise RuntimeError("no")

    async def run_and_stop() -> int:
        collector = Collector(ViewerSettings(port=0, grpc_port=0, database=database))
        await collector.start()
        async with httpx.AsyncClient(trust_env=False) as client:
            response = await client.post(
                f"{collector.url}/v1/metrics", content=Sender("p").spend(1.5).body(), headers=PROTOBUF
            )
            assert response.status_code == 200
        monkeypatch.setattr(GrpcReceiver, "stop", fail)
        await collector.stop()
        return collector.http_port

    port = asyncio.run(run_and_stop())
    assert "OTLP/gRPC could not be closed as it should: no" in caplog.text
    with socket.create_server(("127.0.0.1", port)), HeldStore(database) as held:
        assert held.cost == 1.5


def test_a_record_that_cannot_be_written_keeps_no_other_from_it(tmp_path: Path) -> None:
    """Whatever it is that SQLite refuses in one record: here a time that is no number, which is NULL to it."""
    database = tmp_path / "history.sqlite3"
    with HeldStore(database) as held:
        for number in range(3):
            held.take(Sender(f"p{number}").spend(1.0).converse(f"c{number}", 1.0))
        poisoned = held.store.fleet.processes["agent\x1fp1"]
        seen, poisoned.seen = poisoned.seen, float("nan")
        held.store.conversations.by_id["c1"].seen = float("nan")
        make_rounds(held, 1)
        assert held.run(held.store.archive.find(["agent\x1fp0", "agent\x1fp2"], ["c0", "c2"])) != ([], [])
        assert len(held.run(held.store.archive.find([f"agent\x1fp{n}" for n in range(3)], ()))[0]) == 2
        [problem] = held.store.health.problems
        assert "cannot be saved" in problem
        assert "and 1 more" in problem
        # Anybody may ask for it, and who may look at one service alone sees it too.
        assert not any(name in problem for name in ("agent", "p1", "c1"))
        poisoned.seen = held.store.conversations.by_id["c1"].seen = seen
        make_rounds(held, 2)
        assert held.store.health.problems == ()
    with HeldStore(database) as held:
        assert held.cost == 3.0
        assert len(held.store.conversations) == 3


def test_a_step_that_fails_ends_neither_the_rounds_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of our own in any step: logged once with its trace, told by health, and the other steps are made."""
    database = tmp_path / "history.sqlite3"
    with HeldStore(database) as held:
        held.take(Sender("p").spend(1.0))
        with monkeypatch.context() as broken:
            broken.setattr(held.store, "look_at_lives", lambda ahead: 1 / 0)  # pyright: ignore
            make_rounds(held, 3)
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "ZeroDivisionError" in held.store.health.problems[0]
        assert held.store.health.errors["housekeeping"] == 3
        make_rounds(held, 1)
        assert held.store.health.problems == ()
        assert held.run(held.store.archive.find(["agent\x1fp"], ())) != ([], [])
