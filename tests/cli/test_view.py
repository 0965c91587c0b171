"""``openhands-otel view`` as a user starts and stops it."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from viewer_process import EXECUTED, running_viewer, start_viewer

from otlp_sender import Sender

COMMAND = [sys.executable, "-m", "openhands_otel", "view"]


def refused(*options: str, **environment: str) -> str:
    """The one line on standard error of a start that fails."""
    result = subprocess.run(
        [*COMMAND, *options], capture_output=True, text=True, timeout=100, env=os.environ | environment
    )
    assert result.returncode != 0
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    return line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_listens_in_two_lines_and_stops_on_a_signal(number: signal.Signals) -> None:
    command = [*COMMAND, "--port", "0", "--grpc-port", "0", "--database", ":memory:"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        assert re.search(r"http://127\.0\.0\.1:\d+ .*127\.0\.0\.1:\d+", first)
        assert "Ctrl+C" in second
        process.send_signal(number)
        rest, errors = process.communicate(timeout=100)
        assert (process.returncode, rest, errors) == (0, "", "")
    finally:
        process.kill()
        process.wait()


def test_told_to_stop_again_and_again_it_ends_without_a_word(tmp_path: Path) -> None:
    with (tmp_path / "errors").open("w") as errors:
        viewer = start_viewer(stderr=errors, wrapper=EXECUTED)
        assert isinstance(viewer.process, subprocess.Popen)
        viewer.http.close()
        while viewer.process.poll() is None:
            viewer.process.send_signal(signal.SIGTERM)
            time.sleep(0.0005)
    # Python gives a signal back its own meaning shortly before the process is gone.
    assert viewer.process.returncode in (0, -signal.SIGTERM)
    assert (tmp_path / "errors").read_text() == ""


def test_the_history_is_kept_in_the_users_state_directory_unless_told_otherwise(tmp_path: Path) -> None:
    environment = os.environ | {"XDG_STATE_HOME": str(tmp_path)}
    command = [*COMMAND, "--port", "0", "--grpc-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        assert str(tmp_path / "openhands-otel" / "history.sqlite3") in process.stdout.readline()
    finally:
        process.terminate()
        assert process.wait(100) == 0
    assert (tmp_path / "openhands-otel" / "history.sqlite3").stat().st_size > 0


def test_totals_and_conversations_survive_a_restart(tmp_path: Path) -> None:
    database = tmp_path / "h.sqlite3"
    with running_viewer(database=database) as viewer:
        sender = Sender("p").spend(0.1, model="a").spend(0.2, model="b").introduce("c")
        viewer.send(sender.converse("c", 0.30000000000000004))
        before = viewer.state()
        assert viewer.stop() == 0
    with running_viewer(database=database) as viewer:
        after = viewer.state()
    assert after.totals.accumulated_cost == before.totals.accumulated_cost
    assert after.conversations == before.conversations


def test_a_killed_viewer_has_what_it_saved_and_starts_again(tmp_path: Path) -> None:
    database = tmp_path / "h.sqlite3"
    viewer = start_viewer(database=database)
    sender = Sender("p").spend(0.1)
    viewer.send(sender)
    body = sender.spend(0.3).body()
    viewer.process.kill()
    viewer.process.wait(100)
    with running_viewer(database=database) as viewer:
        assert viewer.state().totals.accumulated_cost in {0.0, 0.1}
        viewer.post(body)
        assert viewer.state().totals.accumulated_cost == 0.3


@pytest.mark.parametrize("option", ["--port", "--grpc-port"])
def test_a_port_in_use_is_one_line_that_names_it(option: str) -> None:
    other = "--grpc-port" if option == "--port" else "--port"
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        line = refused(option, port, other, "0", "--database", ":memory:")
    assert f"port {port}" in line
    assert option in line


def test_an_unreadable_database_is_one_line_and_stays_as_it_was(tmp_path: Path) -> None:
    noise = tmp_path / "noise.sqlite3"
    noise.write_bytes(b"not a database")
    foreign = tmp_path / "foreign.sqlite3"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE accounts (name TEXT)")
    for path in (noise, foreign, tmp_path):
        before = path.read_bytes() if path.is_file() else None
        line = refused("--port", "0", "--grpc-port", "0", "--database", str(path))
        assert str(path) in line
        assert "--database" in line
        assert (path.read_bytes() if path.is_file() else None) == before


def test_a_database_in_use_is_one_line(tmp_path: Path) -> None:
    database = tmp_path / "h.sqlite3"
    with running_viewer(database=database):
        assert "in use" in refused("--port", "0", "--grpc-port", "0", "--database", str(database))


def test_other_machines_are_not_served_without_a_token() -> None:
    assert "--token-file" in refused("--host", "0.0.0.0", "--port", "0", "--grpc-port", "0")


def test_a_setting_that_cannot_be_used_is_one_line_that_names_it() -> None:
    assert "OPENHANDS_OTEL_VIEWER_PORT" in refused(OPENHANDS_OTEL_VIEWER_PORT="many")
    assert "--port" in refused("--port", "many")


def test_a_token_file_guards_the_viewer(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    with running_viewer("--token-file", str(token)) as viewer:
        assert viewer.http.get("/api/v1/state").status_code == 401
        assert viewer.http.get("/api/v1/state", headers={"authorization": "Bearer s3cret"}).status_code == 200
