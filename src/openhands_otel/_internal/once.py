"""Lets exactly one of several callers do something."""

from __future__ import annotations

import threading


class Once:
    """Open until the first ``claim``, on whatever thread, in a signal handler or a finalizer: a claim never waits."""

    __slots__ = ("_taken",)

    def __init__(self) -> None:
        self._taken = threading.Lock()

    def claim(self) -> bool:
        """Whether the caller is the first."""
        return self._taken.acquire(blocking=False)

    @property
    def claimed(self) -> bool:
        """Whether there was one."""
        return self._taken.locked()
