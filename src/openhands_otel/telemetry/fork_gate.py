"""Lets a fork wait for the end of a gRPC call.

A child that is forked during a call finds gRPC's own state half changed: one in some hundred could never call again,
and gRPC wrote a line to standard error each time. The wait is short, so that a collector that does not answer holds no
fork up; what starts the agent's tools may be one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager

LONGEST_WAIT_S = 0.1


class ForkGate:
    """Closed while a call runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held_by: int | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._before, after_in_parent=self._in_parent, after_in_child=self._in_child)

    @contextmanager
    def closed(self) -> Generator[None]:
        """Keep forks waiting."""
        with self._lock:
            yield

    def _before(self) -> None:
        if self._lock.acquire(timeout=LONGEST_WAIT_S):
            self._held_by = threading.get_ident()

    def _in_parent(self) -> None:
        if self._held_by == threading.get_ident():
            self._held_by = None
            self._lock.release()

    def _in_child(self) -> None:
        self._lock = threading.Lock()
        self._held_by = None


fork_gate = ForkGate()
"""One for the process: what gRPC has at stake is."""
