"""``openhands-otel watch`` as programs and people use it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from viewer_process import Viewer, running_viewer, wait_for

from openhands_otel import semconv
from openhands_otel.stats import State
from otlp_sender import Sender

COLOR = re.compile(rb"\x1b\[(?:\d+;)*(?:[34][0-7]|[34]8;[25];[\d;]+|9[0-7]|10[0-7])(?:;\d+)*m")
COMMAND = [sys.executable, "-m", "openhands_otel", "watch"]


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        sender = Sender("p").spend(0.75).introduce("parent-1").converse("parent-1", 0.5).state("parent-1", "running")
        sender.introduce("child-01", parent="parent-1").converse("child-01", 0.25)
        viewer.send(sender)
        yield viewer


def watch(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=100)


def test_once_as_json_is_the_state(viewer: Viewer) -> None:
    result = watch(viewer.url, "--once", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    state = State.model_validate_json(result.stdout)
    assert state.totals.accumulated_cost == 0.75
    assert {stats.conversation_id for stats in state.conversations} >= {"parent-1", "child-01"}


def test_once_is_a_table_in_plain_text_for_a_pipe(viewer: Viewer) -> None:
    result = watch(viewer.url, "--once")
    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    lines = result.stdout.splitlines()
    assert lines[0].startswith("$0.7500")
    parent = next(index for index, line in enumerate(lines) if "parent-1" in line)
    assert "running" in lines[parent]
    assert "$0.5000" in lines[parent]
    assert "child-01" in lines[parent + 1], "children stand under their parents"


def test_it_follows_in_plain_lines_for_a_pipe(viewer: Viewer) -> None:
    process = subprocess.Popen([*COMMAND, viewer.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        wait_for(lambda: viewer.state().receiver.viewers, "the connection of the one that watches")
        viewer.send(Sender("q").converse("other", 0.125).state("other", "running"))
        line = process.stdout.readline()
        assert "other" in line
        assert "$0.1250" in line
        process.send_signal(signal.SIGINT)
        assert process.wait(100) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.wait()


def test_it_follows_in_lines_of_json_for_programs(viewer: Viewer) -> None:
    process = subprocess.Popen([*COMMAND, viewer.url, "--json"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["type"] == "snapshot"
        viewer.send(Sender("r").converse("third", 0.125))
        updates = (json.loads(line) for line in process.stdout)
        told = next(update for update in updates if update["type"] == "conversation")
        assert told["conversation"]["accumulated_cost"] == 0.125
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("no_color", [False, True])
def test_on_a_terminal_it_draws_and_honours_no_color(viewer: Viewer, no_color: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "30"}
    if no_color:
        environment["NO_COLOR"] = "1"
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, viewer.url], stdin=follower, stdout=follower, stderr=follower, env=environment
    )
    os.close(follower)
    try:
        shown = _read_until(leader, b"parent-1")
        # Sub-agents are folded at first, as on the page.
        os.write(leader, b"*")
        shown += _read_until(leader, b"child-01")
        process.send_signal(signal.SIGINT)
        shown += _read_until(leader, b"\x1b[?1049l")
        assert process.wait(100) == 0
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert b"$0.7500" in shown
    assert (COLOR.search(shown) is not None) is not no_color
    assert b"Traceback" not in shown


def test_nobody_there_is_one_line() -> None:
    for options in (("--once",), ("--once", "--json"), ()):
        result = watch("http://127.0.0.1:1", *options)
        assert result.returncode == 1
        assert result.stdout == ""
        [line] = result.stderr.splitlines()
        assert "http://127.0.0.1:1" in line


def test_a_token_is_read_from_a_file(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    with running_viewer(token="s3cret") as viewer:
        assert watch(viewer.url, "--once", "--token-file", str(token)).returncode == 0
        refused = watch(viewer.url, "--once")
        assert refused.returncode == 1
        assert "token" in refused.stderr
        missing = watch(viewer.url, "--once", "--token-file", str(tmp_path / "none"))
        assert len(missing.stderr.splitlines()) == 1


def _read_until(descriptor: int, wanted: bytes) -> bytes:
    shown = b""
    deadline = time.monotonic() + 100
    while wanted not in shown:
        assert time.monotonic() < deadline, shown[-500:]
        if select.select([descriptor], [], [], 0.1)[0]:
            try:
                shown += os.read(descriptor, 65_536)
            except OSError:
                break
    return shown


def test_what_is_refused_and_what_does_not_work_stands_under_the_totals(tmp_path: Path) -> None:
    """The kind of fault: the receiver knows, and nobody who watches does. Text of the sender's is shown, not obeyed."""
    database = tmp_path / "history.sqlite3"
    with running_viewer(database=database) as viewer:
        assert "not taken" not in watch(viewer.url, "--once").stdout
        for _ in range(2):
            viewer.post(Sender("evil \x1b]0;pwned\x07\n", service="rogue").add(semconv.COST, 1e300).body())
        lines = watch(viewer.url, "--once").stdout.splitlines()
        [line] = [line for line in lines if line.startswith("not taken from rogue, ")]
        assert r"evil \x1b]0;pwned\x07\n: 2 points, last " in line
        assert "openhands.llm.cost has the value 1e+300" in line
        told = json.loads(watch(viewer.url, "--once", "--json").stdout)
        assert told["receiver"]["refusals"][0]["points"] == 2
        database.chmod(0o400)
        wait_for(lambda: "is read-only" in watch(viewer.url, "--once").stdout, "the problem is shown", 60)
