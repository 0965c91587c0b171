"""Kinds of fault: a stranger's text does something to the terminal of whoever looks; numbers are cut, names are not.

A real terminal (tmux) tells what has become of it: its title, and what stands in which row and column.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from tmux_terminal import Terminal, needs_tmux, opened_terminal
from viewer_process import Viewer, running_viewer, wait_for

from openhands_otel import semconv
from openhands_otel._internal.terminal.live import Live
from openhands_otel._internal.terminal.once import render
from openhands_otel._internal.terminal_text import printable_json
from openhands_otel.stats import BurnRate, ConversationStats, SnapshotUpdate, State, Totals
from otlp_sender import Sender

WATCH = [sys.executable, "-m", "openhands_otel", "watch"]
TITLE = "\x1b]0;pwned\x07"
HOSTILE = {
    "title": TITLE,
    "screen": "\x1b[2J\x1b[31mred",
    "rows": "one\ntwo\r\nthree\u2028four\x85five",
    "eight": "\x9b2J\x9d0;pwned\x9c",
    "turned": "\u202etxt.exe\u2066",
    "hidden": "a\u200bb\ufeffc\U000e0041d\x7fe\x00f",
    "markup": "[bold red]x[/] [link=http://evil]y",
    "wide": "模型模型",
}


@pytest.fixture(scope="module")
def hostile_viewer() -> Iterator[Viewer]:
    """All names that a sender can choose, once with each of what may be in them."""
    with running_viewer() as viewer:
        sender = Sender("p", service=TITLE).spend(0.75)
        for name, text in HOSTILE.items():
            identity = {semconv.CONVERSATION_ID: text + name}
            sender.converse(text + name, 0.25, model=text, role=text).state(text + name, text)
            sender.now(text + name, text, 1.0)
            sender.add(semconv.CONVERSATION_INFO, 1, identity | {semconv.AGENT_NAME: text})
        viewer.send(sender)
        yield viewer


def acts(text: str) -> list[str]:
    """Characters that a terminal does not simply show."""
    return [character for character in text if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


def test_once_is_a_row_for_each_conversation_and_nothing_but_text(hostile_viewer: Viewer) -> None:
    result = subprocess.run([*WATCH, hostile_viewer.url, "--once"], capture_output=True, timeout=100)
    lines = result.stdout.decode().removesuffix("\n").split("\n")
    assert acts("".join(lines)) == []
    rows = [line.rstrip() for line in lines if "$0.2500" in line]
    assert len(rows) == len(HOSTILE)
    assert r"\x1b]0;pwned\x07" in "".join(lines)
    assert "[bold red]x[/]" in "".join(lines), "markup is text as well"
    cost = {cell_len(row[: row.index("$0.2500")]) for row in rows}
    assert len(cost) == 1, "wide characters leave the columns where they are"


@pytest.mark.parametrize("options", [["--once", "--json"], ["--json"]])
def test_json_holds_all_of_it_and_does_nothing(options: list[str], hostile_viewer: Viewer) -> None:
    with subprocess.Popen([*WATCH, hostile_viewer.url, *options], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        raw = process.stdout.read() if "--once" in options else process.stdout.readline()
        process.terminate()
    text = raw.decode()
    assert acts(text.replace("\n", "")) == []
    document = json.loads(text)
    state = State.model_validate(document if "--once" in options else SnapshotUpdate.model_validate(document).state)
    assert {stats.activity for stats in state.conversations} == set(HOSTILE.values())
    assert "模型" in text, "what is only foreign stays readable"


def test_json_is_the_same_document_whatever_is_in_it() -> None:
    codes = (*range(0xD800), *range(0xE000, 0x10000), *range(0x1F600, 0x1F650), *range(0xE0000, 0xE01F0), 0x10FFFF)
    everything = "".join(map(chr, codes))
    document = json.dumps({"text": everything, "list": ["\x7f"]}, ensure_ascii=False, indent=2)
    shown = printable_json(document)
    assert acts(shown.replace("\n", "")) == []
    assert json.loads(shown) == json.loads(document)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with opened_terminal(tmp_path, 110, 30) as opened:
        yield opened


@needs_tmux
@pytest.mark.parametrize("how", ["", "--once", "--once --json", "| cat"])
def test_a_real_terminal_keeps_its_title_its_screen_and_its_rows(
    how: str, hostile_viewer: Viewer, terminal: Terminal
) -> None:
    title = terminal.title
    command = " ".join([*WATCH, hostile_viewer.url, how])
    terminal.enter(f"printf 'a%s\\n' bove; {command}")
    if how == "| cat":
        wait_for(lambda: hostile_viewer.state().receiver.viewers, "the connection of the one that watches", timeout=100)
        hostile_viewer.send(Sender("q").converse(TITLE + "new", 0.125, model=TITLE).state(TITLE + "new", TITLE))
    last = {"": "$0.2500", "--once": "$0.2500", "--once --json": "server_unix_nano", "| cat": "$0.1250"}[how]
    wait_for(lambda: any(last in line for line in terminal.screen), "what is to be shown", timeout=100)
    screen = terminal.screen
    assert terminal.title == title
    assert not any(line.strip() == "pwned" for line in screen)
    if how in ("", "--once"):
        rows = [line for line in screen if "$0.2500" in line]
        assert len(rows) == len(HOSTILE), screen
    if how == "--once":
        assert any(line.startswith("above") for line in screen), "nobody cleared it"


def test_an_error_is_one_line_of_text(hostile_viewer: Viewer) -> None:
    for words in (["no\x1b]0;pwned\x07such"], ["watch", f"http://{TITLE}"], ["run", "--", "./no\u202ething\n"]):
        result = subprocess.run([*WATCH[:-1], *words], capture_output=True, timeout=100)
        (line,) = result.stderr.decode().splitlines()
        assert acts(line) == []
        assert line.startswith("openhands-otel: ")


def test_where_a_terminal_knows_few_characters_there_is_a_line_all_the_same(hostile_viewer: Viewer) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for options in (["--once"], ["--once", "--json"]):
        result = subprocess.run(
            [*WATCH, hostile_viewer.url, *options], capture_output=True, timeout=100, env=environment
        )
        assert (result.returncode, result.stderr) == (0, b"")
        assert rb"\u6a21\u578b" in result.stdout


def drawn(width: int, *conversations: ConversationStats, totals: Totals | None = None) -> list[str]:
    console = Console(width=width, file=open(os.devnull, "w"), record=True, color_system=None)  # noqa: SIM115
    live = Live(lambda: 1000.0)
    live.apply(SnapshotUpdate(state=State(totals=totals or Totals(), conversations=conversations)))
    console.print(render(live, console.width))
    return console.export_text().splitlines()


def stats(**more: object) -> ConversationStats:
    known = {"conversation_id": "75cea060-11", "agent": "an agent with a very long name", "status": "running"}
    return ConversationStats.model_validate(known | {"model_name": "a-model-with-a-very-long-name-2026"} | more)


@pytest.mark.parametrize("width", [40, 50, 60, 70, 80, 100, 120, 160])
@pytest.mark.parametrize("cost", [0.00001, 0.1234, 1_234_567.89, -0.5])
@pytest.mark.parametrize("status", ["running", "waiting_for_confirmation", "stuck"])
def test_cost_and_status_are_never_cut_and_names_give_way(width: int, cost: float, status: str) -> None:
    wide = "模型" * 20
    lines = drawn(
        width,
        stats(accumulated_cost=cost, status=status, llm_calls=123_456, activity="terminal", activity_since=900.0),
        stats(conversation_id="b" * 36, agent=wide, model_name=wide, activity=wide, tree_cost=cost, descendants=3),
        totals=Totals(accumulated_cost=cost, burn=BurnRate(per_hour=cost), llm_calls=10**9),
    )
    assert max(map(cell_len, lines)) <= width
    shown = {0.00001: "$0.000010", 0.1234: "$0.1234", 1_234_567.89: "$1,234,567.89", -0.5: "-$0.5000"}[cost]
    (row,) = (line for line in lines if "75cea060" in line)
    assert shown in row
    assert {"running": "running", "waiting_for_confirmation": "waits for you", "stuck": "stuck"}[status] in row
    assert not re.search(r"\$[\d.,]*…|,\d*…", "".join(lines)), "no number is cut"


def test_a_model_without_a_price_has_its_name_and_says_so() -> None:
    free = stats(conversation_id="free", model_name="local", llm_calls=2)
    unknown = stats(conversation_id="unknown", model_name="my-own", llm_calls=2, unpriced_calls=2)
    partly = stats(conversation_id="partly", model_name="both", llm_calls=2, unpriced_calls=1, accumulated_cost=0.5)
    lines = {line.split()[0]: line for line in drawn(80, free, unknown, partly) if line.strip()}
    assert "local" in lines["free"]
    assert "$0.00" in lines["free"]
    assert "my-own" in lines["unknown"]
    assert "no price" in lines["unknown"]
    assert "$0.5000+" in lines["partly"], "a lower bound looks like one"


# ---------------------------------------------------------------- the report

REPORT = [sys.executable, "-m", "openhands_otel", "report"]
FORMS = ["", "--json", "--csv", "--markdown", "--focus"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("by", ["model,role", "conversation", "service"])
def test_a_report_does_nothing_but_show(by: str, form: str, hostile_viewer: Viewer) -> None:
    words = [*REPORT, "--viewer", hostile_viewer.url, "--last", "all", "--by", by, *form.split()]
    result = subprocess.run(words, capture_output=True, timeout=100, env=os.environ | {"COLUMNS": "70"})
    assert (result.returncode, result.stderr) == (0, b"")
    lines = result.stdout.decode().removesuffix("\n").split("\n")
    assert acts("".join(lines)) == []
    if not form:
        assert max(map(cell_len, lines)) <= 70
        costs = [line[: line.index("$") + len("$0.0000")] for line in lines if " $" in line]
        assert len({cell_len(cost) for cost in costs}) == 1, "wide characters leave the columns where they are"


@needs_tmux
def test_a_report_in_a_real_terminal_keeps_to_its_width(hostile_viewer: Viewer, terminal: Terminal) -> None:
    title = terminal.title
    terminal.resize(44, 60)
    command = " ".join([*REPORT, "--viewer", hostile_viewer.url, "--last", "all", "--by", "conversation"])
    terminal.enter(f"clear; {command}")
    wait_for(lambda: any(line.startswith("total") for line in terminal.screen), "the total", timeout=100)
    rows = [line for line in terminal.screen if "$0.2500" in line]
    assert len(rows) == len(HOSTILE)
    assert len({cell_len(line[: line.index("$0.2500")]) for line in rows}) == 1
    assert terminal.title == title


def test_a_report_where_a_terminal_knows_few_characters(hostile_viewer: Viewer) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for form in FORMS:
        words = [*REPORT, "--viewer", hostile_viewer.url, "--last", "all", "--by", "conversation", *form.split()]
        result = subprocess.run(words, capture_output=True, timeout=100, env=environment)
        assert (result.returncode, result.stderr) == (0, b"")
        assert rb"\u6a21\u578b" in result.stdout
