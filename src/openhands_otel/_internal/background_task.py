"""Runs a piece of work on a thread of its own; the caller waits for it as long as there is time."""

from __future__ import annotations

import _thread
import time
from collections.abc import Callable

from openhands_otel._internal.guard import note_error

_POLL_S = 0.002

WaitForWork = Callable[[], bool]
"""Waits for work that has begun, within the time that was given then; returns whether all of it succeeded."""


class BackgroundTask:
    """``work``, begun at once; ``name`` is what its error is counted under.

    It is done by the caller with ``here``, and where no thread can be had; with nothing to do it is done already.
    """

    def __init__(self, name: str, work: Callable[[], object] | None, here: bool = False) -> None:
        self._name = name
        self._done = work is None
        self._failed = False
        if work is None:
            return
        if here:
            self._run(work)
            return
        try:
            # Not threading.Thread: this may be a signal handler, and that takes locks.
            _thread.start_new_thread(self._run, (work,))
        except RuntimeError:
            self._run(work)

    def wait_until(self, deadline: float) -> bool:
        """Whether it is done by ``deadline`` (of ``time.monotonic``), without an error."""
        while not self._done and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return self._done and not self._failed

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            self._failed = True
            note_error(self._name, error)
        finally:
            self._done = True
