"""Kind of fault: ``watch`` leaves a terminal that nobody can use, or does not stand what a terminal does to it.

The terminal is tmux; what is asked is what a person sees in it, and what the next program finds.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from tmux_terminal import Terminal, needs_tmux, opened_terminal
from viewer_process import Viewer, running_viewer, start_viewer, wait_for

from terminal.scene import AGENTS, play

pytestmark = needs_tmux
WATCH = f"{sys.executable} -m openhands_otel watch"
FIRST = "checkout-fix"
SET = "#{alternate_on} #{cursor_flag} #{mouse_any_flag} #{keypad_cursor_flag} #{wrap_flag} #{pane_title}"
"""What a program sets in a terminal, as tmux tells it; the pane's title among it."""


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        play(viewer, int(time.time()))
        yield viewer


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with opened_terminal(tmp_path, 100, 30) as terminal:
        yield terminal


def by_key(key: str) -> Callable[[Terminal], None]:
    return lambda terminal: terminal.type(key)


def by_signal(number: int) -> Callable[[Terminal], None]:
    return lambda terminal: os.kill(terminal.program(), number)


def runs(process: int) -> bool:
    """Whether it is there; what has ended may stay in the table until somebody asks."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (by_key("q"), 0),
        (by_key("C-c"), 0),
        (by_signal(signal.SIGTERM), 128 + signal.SIGTERM),
        (by_signal(signal.SIGHUP), 128 + signal.SIGHUP),
    ],
    ids=["q", "Ctrl-C", "SIGTERM", "SIGHUP"],
)
def test_it_leaves_the_terminal_as_it_was(
    viewer: Viewer, terminal: Terminal, end: Callable[[Terminal], None], code: int, tmp_path: Path
) -> None:
    lines = tmp_path / "lines"
    before = terminal.asked(SET)
    terminal.enter(f"stty -g > {lines}; {WATCH} {viewer.url}; echo code=$?")
    terminal.shows(FIRST)
    assert terminal.asked("#{alternate_on} #{cursor_flag}") == "1 0"
    end(terminal)
    screen = "\n".join(terminal.shows(f"code={code}\n$"))
    assert FIRST not in screen
    assert "Traceback" not in screen
    wait_for(lambda: terminal.asked(SET) == before, "all that it set is taken back", timeout=100)
    # Echo, line by line reading and what else belongs to the line itself, which tmux does not know.
    terminal.enter(f"stty -g | cmp - {lines} && echo the'' same")
    terminal.shows("the same")


def test_a_window_that_is_closed_ends_it(viewer: Viewer, terminal: Terminal) -> None:
    terminal.enter(f"{WATCH} {viewer.url}")
    terminal.shows(FIRST)
    program = terminal.program()
    terminal.tmux("new-window", "-d", "sh")
    terminal.tmux("kill-pane", "-t", ":0")
    wait_for(lambda: not runs(program), "its end", timeout=100)


def test_cost_and_status_are_whole_in_each_size_that_the_window_takes(viewer: Viewer, terminal: Terminal) -> None:
    costs = ["$0.0712", "$13.900", "$1.250", "$2.355", "$0.000012", "$1,234,567.89", "$0.3300", "$0.009900"]
    states = ["waits for you", "stuck", "error", "running", "running", "running", "idle", "finished"]

    def whole(screen: list[str], width: int) -> bool:
        rows = [line for line in screen if line[:8].isdigit()]
        # Half of it may still be of the size before: how old it is stands at the right end of the first line.
        fits = ("whose" in "\n".join(screen)) is (width == 200) and len(screen[0]) == width and len(rows) == len(AGENTS)
        return fits and all(
            f" {cost}" in row and f" {state} " in row for row, cost, state in zip(rows, costs, states, strict=True)
        )

    terminal.resize(200, 50)
    terminal.enter(f"{WATCH} {viewer.url}")
    for width, height in ((200, 50), (80, 24), (60, 24), (200, 50)):
        terminal.resize(width, height)
        terminal.becomes(partial(whole, width=width), f"all of it in {width}x{height}")
    terminal.resize(20, 5)
    terminal.shows("too small")
    terminal.resize(100, 30)
    terminal.shows(FIRST)
    terminal.type("q")


def test_a_viewer_that_is_killed_is_said_to_be_lost_until_it_is_back(terminal: Terminal, tmp_path: Path) -> None:
    """Whenever that is: the terminal goes on."""
    database = tmp_path / "history"
    viewers = [start_viewer(database=database)]
    try:
        play(viewers[0], int(time.time()))
        terminal.enter(f"{WATCH} {viewers[0].url}; echo code=$?")
        terminal.shows(FIRST)
        viewers[0].process.kill()
        viewers[0].process.wait()
        assert FIRST in "\n".join(terminal.shows("CUT OFF"))
        viewers.append(start_viewer(database=database, port=int(viewers[0].url.rpartition(":")[2])))
        lines = terminal.becomes(lambda lines: "live, " in lines[0], "that it is back")
        assert "CUT OFF" not in lines[0]
        terminal.shows(FIRST)
        terminal.type("q")
        terminal.shows("code=0")
    finally:
        for viewer in viewers:
            viewer.process.kill()
            viewer.process.wait()


def test_where_nobody_answers_there_is_one_line_and_no_screen(terminal: Terminal) -> None:
    terminal.enter(f"{WATCH} http://127.0.0.1:1; echo code=$?")
    lines = terminal.shows("code=1")
    # tmux breaks what is longer than its window.
    told = "".join(lines[next(at for at, line in enumerate(lines) if line.startswith("openhands-otel: ")) :])
    assert told.startswith("openhands-otel: nothing answers at http://127.0.0.1:1")
    assert terminal.asked("#{alternate_on}") == "0"
    assert "Traceback" not in told
