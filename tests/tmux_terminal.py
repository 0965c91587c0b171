"""A real terminal: tmux tells what stands on its screen, and what a program has set in it."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from viewer_process import wait_for

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux on PATH (Debian: apt-get install tmux)")


@dataclass
class Terminal:
    """A window with a shell, in a tmux server of its own."""

    socket: Path

    def tmux(self, *words: str) -> str:
        command = ["tmux", "-S", str(self.socket), "-f", "/dev/null", *words]
        done = subprocess.run(
            command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=100
        )
        return done.stdout

    def type(self, *keys: str) -> None:
        """Press these keys, by tmux's names, or type a text."""
        self.tmux("send-keys", *keys)

    def enter(self, command: str) -> None:
        """Have the shell run a command."""
        self.type(command, "Enter")

    def resize(self, width: int, height: int) -> None:
        self.tmux("resize-window", "-x", str(width), "-y", str(height))

    def asked(self, form: str) -> str:
        """What tmux knows, by its formats."""
        return self.tmux("display-message", "-p", form).strip()

    @property
    def title(self) -> str:
        return self.asked("#{pane_title}")

    @property
    def screen(self) -> list[str]:
        """Its lines; tmux leaves out the spaces at their ends."""
        return self.tmux("capture-pane", "-p").splitlines()

    def shows(self, text: str) -> list[str]:
        """The screen, once this stands on it."""

        return self.becomes(lambda lines: text in "\n".join(lines), repr(text))

    def becomes(self, look: Callable[[list[str]], object], what: str) -> list[str]:
        """The screen, once it looks so."""
        deadline = time.monotonic() + 100
        while not look(lines := self.screen):
            assert time.monotonic() < deadline, f"{what} is not there:\n" + "\n".join(lines)
            time.sleep(0.05)
        return lines

    def program(self) -> int:
        """Process id of what the shell runs."""
        shell = self.asked("#{pane_pid}")
        children = Path(f"/proc/{shell}/task/{shell}/children")
        return int(wait_for(lambda: children.read_text().split(), "a child of the shell", timeout=100)[0])


@contextmanager
def opened_terminal(folder: Path, width: int, height: int) -> Iterator[Terminal]:
    """A terminal for the length of a block, with its socket in a folder; its prompt is ``$``."""
    opened = Terminal(folder / "tmux")
    opened.tmux(
        "new-session", "-d", "-x", str(width), "-y", str(height), "env", "-u", "COLUMNS", "-u", "LINES", "PS1=$ ", "sh"
    )
    try:
        opened.shows("$")
        yield opened
    finally:
        opened.tmux("kill-server")
