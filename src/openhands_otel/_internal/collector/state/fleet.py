"""All processes in memory: what each says of itself as a whole, and what that adds to the totals."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Final

from openhands_otel import semconv
from openhands_otel._internal.collector.points.decode import Instance
from openhands_otel._internal.collector.points.limits import (
    EXEMPLAR_WEIGHT,
    FOREIGN_BYTES,
    FOREIGN_NAMES,
    OWN_BYTES,
    OWN_SERIES,
    PROCESS_HARD_LIMIT,
    SHARING,
    weigh,
)
from openhands_otel._internal.collector.points.quarters import quarter_of
from openhands_otel._internal.collector.points.refusals import Refusals
from openhands_otel._internal.collector.points.series import (
    Attributes,
    Counted,
    Exemplar,
    MetricInfo,
    Point,
    Series,
    begin,
    is_newer,
)
from openhands_otel._internal.collector.points.values import PointValue, amount
from openhands_otel._internal.collector.state.liveness import Lives
from openhands_otel._internal.collector.state.placing import (
    FLEET_MEASURES,
    Unbooked,
)
from openhands_otel._internal.collector.state.process import OWN_METRICS, MetricSeries, Process, adds_up, sum_of
from openhands_otel._internal.collector.state.sharing import SHARED, growth, key_of, raised
from openhands_otel._internal.collector.state.totals import CALLS_BEFORE, BurnMeter, TotalKey, TotalSums
from openhands_otel._internal.combining.building import Life
from openhands_otel._internal.spend.amounts import CALLS_FIELD, SECONDS_FIELD

SILENT_AFTER_S: Final = 3600.0
"""A process without a word for so long (60 heartbeats) leaves memory; its record stays in the archive."""


class Fleet:
    """All processes in memory, and the totals over all that ever were."""

    def __init__(self) -> None:
        self.processes: dict[str, Process] = {}
        self.metrics: dict[str, MetricInfo] = dict(OWN_METRICS)
        self.sums = TotalSums()
        self.unbooked = Unbooked()
        """Spend with its place in time, to be written with the records that it came by."""
        self.burn = BurnMeter()
        self.dirty: set[str] = set()
        self.assumed_restarts = 0
        """Restarts of senders that give no start times, taken for such because a counter fell."""
        self.lives = Lives(self.processes, self.dirty)
        self.shared_points = 0
        """Points that fell into a series that others share."""
        self._own_bytes = self._foreign_bytes = self._sharing = 0
        self._foreign_names: Counter[str] = Counter()

    def apply(
        self, instance: Instance, points: list[Point], received: int, refusals: Refusals, replayed: bool = False
    ) -> bool:
        """Take the points of one process; True when a total changed."""
        process = self.processes.get(instance.key)
        if process is None:
            process = Process(instance, 0.0, own_weight=weigh(instance.resource))
            self.admit(process)
            if replayed:
                process.pulse.life = Life.SILENT
        heard = received
        if replayed:
            # Nothing was heard of it now, only about it.
            heard = min(received, max((point.time for point in points), default=0))
        else:
            self.lives.hear(instance.key, points, received / 1e9)
        process.seen = max(process.seen, heard / 1e9)
        totals_changed = False
        for point in points:
            totals_changed |= self._apply(process, point, received, refusals, replayed)
        if totals_changed:
            self.dirty.add(instance.key)
        return totals_changed

    def _apply(self, process: Process, point: Point, received: int, refusals: Refusals, replayed: bool) -> bool:
        """Take one point; True when anything changed that totals are made of."""
        name, attributes = point.metric.name, point.attributes
        known = self.metrics.get(name, point.metric)
        if known.kind != point.metric.kind:
            refusals.add(f"{name} is a {point.metric.kind} here and a {known.kind} elsewhere")
            return False
        if point.scope is not None and name in OWN_METRICS:
            # Another's, under a name of ours: shown as what it is, and counted nowhere.
            # An empty label is as good as none, which is ours.
            scope = point.scope or semconv.UNKNOWN
            attributes = tuple(sorted({**dict(attributes), semconv.SCOPE_NAME: scope}.items()))
        counts = adds_up(name, attributes)
        held = self._find(process, name, attributes)
        value, assumed = (held.value, _assumed(held)) if held else (0, 0)
        before = amount(value)
        if held is None:
            if counts and process.own_series >= OWN_SERIES and point.value is not None:
                return attributes != SHARED and self._share(process, point, received, refusals, replayed)
            held = self._new_series(process, point, attributes, received, refusals)
            if held is None:
                return False
            changed = True
        else:
            changed = held.apply(point, received)
        if point.exemplar is not None:
            self._show(process, (name, attributes), point.exemplar, received)
        if not changed:
            # A late point may still say when something was spent.
            return counts and self._place(process, name, attributes, point, held, value, received)
        self.assumed_restarts += _assumed(held) - assumed
        if not counts:
            return False
        self._place(process, name, attributes, point, held, value, received)
        if name == CALLS_BEFORE and process.counts_calls:
            return True
        after = amount(held.value)
        if after != before:
            self.sums.replace(process.instance.service, name, attributes, before, after)
            now = received / 1e9
            if name == semconv.COST.name and not replayed and (before or BurnMeter.is_recent(point.start, point.time)):
                self.burn.add(process.instance.service, after - before, now)
        return True

    def _place(
        self,
        process: Process,
        name: str,
        attributes: Attributes,
        point: Point,
        held: Series,
        before: PointValue,
        received: int,
    ) -> bool:
        """Book by how much a series has grown where that belongs; True if anything was."""
        if not isinstance(held, Counted):
            return False
        steps = held.place(point, quarter_of(point.time, received), amount(before))
        place = process.place(attributes)
        for quarter, low, high in steps:
            spent = self.unbooked.amount(process.key, quarter, place)
            process.count(spent, name, low, high)
            if held.value != before:
                spent.grow(SECONDS_FIELD, sum_of(before), sum_of(held.value))
        return bool(steps)

    def _new_series(
        self, process: Process, point: Point, attributes: Attributes, received: int, refusals: Refusals
    ) -> Series | None:
        if point.value is None:
            return None
        name = point.metric.name
        if not adds_up(name, attributes) and (why := self._no_room(name, attributes)):
            refusals.add(f"{name[:100]} is not held: {why}", rule=why)
            return None
        if name == semconv.CALLS.name and adds_up(name, attributes) and not process.counts_calls:
            self._stop_inferring_calls(process, quarter_of(point.time, received))
            process.counts_calls = True
        held = begin(point, point.value, process.instance.named, received)
        self._hold(process, point.metric, attributes, held)
        return held

    def _no_room(self, name: str, attributes: Attributes) -> str | None:
        """Why one more series of another's cannot be held; None if it can."""
        if self._foreign_bytes + weigh(attributes) > FOREIGN_BYTES:
            return f"other series take {FOREIGN_BYTES >> 20} MiB already"
        if name not in self.metrics and len(self._foreign_names) >= FOREIGN_NAMES:
            return f"there are {FOREIGN_NAMES} other names already"
        return None

    def _find(self, process: Process, name: str, attributes: Attributes) -> Series | None:
        own = process.own_weight
        held = process.find(name, attributes)
        self._own_bytes += process.own_weight - own
        return held

    def _hold(self, process: Process, metric: MetricInfo, attributes: Attributes, series: Series) -> None:
        own, foreign = process.own_weight, process.foreign_weight
        process.hold(metric.name, attributes, series)
        self._own_bytes += process.own_weight - own
        self._foreign_bytes += process.foreign_weight - foreign
        if metric.name not in OWN_METRICS:
            self.metrics.setdefault(metric.name, metric)
            self._foreign_names[metric.name] += 1

    def _show(self, process: Process, series: MetricSeries, exemplar: Exemplar, received: int) -> None:
        """Have an exemplar stand beside its series, unless it has a newer one; there may be no room for another's."""
        if exemplar.time > received:
            # Prometheus takes nothing older than what it has: one of the future would be the last of its series.
            exemplar = replace(exemplar, time=received)
        before = process.exemplars.get(series)
        if before is not None and not is_newer(exemplar.time, before.time, received):
            return
        if before is None:
            if adds_up(*series):
                process.own_weight += EXEMPLAR_WEIGHT
                self._own_bytes += EXEMPLAR_WEIGHT
            elif self._foreign_bytes + EXEMPLAR_WEIGHT <= FOREIGN_BYTES:
                process.foreign_weight += EXEMPLAR_WEIGHT
                self._foreign_bytes += EXEMPLAR_WEIGHT
            else:
                return
        process.exemplars[series] = exemplar

    def _share(self, process: Process, point: Point, received: int, refusals: Refusals, replayed: bool) -> bool:
        """Count a point whose series is one too many of its process."""
        key, name = key_of(point), point.metric.name
        if point.value is None:
            return False
        if key not in process.sharing:
            if self._sharing >= SHARING:
                refusals.add(f"{name} has {SHARING} attribute sets beyond {OWN_SERIES} in a process already", rule=name)
                return False
            self._sharing += 1
        by = growth(process.sharing, key, point.value)
        self.shared_points += 1
        held = self._find(process, name, SHARED)
        value = raised(None if held is None else held.value, by, point.value)
        start = point.start if held is None else held.start
        shared = point._replace(attributes=SHARED, value=value, start=start, delta=False)
        if held is None:
            held = begin(shared, value, process.instance.named, received)
            self._hold(process, point.metric, SHARED, held)
        else:
            held.apply(shared, received)
        if name == CALLS_BEFORE and process.counts_calls:
            return True
        reached = amount(held.value)
        self.sums.replace(process.instance.service, name, SHARED, reached - by, reached)
        spent = self.unbooked.amount(process.key, quarter_of(point.time, received), process.place(SHARED))
        spent.grow(FLEET_MEASURES.get(name, CALLS_FIELD), reached - by, reached)
        if name == semconv.COST.name and by and not replayed:
            self.burn.add(process.instance.service, by, received / 1e9)
        return by > 0

    def _stop_inferring_calls(self, process: Process, quarter: int) -> None:
        for name, attributes, counted in process.contributions():
            if name == CALLS_BEFORE:
                self.sums.replace(process.instance.service, name, attributes, counted, 0)
                self.unbooked.amount(process.key, quarter, process.place(attributes)).grow(CALLS_FIELD, counted, 0)

    def silent(self, now: float, limit: int) -> list[str]:
        """Processes that may leave memory: the long silent ones, and of too many the longest silent."""
        self.lives.judge()
        by_age = sorted(self.processes.values(), key=lambda process: process.seen)
        surplus = len(by_age) - limit
        # A crowd leaves a little more room than it needs, or the next one would wait again.
        over = len(by_age) - PROCESS_HARD_LIMIT * 3 // 4 if self.crowded else 0
        if self._own_bytes > OWN_BYTES:
            over = max(over, len(by_age) // 4)
        return [
            process.instance.key
            for index, process in enumerate(by_age)
            if index < over
            or (process.pulse.life is not Life.LIVE and (process.seen < now - SILENT_AFTER_S or index < surplus))
        ]

    @property
    def crowded(self) -> bool:
        """Whether some must leave at once. One alone stays, whatever it weighs."""
        many = len(self.processes)
        return many > PROCESS_HARD_LIMIT or (many > 1 and self._own_bytes > OWN_BYTES)

    def admit(self, process: Process) -> None:
        """Take a process back into memory; the totals have it already."""
        self._weigh(process, 1)
        self.processes[process.instance.key] = process

    def drop(self, key: str) -> Process:
        """Out of memory, not out of the totals."""
        process = self.processes.pop(key)
        self._weigh(process, -1)
        self.dirty.discard(key)
        return process

    def _weigh(self, process: Process, sign: int) -> None:
        self._own_bytes += sign * process.own_weight
        self._foreign_bytes += sign * process.foreign_weight
        self._sharing += sign * len(process.sharing)
        for name, _ in process.series:
            if name not in OWN_METRICS:
                self._foreign_names[name] += sign
                if self._foreign_names[name] <= 0:
                    del self._foreign_names[name], self.metrics[name]

    def absent_totals(self) -> list[tuple[TotalKey, list[float]]]:
        """The sums of all processes that are not in memory."""
        rest = self.sums.copy()
        for process in self.processes.values():
            for name, attributes, held in process.contributions():
                rest.replace(process.instance.service, name, attributes, held, 0.0)
        return [(group, parts) for group, parts in rest.groups() if parts]

    def recount_assumed(self) -> None:
        """Count the restarts that were assumed of all in memory."""
        self.assumed_restarts = sum(
            _assumed(held) for process in self.processes.values() for held in process.series.values()
        )


def _assumed(held: Series) -> int:
    return held.assumed if isinstance(held, Counted) else 0
