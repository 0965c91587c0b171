"""Processes that the demo starts: each in a session of its own, its output in a file, stopped by its process id.

A session of its own keeps Ctrl-C in the terminal from reaching them: the demo stops them itself, in order, whatever
way it ends.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_POLL_S = 0.02
_STOP_TIMEOUT_S = 5.0


class ChildFailed(Exception):
    """A child ended, or said nothing, when it should have become ready; ``log`` holds its last lines."""

    def __init__(self, name: str, reason: str, log: list[str]) -> None:
        super().__init__(f"{name} {reason}")
        self.log = log


class Child:
    """One process, for the length of a ``with`` block."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], directory: Path) -> None:
        self.name = name
        self._command = list(command)
        self._environment = dict(environment)
        self._output = directory / f"{name}.out"
        self._log = directory / f"{name}.log"

    def __enter__(self) -> Self:
        with self._output.open("wb") as output, self._log.open("wb") as log:
            # Standard input is a pipe that nobody writes to: a child that watches it sees when the demo has died.
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def ready(self, timeout: float) -> dict[str, Any]:
        """Wait for the JSON line with which it says that it is ready; raises ChildFailed."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            ended = self.exit_code is not None
            line, newline, _ = self._output.read_text().partition("\n")
            if newline:
                return json.loads(line)
            if ended:
                raise self.failure(f"ended with exit code {self.exit_code}")
            time.sleep(_POLL_S)
        raise self.failure(f"was not ready after {timeout:.0f} s")

    def failure(self, reason: str) -> ChildFailed:
        """What to raise when it did not do what it was started for."""
        return ChildFailed(self.name, reason, self.last_lines())

    def last_lines(self) -> list[str]:
        """The end of what it printed, standard error last."""
        printed = (file.read_text(errors="replace").splitlines() for file in (self._output, self._log))
        return [line for lines in printed for line in lines][-10:]
