"""A full disk below what we write: agents go on, a line when it fails and one when it is well again, and no cent less.

The limit on a file's size stands for the disk: who writes gets his refusal from the kernel all the same.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from viewer_process import Viewer, running_viewer, start_viewer, wait_for

from openhands_folder import Call, write_conversation
from openhands_otel._internal.cli import main

from .conftest import Start
from .test_files import lines, total

FILE = "OPENHANDS_OTEL_FILE"
PROGRAM = """
import resource
import spending

def disk(bytes_):
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

made = spending.instrument()
spending.spend(2, conversation="c")
assert made.flush(50)
disk(3_000)
for _ in range(5):
    spending.spend(1, conversation="c")
    made.flush(0.3)
spending.mark("full")
disk(resource.RLIM_INFINITY)
spending.spend(1, conversation="c")
assert made.flush(50)
spending.mark("well")
"""


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[Viewer]:
    with running_viewer(database=tmp_path / "history.sqlite3") as viewer:
        yield viewer


@contextmanager
def full_disk(pid: int) -> Iterator[None]:
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("beside", [False, True], ids=["a file alone", "a file beside a viewer"])
def test_a_process_whose_file_cannot_grow_goes_on_and_makes_up_for_it(
    beside: bool, viewer: Viewer, start: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    child = start(PROGRAM, f"{viewer.url}/v1/metrics" if beside else "", **{FILE: str(folder)})
    assert child.wait() == 0, child.err
    assert [*child.marks] == ["full", "well"]
    assert total(lines(folder)) == pytest.approx(0.008, abs=1e-9)
    failed, well = child.log
    assert FILE in failed
    assert "again" in well
    if beside:
        assert viewer.state().totals.accumulated_cost == pytest.approx(0.008, abs=1e-9)


def test_a_viewer_without_room_takes_imports_and_keeps_them_once_there_is_some(
    viewer: Viewer, start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files and OpenHands' own folders; whoever is told that it was taken finds it after a restart."""
    files, theirs = tmp_path / "out", tmp_path / "openhands"
    child = start("import spending; spending.instrument(); spending.spend(5, 'c')", "", **{FILE: str(files)})
    assert child.wait() == 0
    write_conversation(theirs, *(Call(1_790_000_000.0 + number, 0.5) for number in range(4)))

    def import_all() -> list[int]:
        return [
            main(["import", str(files), "--endpoint", viewer.url]),
            main(["import", "--openhands", str(theirs), "--endpoint", viewer.url]),
        ]

    with full_disk(viewer.process.pid):
        # What processes tell is known to the viewer alone until there is room; what can be read again is not taken.
        assert import_all() == [0, 1]
        [problem] = capsys.readouterr().err.splitlines()
        assert "cannot be written" in problem
        wait_for(lambda: viewer.http.get("/healthz").status_code != 200, "health told")
    wait_for(lambda: viewer.http.get("/healthz").status_code == 200, "health well again")
    for _ in range(2):
        assert import_all() == [0, 0]
        spent = viewer.http.get("/api/v1/spend").json()["total"]
        assert spent["accumulated_cost"] == pytest.approx(2.005, abs=1e-9)
        assert spent["llm_calls"] == 9
    viewer.process.kill()
    viewer.process.wait()
    again = start_viewer(database=tmp_path / "history.sqlite3")
    try:
        assert again.http.get("/api/v1/spend").json()["total"] == spent
    finally:
        again.stop()
