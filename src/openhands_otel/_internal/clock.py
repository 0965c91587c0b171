"""The clock by which a process stamps what it says, whatever happens to the machine's wall clock meanwhile.

Who receives takes stamps for the order of things, so within one instance they never go back. They come from a clock
that only ever goes on, the time in which the machine sleeps included (CLOCK_BOOTTIME; on macOS CLOCK_MONOTONIC is such
a one). It is set by the wall clock when the process starts, and again whenever the wall clock is found ahead. A wall
clock that has fallen back by no more than a minute is ignored: stamps are that much in the future then, and in order.
One that has fallen further was wrong before or is wrong now. What follows is stamped by it again, and ``epoch``
changes: whoever sends goes on under a fresh instance id, as a forked child does (``metrics/request_builder.py``).

``now_ns`` is called on the agent's threads: it costs one reading of a clock, and nobody waits in it. Only ``watch``
looks at the wall clock; the flusher and the receiver's housekeeping call it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

SECOND_NS = 1_000_000_000
MILLISECOND_NS = 1_000_000
"""Prometheus' resolution: stamps that are to differ for it do so by this at least."""
AHEAD_NS = SECOND_NS
"""How far the wall clock may be ahead before it is believed."""
FALLEN_NS = 60 * SECOND_NS
"""How far it may be behind before it is."""


def _steady_clock() -> Callable[[], int]:
    if sys.platform == "linux":
        return lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return time.monotonic_ns


class Clock:
    """``wall`` and ``steady`` read the machine's two clocks, in nanoseconds; tests turn them."""

    def __init__(self, wall: Callable[[], int] = time.time_ns, steady: Callable[[], int] | None = None) -> None:
        self.wall = wall
        """Reads the wall clock; whoever tests turns it."""
        self._steady = steady or _steady_clock()
        self._anchoring = threading.Lock()
        self._offset = self.wall() - self._steady()
        self.epoch = 0
        """Changes where stamps may lie before earlier ones: then an instance has ended."""

    def now_ns(self) -> int:
        """Unix nanoseconds; within an epoch never less than before."""
        return self._steady() + self._offset

    def watch(self) -> None:
        """Compare with the wall clock, and follow it where it is to be believed."""
        with self._anchoring:
            offset = self.wall() - self._steady()
            ahead = offset - self._offset
            if ahead > AHEAD_NS:
                self._offset = offset
            elif ahead < -FALLEN_NS:
                self.epoch += 1
                self._offset = offset

    def start_over(self) -> None:
        """Take the wall clock's word: for a process, or a part of it, that has said nothing yet."""
        self._anchoring = threading.Lock()
        self.epoch += 1
        self._offset = self.wall() - self._steady()


process_clock = Clock()
"""The one that everything in this process reads."""

if sys.platform == "linux":
    from time import CLOCK_BOOTTIME, clock_gettime_ns

    def now_ns() -> int:
        """``process_clock.now_ns``, without the calls that an agent's thread can do without."""
        return clock_gettime_ns(CLOCK_BOOTTIME) + process_clock._offset  # pyright: ignore[reportPrivateUsage]

else:
    now_ns = process_clock.now_ns
