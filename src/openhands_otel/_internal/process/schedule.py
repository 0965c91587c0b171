"""When the next flush is due.

A change that people wait for is sent after a window of some milliseconds, what may wait after a tenth of a second,
and everything once a minute even if nothing changed (exact totals in PromQL need series that stay alive).
Distributions are half of the bytes: they wait a second for company, no longer, since a killed process may lose a
second at most. Two things hold a flush back: a budget of CPU time, so that a process with thousands of changes a
second spends a bounded share of one core on flushes, and a pause that doubles from 0.5 to 5 s after failures.
"""

from __future__ import annotations

LAZY_WINDOW_S = 0.1
DISTRIBUTIONS_WINDOW_S = 1.0
BURST_CPU_S = 0.05
"""Flush time that may be used at once before the share applies: some twenty small flushes."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 5.0
LONGEST_HOLD_S = 0.6
"""The budget holds nothing back for longer, whatever a flush has cost: a killed process may lose a second at most."""


class Schedule:
    """Times are those of a monotonic clock, in seconds."""

    def __init__(self, window_s: float, cpu_share: float, heartbeat_s: float, now: float) -> None:
        self._window_s = window_s
        self._cpu_share = cpu_share
        self._heartbeat_s = heartbeat_s
        self._heartbeat_at = now + heartbeat_s
        self._wanted_at: float | None = None
        self._distributions_at: float | None = None
        """When distributions that have changed are to be sent; None: none has."""
        self._not_before = now
        self._budget = BURST_CPU_S
        self._budget_at = now
        self._pause_s = 0.0
        self._beat_at: float | None = None

    def want(self, now: float, urgent: bool) -> None:
        """Something changed."""
        due = now + (self._window_s if urgent else LAZY_WINDOW_S)
        self._wanted_at = due if self._wanted_at is None else min(self._wanted_at, due)

    def want_distributions(self, now: float) -> None:
        """Distributions changed."""
        if self._distributions_at is None:
            self._distributions_at = now + DISTRIBUTIONS_WINDOW_S

    def wait_s(self, now: float) -> float:
        """Seconds until something is due; zero or less: now."""
        times = self._heartbeat_at, self._wanted_at, self._distributions_at, self._beat_at
        return max(min(at for at in times if at is not None), self._not_before) - now

    def beat_in(self, seconds: float | None, now: float) -> None:
        """Something is to be said by then, though nothing changes; None takes that back."""
        self._beat_at = None if seconds is None else now + seconds

    @property
    def pending(self) -> bool:
        """Whether a change waits to be sent."""
        return self._wanted_at is not None

    def is_heartbeat(self, now: float) -> bool:
        """Whether a flush now should send everything."""
        return now >= self._heartbeat_at

    def has_distributions(self, now: float) -> bool:
        """Whether a flush now should send those that have changed."""
        return self._distributions_at is not None and now >= self._distributions_at

    def flushed(self, now: float, cpu_s: float, everything: bool, complete: bool = True) -> None:
        """A flush was delivered; unless it was ``complete``, distributions still wait."""
        self._pause_s = 0.0
        self._wanted_at = None
        if complete or everything:
            self._distributions_at = None
        if everything:
            self._heartbeat_at = now + self._heartbeat_s
        earned = min(BURST_CPU_S, self._budget + (now - self._budget_at) * self._cpu_share)
        self._budget = max(earned - cpu_s, -LONGEST_HOLD_S * self._cpu_share)
        self._budget_at = now
        self._not_before = now if self._budget >= 0 else now - self._budget / self._cpu_share

    def failed(self, now: float, retry_after_s: float | None, complete: bool = True) -> None:
        """A flush was not delivered; what it held is wanted again."""
        if complete:
            self._distributions_at = now
        self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2) if self._pause_s else FIRST_PAUSE_S
        self._not_before = now + max(self._pause_s, retry_after_s or 0.0)
        self._wanted_at = now
