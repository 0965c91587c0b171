"""``openhands-otel status``: one line, on the standard library alone."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from viewer_process import Viewer, running_viewer, wait_for

import faketime
from openhands_otel import semconv
from openhands_otel.semconv import RunOutcome
from otlp_sender import Sender

TWO_DAYS_AGO = ("env", f"LD_PRELOAD={faketime.LIBRARY}", "FAKETIME=-2d", "FAKETIME_DONT_FAKE_MONOTONIC=1")
COMMAND = [sys.executable, "-m", "openhands_otel", "status"]


def status(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=60)


def ended(sender: Sender, conversation: str, outcome: RunOutcome) -> Sender:
    attributes = {semconv.CONVERSATION_ID: conversation, semconv.RUN_OUTCOME: outcome.value}
    return sender.introduce(conversation).add(semconv.CONVERSATION_OUTCOME, 1, attributes)


def money_of_today(viewer: Viewer) -> float:
    return json.loads(status(viewer.url, "--json").stdout)["cost_today"]


def test_it_says_what_runs_what_it_costs_and_who_waits_for_a_person() -> None:
    with running_viewer() as viewer:
        sender = Sender("p").spend(0.75).introduce("a").converse("a", 0.5).state("a", "running")
        for number, outcome in enumerate(RunOutcome):
            ended(sender, f"c{number}", outcome)
        viewer.send(sender)
        wait_for(lambda: money_of_today(viewer) == 0.75, "what was sent to count as today's")
        result = status(viewer.url)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.startswith("$0.7500 today, $")
        assert result.stdout.endswith("/h, 1 running, 3 need you\n")
        as_json = json.loads(status(viewer.url, "--json").stdout)
        assert (as_json["cost_total"], as_json["running"], as_json["needs_you"]) == (0.75, 1, 3)
        assert status(viewer.url, "--format", "{running}|{needs_you}|{today}|{total}").stdout == "1|3|$0.7500|$0.7500\n"


@pytest.mark.skipif(faketime.LIBRARY is None, reason="libfaketime is not installed: apt-get install faketime")
def test_what_was_spent_before_midnight_is_not_todays(tmp_path: Path) -> None:
    database = tmp_path / "history.db"
    with running_viewer(database=database, wrapper=TWO_DAYS_AGO) as yesterday:
        yesterday.send(Sender("p").spend(0.5))
    with running_viewer(database=database) as today:
        assert money_of_today(today) == 0
        today.send(Sender("q").spend(0.25))
        wait_for(lambda: money_of_today(today) == 0.25, "what was sent to count as today's")
        assert status(today.url, "--format", "{total}").stdout == "$0.7500\n"


@pytest.mark.skipif(faketime.LIBRARY is None, reason="libfaketime is not installed: apt-get install faketime")
def test_what_a_clock_ahead_has_booked_is_not_todays(tmp_path: Path) -> None:
    database = tmp_path / "history.db"
    ahead = ("env", f"LD_PRELOAD={faketime.LIBRARY}", "FAKETIME=+2d", "FAKETIME_DONT_FAKE_MONOTONIC=1")
    with running_viewer(database=database, wrapper=ahead) as viewer:
        viewer.send(Sender("p").spend(0.5, at=time.time_ns() + 2 * 86_400 * 1_000_000_000))
    with running_viewer(database=database) as viewer:
        assert money_of_today(viewer) == 0
        assert status(viewer.url, "--format", "{total}").stdout == "$0.5000\n"


def test_a_token_is_asked_for_and_shown(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a-secret")
    with running_viewer(token="a-secret") as viewer:
        without = status(viewer.url)
        assert without.returncode == 1
        assert without.stderr.count("\n") == 1
        assert "--token-file" in without.stderr
        assert "today" in status(viewer.url, "--token-file", str(file)).stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["http://127.0.0.1:9"], "openhands-otel view"),
        (["nonsense"], "it should look like http://127.0.0.1:4318"),
        (["http://[::1"], "it should look like http://127.0.0.1:4318"),
        (["http://127.0.0.1:9", "--token-file", "/nowhere/token"], "/nowhere/token"),
        (["--json", "--format", "x"], "not allowed with"),
    ],
)
def test_what_is_wrong_is_one_line(options: list[str], said: str) -> None:
    result = status(*options)
    assert result.returncode in (1, 2)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert said in result.stderr


@pytest.mark.parametrize(
    "answer",
    ["{}", "[]", "7", "<html>", '{"cost_today": "1", "cost_per_hour": 0, "cost_total": 0, "running": "\\u001b[2J"}'],
)
@pytest.mark.parametrize("shape", [[], ["--json"]])
def test_what_is_no_viewer_is_called_none_whatever_it_answers(answer: str, shape: list[str]) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        serving = threading.Thread(target=other.serve_forever, daemon=True)
        serving.start()
        result = status(f"http://127.0.0.1:{other.server_port}", *shape)
        other.shutdown()
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "viewer" in result.stderr


@pytest.mark.parametrize("wanted", ["{", "{nothing}", "{today.a}", "{running[x]}", "{}"])
def test_a_format_that_cannot_be_filled_in_says_what_there_is(wanted: str) -> None:
    with running_viewer() as viewer:
        result = status(viewer.url, "--format", wanted)
    assert result.returncode == 2
    assert "today, hour, total" in result.stderr


def test_nothing_heavy_is_imported() -> None:
    """A prompt asks each time that it is drawn; pydantic and httpx alone take half a second to import."""
    loaded = "import sys, openhands_otel._internal.cli.status; print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout
    for heavy in ("pydantic", "httpx", "rich", "opentelemetry.sdk", "asyncio", "grpc", "email", "ssl", "dataclasses"):
        assert f"'{heavy}'" not in modules


@pytest.mark.parametrize(
    "command", [["status"], ["status", "--json"], ["watch", "--once"], ["watch", "--once", "--json"]]
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_an_output_that_takes_nothing_is_one_line_and_one_that_is_closed_none(command: list[str]) -> None:
    """Kind: what the output of a command does is not a fault of the command."""
    with running_viewer() as viewer:
        words = [sys.executable, "-m", "openhands_otel", *command, viewer.url]
        with open("/dev/full", "w") as full:
            result = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        assert (result.returncode, result.stderr.count("\n")) == (1, 1), result.stderr
        assert "cannot be written" in result.stderr
        closed = ["sh", "-c", '"$@" >&-', "sh", *words]
        result = subprocess.run(closed, stderr=subprocess.PIPE, text=True, timeout=60)
        assert (result.returncode, result.stderr) == (0, "")
