"""What this plugin says about itself: errors in hooks, overflow, exports that failed, what flushes cost.

These figures change with every flush, so they would make every update bigger; they are sent with the heartbeat only.
"""

from __future__ import annotations

from collections.abc import Callable

from openhands_otel import semconv
from openhands_otel._internal import guard
from openhands_otel._internal.exact import Number
from openhands_otel._internal.ledger.ledger import Ledger
from openhands_otel._internal.metrics.points import SentAttributes
from openhands_otel.semconv import Metric

SELF_OBSERVATION = (
    semconv.HOOK_ERRORS,
    semconv.OVERFLOWS,
    semconv.FAILED_EXPORTS,
    semconv.DROPPED_CALLBACKS,
    semconv.FLUSH_TIME,
    semconv.FLUSHES,
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

    def read(self, metric: Metric) -> list[tuple[SentAttributes, Number]]:
        """Attributes and current values of one of SELF_OBSERVATION."""
        if metric is semconv.HOOK_ERRORS:
            return [(((semconv.HOOK_NAME, name),), count) for name, count in guard.error_counts().items()]
        values = {
            semconv.OVERFLOWS: self._ledger.overflowed + self.overflowed,
            semconv.FAILED_EXPORTS: self.failed_exports,
            semconv.DROPPED_CALLBACKS: self._dropped_callbacks(),
            semconv.FLUSH_TIME: self.flush_cpu_s,
            semconv.FLUSHES: self.flushes,
        }
        return [((), values[metric])]
