"""The fleet's series, as points of OTLP: only what changed since it was last delivered.

An update has the size of what changed, and is told at once; distributions wait until a request is to be complete
(``process/schedule.py``), for they are most of the bytes and nobody's money. Five more things happen to points:

* A new stream starts with a point of value 0 just before its first value, so that ``increase()`` and the like see the
  first value as a change. The stream's start time is the zero's time. All stamps are by the process's own clock
  (``clock.py``).
* Where delta temporality is preferred, the difference to what was last *delivered* is sent. A request that failed is
  thereby in the next one.
* At most one exemplar stands on a point, so that an update stays small: the newest.
* What is not delivered counts as not sent: ``Selection.commit`` is called only when the collector has it. Until then it
  can be looked at (``held``) and told later, as it was then: see ``backlog.py``.
* When the process goes on under a fresh instance id (``start_over``), all but gauges go on from 0.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from opentelemetry.proto.metrics.v1.metrics_pb2 import ScopeMetrics

from openhands_otel import semconv
from openhands_otel._internal.clock import MILLISECOND_NS, SECOND_NS, now_ns
from openhands_otel._internal.exact import Number
from openhands_otel._internal.export.otlp_config import Temporality
from openhands_otel._internal.metrics.histograms import BucketCounts
from openhands_otel._internal.metrics.points import Batch, Selection, SentExemplar, SentSeries, SentValue
from openhands_otel._internal.metrics.self_observation import SELF_OBSERVATION
from openhands_otel.semconv import Metric

AS_DELTA: Final[Mapping[Temporality, frozenset[str]]] = {
    "cumulative": frozenset(),
    "delta": frozenset(("counter", "histogram")),
    "lowmemory": frozenset(("histogram",)),
}
"""Kinds of metrics that are sent as deltas."""

FleetValues = dict[SentSeries, SentValue]
"""Series as they were at one time, cumulative since the process began."""
StampedValues = dict[SentSeries, tuple[SentValue, int]]
"""What somebody has of series, and the stamp that it has of it."""


class FleetSeries:
    """Compares what ``read`` says with what was delivered. Used by one thread at a time, under the ledger's lock.

    ``read`` says what every series is now; distributions go on growing. ``exemplars`` are what waits to be told.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[tuple[SentSeries, SentValue]]],
        temporality: Temporality = "cumulative",
        exemplars: dict[SentSeries, SentExemplar] | None = None,
    ) -> None:
        self._read = read
        self._as_delta = AS_DELTA[temporality]
        self._exemplars: dict[SentSeries, SentExemplar] = {} if exemplars is None else exemplars
        self._delivered: StampedValues = {}
        self._starts: dict[SentSeries, int] = {}
        self._base: FleetValues = {}
        """What adds up, as it was when the instance began: what was counted before is not its own."""
        self._last_selection = now_ns()

    @property
    def sends_deltas(self) -> bool:
        """Whether anything is sent as what came since."""
        return bool(self._as_delta)

    def start_over(self) -> None:
        """Go on as another instance: what was delivered until now was delivered under the id before."""
        self._base |= {series: value for series, (value, _) in self._delivered.items() if adds_up(series)}
        self._delivered = {}
        self._starts.clear()

    def select(self, everything: bool, last: bool, complete: bool, now: int) -> Selection:
        """Choose what changed, stamped ``now``: ``everything`` takes all (the heartbeat), ``complete`` distributions.

        What this plugin says about itself is chosen with everything, and with the ``last`` request of the process.
        """
        ours, complete = everything or last, everything or last or complete

        def is_wanted(metric: Metric) -> bool:
            return (complete or metric.kind != "histogram") and (ours or metric not in SELF_OBSERVATION)

        selection = self.selection(dict(self._changed(now, everything, is_wanted)), now)
        self._last_selection = now
        if complete:
            # What is left is of series that the cap keeps out.
            self._exemplars.clear()
        return selection

    def held(self, now: int, everything: bool) -> FleetValues:
        """What is not acknowledged, or ``everything``. Nothing is different afterwards."""
        return dict(self._changed(now, everything, lambda metric: metric not in SELF_OBSERVATION))

    def selection(self, held: FleetValues, now: int) -> Selection:
        """``held`` as it is to be sent, stamped ``now``."""
        batch = Batch(semconv.SCOPE_FLEET, now, self._as_delta)
        sent = self._tell(held, batch, self._delivered, self._exemplars)
        return Selection(batch.message(), lambda: self._delivered.update(sent), held=held)

    def spooled(self, held: FleetValues, now: int, told: StampedValues) -> ScopeMetrics | None:
        """``held`` for whoever sends it later, cumulative whatever is preferred; ``told`` stands before it there."""
        return self._totals(held, now, told, ChainMap(told, self._delivered))

    def totals(self, held: Mapping[SentSeries, SentValue], now: int, told: StampedValues) -> ScopeMetrics | None:
        """``held`` for somebody who has ``told`` and no more, cumulative whatever is preferred."""
        return self._totals(held, now, told, told)

    def _totals(
        self,
        held: Mapping[SentSeries, SentValue],
        now: int,
        told: StampedValues,
        known: Mapping[SentSeries, tuple[SentValue, int]],
    ) -> ScopeMetrics | None:
        batch = Batch(semconv.SCOPE_FLEET, now)
        told |= self._tell(held, batch, known, {})
        return batch.message()

    def acknowledged(self, held: FleetValues, now: int) -> ScopeMetrics | None:
        """What was acknowledged last of the series of ``held``."""
        last = {series: self._delivered[series] for series in held if series in self._delivered}
        batch = Batch(semconv.SCOPE_FLEET, now)
        self._tell({series: value for series, (value, _) in last.items()}, batch, last, {})
        return batch.message()

    def _changed(
        self, now: int, everything: bool, is_wanted: Callable[[Metric], bool]
    ) -> Iterator[tuple[SentSeries, SentValue]]:
        for series, value in self._read():
            if not is_wanted(series[0]):
                continue
            before, base = self._delivered.get(series), self._base.get(series)
            if before is None:
                is_old_news = base is not None and extent(value) == extent(base)
            else:
                is_old_news = not everything and extent(value) == extent(before[0])
            if not is_old_news:
                self._begin(series, now)
                yield series, value.copy() if isinstance(value, BucketCounts) else value

    def _tell(
        self,
        held: Mapping[SentSeries, SentValue],
        batch: Batch,
        known: Mapping[SentSeries, tuple[SentValue, int]],
        exemplars: dict[SentSeries, SentExemplar],
    ) -> StampedValues:
        """Put ``held`` into ``batch`` as it is said to somebody who has ``known``; returns what it has then."""
        for series, value in held.items():
            start, before, base = self._starts[series], known.get(series), self._base.get(series)
            own = value if base is None else less(value, base)
            if before is not None and batch.sends_delta(series[0]):
                if extent(value) == extent(before[0]):
                    continue
                own, start = less(value, before[0]), before[1]
            elif before is None and adds_up(series) and not batch.sends_delta(series[0]):
                batch.add("", series, own.empty() if isinstance(own, BucketCounts) else 0, start, start)
            batch.add("", series, own, batch.now, start, exemplars.pop(series, None))
        return {series: (value, batch.now) for series, value in held.items()}

    def _begin(self, series: SentSeries, now: int) -> None:
        # The last time at which it was seen not to exist, but no more than a second ago, or a back end whose head has
        # moved on would refuse the zero as too old; and a millisecond at least, its resolution.
        if series not in self._starts:
            self._starts[series] = min(max(self._last_selection, now - SECOND_NS), now - MILLISECOND_NS)


def adds_up(series: SentSeries) -> bool:
    """Whether a series' values are totals, which start at 0."""
    return series[0].kind in ("counter", "histogram")


def extent(value: SentValue) -> Number:
    """What differs when a value has changed."""
    return value.count if isinstance(value, BucketCounts) else value


def less(value: SentValue, before: SentValue) -> SentValue:
    """What a value has grown by since ``before``."""
    if isinstance(value, BucketCounts):
        assert isinstance(before, BucketCounts)
        return value.less(before)
    return value - extent(before)
