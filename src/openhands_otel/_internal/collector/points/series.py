"""One series, and the rule by which points change it: order and time.

Clocks are not trusted. They step, they differ between machines, and points come twice, late and in any order, from
processes that ended long ago, through gateways that put other start times on them. So

* a counter's **larger value is the newer one**, whatever its stamp says. What a series counts is told apart by start:

  - Two starts are two streams, which add up, if the value fell from the one to the other, or if the later one began
    more than a second after the earlier one's last stamp. Otherwise somebody on the way moved the start: one stream.
  - A smaller value under a known start is a late point. Where senders give no start, a smaller value with a newer
    stamp can only be a restart. That is assumed, and ``assumed`` says so.
  - Senders without an instance id (``exact``) are told apart by start alone: each start is a process of its own.

* a **delta** of the same start as another is a retry, or the same one grown by what came since (a sender whose request
  failed sends it again with more): the larger holds. Deltas of other starts add up, with gaps or overlaps between them
  as they come: a gap is what nobody sent, an overlap another sender. What one process sent both ways is the larger.
* what a **gauge** says holds until a newer stamp, among points of one process. A stamp of the future, by the
  collector's clock, gives way to one that is not, since the clock was set back in between.

Where starts are given it makes no difference in what order the points of a counter come.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple

from openhands_otel._internal.collector.points.deltas import Deltas
from openhands_otel._internal.collector.points.quarters import Quarters, Step
from openhands_otel._internal.collector.points.values import Distribution, PointValue, amount, combined, plain, unplain
from openhands_otel._internal.combining.told import Attributes
from openhands_otel._internal.exact import Number

TOLERANCE: Final = 1_000_000_000
"""Nanoseconds by which two times may differ and still be one: a start as several of its points have it."""
_STREAM_LIMIT: Final = 256
"""Streams of one series that are held apart; of more one that only moved goes, or the one silent for longest."""


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """What a metric is, as its sender describes it."""

    name: str
    kind: str
    unit: str
    description: str

    @property
    def accumulates(self) -> bool:
        return self.kind in {"counter", "histogram"}


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One of the measurements that a point is made of, and the span in which it was made.

    Attributes that are not the series' own are left out: whoever took them off the metric did not want them seen there.
    """

    value: int | float
    time: int
    """Unix nanoseconds."""
    trace_id: bytes
    span_id: bytes


class Point(NamedTuple):
    """One data point; ``value`` is None where it ends the series (NoRecordedValue)."""

    metric: MetricInfo
    attributes: Attributes
    start: int
    time: int
    value: PointValue | None
    delta: bool = False
    """Whether the value is what was added since ``start``, after which the sender starts anew."""
    scope: str | None = None
    """The instrumentation scope where it is another's than ours: such points count nowhere, they are only shown."""
    exemplar: Exemplar | None = None


class Stream:
    """What came under one start."""

    __slots__ = ("low", "start", "time", "value")

    def __init__(self, start: int, time: int, value: PointValue, low: float | None = None) -> None:
        self.start = start
        self.time = time
        """The newest stamp."""
        self.value = value
        """The largest."""
        self.low = amount(value) if low is None else low
        """The smallest."""

    def take(self, time: int, value: PointValue) -> None:
        self.time = max(self.time, time)
        self.low = min(self.low, amount(value))
        if amount(value) > amount(self.value):
            self.value = value

    def goes_on_in(self, later: Stream) -> bool:
        """Whether ``later`` is this one with another start."""
        return later.start <= self.time + TOLERANCE and later.low >= amount(self.value)


