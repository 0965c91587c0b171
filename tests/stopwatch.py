"""Time that a busy machine does not lengthen: the kernel tells what a thread waited for a processor."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path


def waited_s(task: str | Path = "/proc/thread-self") -> float:
    """Seconds that a thread (default: this one) was ready to run and had no processor; 0.0 where no kernel tells."""
    with suppress(OSError):
        return int(Path(task, "schedstat").read_text().split()[1]) / 1e9
    return 0.0


class Stopwatch:
    """Runs from the moment it is made, for what all threads of some processes (default: this one) do together."""

    def __init__(self, *pids: int) -> None:
        self._tasks = [Path(f"/proc/{pid}/task") for pid in pids or (os.getpid(),)]
        self._waits = self._read()
        self._began = time.monotonic()

    def s(self) -> float:
        """Seconds by now, without those in which one of the threads waited for a processor."""
        took = time.monotonic() - self._began
        return took - sum(max(0.0, s - self._waits.get(task, 0.0)) for task, s in self._read().items())

    def _read(self) -> dict[Path, float]:
        found: dict[Path, float] = {}
        for tasks in self._tasks:
            with suppress(OSError):
                found |= {task: waited_s(task) for task in tasks.iterdir()}
        return found
