"""Makes a fork wait until work that must not be forked halfway has ended.

A child has but the thread that forked; what another thread was about to do stays half done in it for good. During a
call gRPC's own state is half changed: one child in some hundred could never call again, and gRPC wrote a line to
standard error each time. During an import the module's lock is held, while a value is recorded the instrument's: a
child that imports the same module, or records there, waits for a thread that it does not have. The wait is bounded,
so that a collector that does not answer holds no fork up; what starts the agent's tools may be one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager


class ForkGate:
    """Closed while something runs that a fork would tear; one for each kind of work, as they don't wait for each other.

    A fork waits for ``longest_wait_s`` at most; for ``until_one_ends_well_s``, where that is given, as long as the work
    that ran last raised or none has run.
    """

    def __init__(self, longest_wait_s: float, until_one_ends_well_s: float | None = None) -> None:
        self._longest_wait_s = longest_wait_s
        self._after_failure_s = longest_wait_s if until_one_ends_well_s is None else until_one_ends_well_s
        self._wait_s = self._after_failure_s
        self._lock = threading.Lock()
        self._closed_by: int | None = None
        self._held_by: int | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child)

    @contextmanager
    def closed(self) -> Generator[None]:
        """Keep forks waiting."""
        with self._lock:
            self._closed_by = threading.get_ident()
            next_wait_s = self._after_failure_s
            try:
                yield
                next_wait_s = self._longest_wait_s
            finally:
                self._closed_by = None
                self._wait_s = next_wait_s

    def _before(self) -> None:
        forks_inside = self._closed_by == threading.get_ident()
        if not forks_inside and self._lock.acquire(timeout=self._wait_s):
            self._held_by = threading.get_ident()

    def _in_parent(self) -> None:
        if self._held_by == threading.get_ident():
            self._held_by = None
            self._lock.release()

    def _in_child(self) -> None:
        self._lock = threading.Lock()
        self._closed_by = self._held_by = None


grpc_calls = ForkGate(longest_wait_s=1.0, until_one_ends_well_s=0.1)
"""One for the process: what gRPC has at stake is. A collector that answered last time does so again, but on a busy
machine that takes a while."""

imports = ForkGate(longest_wait_s=1.0)
"""Modules that are imported on our account while the agent runs: litellm imports its providers when asked for them."""

recordings = ForkGate(longest_wait_s=0.1)
"""Values that the flusher records on instruments of the OpenTelemetry SDK; a child of the application has them too."""