class Streams:
    """The cumulative points of one series, by start."""

    __slots__ = ("_base", "_forgotten", "_streams")

    def __init__(self) -> None:
        self._streams: list[Stream] = []
        """By start."""
        self._base: PointValue | None = None
        """What streams that are forgotten had reached."""
        self._forgotten = -1
        """The newest start of these."""

    def take(self, start: int, time: int, value: PointValue, exact: bool) -> bool:
        """Take one point; True where a restart had to be assumed."""
        stream = self._find(start, time, exact)
        # Without a start a smaller value under a newer stamp is the first of another process.
        restarted = bool(stream and not start and time > stream.time and amount(value) < amount(stream.value))
        if restarted and stream is not None:
            start, stream = stream.time + 1, None
        if stream is not None:
            stream.take(time, value)
        elif start > self._forgotten:
            self._streams.append(Stream(start, time, value))
            self._streams.sort(key=lambda each: each.start)
            if len(self._streams) > _STREAM_LIMIT:
                self._forget(exact)
        return restarted

    def whole(self, exact: bool) -> PointValue | None:
        """What all of them come to."""
        if self.alone:
            return self._streams[0].value
        parts: list[PointValue] = [] if self._base is None else [self._base]
        parts += [group.value for group in self._groups(exact)]
        return combined(parts) if parts else None

    @property
    def alone(self) -> bool:
        """Whether there is one stream, whose values are the series'."""
        return len(self._streams) == 1 and self._base is None

    def _find(self, start: int, time: int, exact: bool) -> Stream | None:
        if len(self._streams) == 1 and self._streams[0].start == start:
            return self._streams[0]
        if not start:
            # Whose it is, only its stamp can tell.
            return next((each for each in reversed(self._streams) if each.start <= time), (self._streams or [None])[0])
        tolerance = 0 if exact else TOLERANCE
        near = [each for each in self._streams if abs(each.start - start) <= tolerance]
        return min(near, key=lambda each: abs(each.start - start), default=None)

    def _groups(self, exact: bool) -> Iterable[Stream]:
        """The streams, those that differ by a moved start made one."""
        current: Stream | None = None
        for stream in self._streams:
            if current is not None and not exact and current.goes_on_in(stream):
                current = Stream(current.start, max(current.time, stream.time), stream.value, current.low)
                continue
            if current is not None:
                yield current
            current = stream
        if current is not None:
            yield current

    def _forget(self, exact: bool) -> None:
        moved = None if exact else next((one for one, next_ in pairwise(self._streams) if one.goes_on_in(next_)), None)
        if moved is not None:
            # What it reached is in the other one as well.
            self._drop(moved)
        else:
            gone = min(self._streams, key=lambda each: each.time)
            self._drop(gone)
            self._base = gone.value if self._base is None else combined((self._base, gone.value))

    def _drop(self, stream: Stream) -> None:
        self._streams.remove(stream)
        self._forgotten = max(self._forgotten, stream.start)

    def record(self) -> list[Any]:
        streams = [[each.start, each.time, plain(each.value), each.low] for each in self._streams]
        return [streams, None if self._base is None else plain(self._base), self._forgotten]

    @classmethod
    def from_record(cls, record: list[Any]) -> Streams:
        streams = cls()
        held, base, streams._forgotten = record
        streams._streams = [Stream(start, time, unplain(value), low) for start, time, value, low in held]
        streams._base = None if base is None else unplain(base)
        return streams


