"""What this plugin says about itself: errors in hooks, overflow, exports that failed, what flushes cost.

These figures change with every flush, so they would make every update bigger; they are sent with the heartbeat only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from openhands_otel import guard, semconv
from openhands_otel.ledger import Ledger
from openhands_otel.semconv import Metric

Read = Callable[[], Iterator[tuple[float, dict[str, str | bool]]]]

METRICS = frozenset(
    metric.name
    for metric in (
        semconv.HOOK_ERRORS,
        semconv.OVERFLOWS,
        semconv.FAILED_EXPORTS,
        semconv.DROPPED_CALLBACKS,
        semconv.FLUSH_TIME,
        semconv.FLUSHES,
    )
)


class SelfObservation:
    """Counts of our own doings; written by the flusher's thread."""

    def __init__(self, ledger: Ledger, dropped_callbacks: Callable[[], int]) -> None:
        self._ledger = ledger
        self._dropped_callbacks = dropped_callbacks
        self.overflowed = 0
        self.failed_exports = 0
        self.flushes = 0
        self.flush_cpu_s = 0.0

    def counters(self) -> dict[Metric, Read]:
        """Each metric and how to read it."""
        return {
            semconv.HOOK_ERRORS: self._hook_errors,
            semconv.OVERFLOWS: _single(lambda: self._ledger.overflowed + self.overflowed),
            semconv.FAILED_EXPORTS: _single(lambda: self.failed_exports),
            semconv.DROPPED_CALLBACKS: _single(self._dropped_callbacks),
            semconv.FLUSH_TIME: _single(lambda: self.flush_cpu_s),
            semconv.FLUSHES: _single(lambda: self.flushes),
        }

    def _hook_errors(self) -> Iterator[tuple[float, dict[str, str | bool]]]:
        for name, count in guard.error_counts().items():
            yield count, {semconv.HOOK_NAME: name}


def _single(read: Callable[[], float]) -> Read:
    def one() -> Iterator[tuple[float, dict[str, str | bool]]]:
        yield read(), {}

    return one
