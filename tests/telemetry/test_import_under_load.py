"""Imports while everything moves: agents that write, a viewer that is killed, two imports of the same at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from viewer_process import Viewer, start_viewer, wait_for

from openhands_folder import Call, write_conversation
from openhands_otel.stats import Spend

from .conftest import Start, refusing

AGENTS = 3
PROGRAM = """
import os, sys, time
import spending
made = spending.instrument()
spent = 0
while not os.path.exists({stop!r}):
    spending.spend(1, conversation=f"c{{spent % 3}}")
    spent += 1
    time.sleep(0.01)
assert made.flush(50)
spending.mark(f"spent-{{spent}}")
"""


def importing(viewer: Viewer, *words: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "openhands_otel", "import", "--endpoint", viewer.url, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(imports: Sequence[subprocess.Popen[str]]) -> list[int]:
    codes: list[int] = []
    for each in imports:
        said, _ = each.communicate(timeout=200)
        assert "Traceback" not in said
        codes.append(each.returncode)
    return codes


def wait_for_calls(viewer: Viewer, more: int) -> None:
    before = viewer.state().totals.llm_calls
    wait_for(lambda: viewer.state().totals.llm_calls >= before + more, "spend")


def spend(viewer: Viewer, by: str) -> Spend:
    return Spend.model_validate_json(viewer.http.get("/api/v1/spend", params={"by": by}).raise_for_status().content)


def test_nothing_counts_twice_and_nothing_is_lost(start: Start, tmp_path: Path) -> None:
    database, files, theirs = tmp_path / "history.sqlite3", tmp_path / "out", tmp_path / "openhands"
    for number in range(40):
        when = 1_790_000_000.0 + 900 * number
        write_conversation(theirs, *(Call(when + call, 0.25) for call in range(3)))
    both: list[tuple[str | Path, ...]] = [(files,), ("--openhands", theirs)]
    stop = tmp_path / "stop"
    with refusing() as port, refusing() as grpc_port:
        pass
    viewer = start_viewer(database=database, port=port, grpc_port=grpc_port)
    told = {"OPENHANDS_OTEL_FILE": str(files)}
    agents = [start(PROGRAM.format(stop=str(stop)), f"{viewer.url}/v1/metrics", **told) for _ in range(AGENTS)]
    try:
        wait_for(lambda: len([*files.glob("*.jsonl")]) == AGENTS, "the agents' files")
        for _ in range(2):
            imports = [importing(viewer, *words) for words in both * 2]
            wait_for_calls(viewer, 20)
            viewer.process.kill()
            viewer.process.wait()
            viewer = start_viewer(database=database, port=port, grpc_port=grpc_port)
            # Who has lost his viewer in the middle says so.
            assert set(finish(imports)) <= {0, 1}
        stop.touch()
        assert [agent.wait() for agent in agents] == [0] * AGENTS
        calls = sum(int(name.partition("-")[2]) for agent in agents for name in agent.marks)
        for times in (2, 1):
            assert set(finish([importing(viewer, *words) for words in both * times])) == {0}
            for by in ("", "conversation", "day,model"):
                found = spend(viewer, by)
                assert found.total.accumulated_cost == pytest.approx(calls * 0.001 + 40 * 3 * 0.25, abs=1e-9)
                assert found.total.read_cost == pytest.approx(30.0, abs=1e-9)
                assert found.total.llm_calls == calls + 120
            assert viewer.state().totals.accumulated_cost == pytest.approx(calls * 0.001, abs=1e-9)
    finally:
        stop.touch()
        viewer.stop()