class Counted:
    """What a counter or histogram of one process has come to."""

    __slots__ = (
        "_cumulative",
        "_deltas",
        "_exact",
        "_quarters",
        "assumed",
        "ended",
        "erased",
        "start",
        "time",
        "value",
    )

    def __init__(self, exact: bool = False) -> None:
        self.start = self.time = 0
        """The first start, and the newest stamp (of the end, where it has ended)."""
        self.value: PointValue = 0
        """All of it, over the streams that there were."""
        self.ended = False
        self.assumed = 0
        """Restarts that had to be assumed."""
        self.erased: Number = 0
        """What of it somebody had forgotten: it counts no more, nor when it is told again."""
        self._exact = exact
        self._cumulative: Streams | None = None
        self._deltas: Deltas | None = None
        self._quarters = Quarters()

    @property
    def total(self) -> int | float:
        """What of it counts."""
        return amount(self.value) - self.erased

    @property
    def reached(self) -> int | float:
        """What it has come to, forgotten or not."""
        return amount(self.value)

    def erase(self, part: Number | None = None) -> None:
        """Forget what it has come to, or a part of that; and when it did, so that no late point moves it."""
        self.erased = self.reached if part is None else self.erased + part
        self._quarters = Quarters(self.reached)

    def place(self, point: Point, quarter: int, before: Number) -> list[Step]:
        """In which quarter-hours it grew, now that ``point`` has been taken; ``before`` is what it had reached."""
        if point.value is None:
            return []
        alone = self._deltas is None and self._cumulative is not None and self._cumulative.alone
        return self._quarters.take(amount(point.value) if alone else None, quarter, before, self.reached)

    def apply(self, point: Point, now: int) -> bool:
        """Take ``point``; True if anything changed by it. ``now`` is the collector's clock."""
        if point.value is None:
            return self._end(point.time, now)
        before, known = self.value, self._cumulative is not None or self._deltas is not None
        if point.delta:
            self._deltas = self._deltas or Deltas()
            self._deltas.take(point.start, point.time, point.value)
        else:
            self._cumulative = self._cumulative or Streams()
            self.assumed += self._cumulative.take(point.start, point.time, point.value, self._exact)
        self.value = self._whole()
        self.start = min(self.start or point.start, point.start or self.start)
        revived = self.ended and is_newer(point.time, self.time, now) and point.time != self.time
        if revived or not self.ended:
            self.ended = False
            self.time = max(self.time, point.time)
        return revived or not known or self.value != before

    def _whole(self) -> PointValue:
        cumulative = None if self._cumulative is None else self._cumulative.whole(self._exact)
        deltas = None if self._deltas is None else self._deltas.whole
        told = [value for value in (cumulative, deltas) if value is not None]
        if self._exact and told:
            # Nobody knows who else has the same resource: two ways of telling are two that tell.
            return combined(told)
        return max(told, key=amount, default=self.value)

    def _end(self, time: int, now: int) -> bool:
        if self.ended or not is_newer(time, self.time, now):
            return False
        self.time = time
        self.ended = True
        return True

    def record(self) -> list[Any]:
        """As the archive keeps it."""
        cumulative = None if self._cumulative is None else self._cumulative.record()
        deltas = None if self._deltas is None else self._deltas.record()
        value = plain(self.value)
        record = [self.start, self.time, value, self.ended, self.assumed, self._exact, cumulative, deltas]
        return [*record, self._quarters.record(), *([self.erased] if self.erased else [])]

    @classmethod
    def from_record(cls, record: list[Any]) -> Counted:
        start, time, value, ended, assumed, exact, cumulative, deltas, *quarters = record
        series = cls(exact)
        series.start, series.time, series.value, series.ended = start, time, unplain(value), ended
        series.assumed = assumed
        series._cumulative = None if cumulative is None else Streams.from_record(cumulative)
        series._deltas = None if deltas is None else Deltas.from_record(deltas)
        # Archives of before knew no quarter-hours.
        series._quarters = Quarters.from_record(quarters[0]) if quarters else Quarters(series.reached)
        series.erased = quarters[1] if len(quarters) > 1 else 0
        return series


class Gauged:
    """What a gauge of one process says."""

    __slots__ = ("ended", "start", "time", "value")

    def __init__(self, start: int, time: int, value: PointValue, ended: bool = False) -> None:
        self.start = start
        self.time = time
        self.value: PointValue = value
        self.ended = ended

    @property
    def total(self) -> int | float:
        return amount(self.value)

    def apply(self, point: Point, now: int) -> bool:
        """Take ``point`` if it is news; False leaves everything as it was."""
        if not is_newer(point.time, self.time, now):
            return False
        if point.value is None:
            changed, self.ended = not self.ended, True
        elif self.ended and point.time == self.time:
            return False
        else:
            changed = self.ended or point.value != self.value
            self.value, self.ended = point.value, False
        self.start, self.time = point.start, point.time
        return changed

    def record(self) -> list[Any]:
        """As the archive keeps it."""
        return [self.start, self.time, plain(self.value), self.ended]


Series = Counted | Gauged


def begin(point: Point, value: PointValue, named: bool, now: int) -> Series:
    """A series with its first point; ``named``: whether the process has an instance id."""
    if not point.metric.accumulates:
        return Gauged(point.start, point.time, value)
    series = Counted(exact=not named)
    series.apply(point, now)
    return series


def is_newer(time: int, than: int, now: int) -> bool:
    """Whether what is stamped ``time`` is at least as new as what is stamped ``than``, both of one process."""
    return time >= than or time <= now + TOLERANCE < than


def series_from_record(record: list[Any]) -> Series:
    """The opposite of ``record``."""
    if len(record) > 4:
        return Counted.from_record(record)
    start, time, value, ended = record
    return Gauged(start, time, unplain(value), ended)


def series_before(accumulates: bool, start: int, time: int, base: float, value: PointValue, ended: bool) -> Series:
    """A series as archives had it when they held one stream of each, and a number for all before."""
    if not accumulates:
        return Gauged(start, time, value, ended)
    earlier = Distribution(int(base), 0.0, (), ()) if isinstance(value, Distribution) else base
    whole = combined((earlier, value)) if base else value
    stream = [start, time, plain(value), amount(value)]
    streams = [[stream], plain(earlier) if base else None, start - TOLERANCE - 1 if base else -1]
    return Counted.from_record([start, time, plain(whole), ended, 0, False, streams, None])
