"""The sums over all processes, exact for ever: kept up to date by differences, never summed anew.

The grand totals are separate from the parts (by model, role ...) so that a flood of attribute values costs the parts
their detail and never the totals their truth.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from copy import copy
from typing import Final

from openhands_otel import semconv
from openhands_otel._internal.collector.points.series import Attributes
from openhands_otel._internal.exact import ExactSum
from openhands_otel._internal.spend.amounts import COUNTERS, Amount, shares
from openhands_otel._internal.spend.rows import BURN_WINDOW_S
from openhands_otel.stats import BurnRate, Share, TokenUsage

TOTAL_METRICS: Final = frozenset(
    metric.name
    for metric in (
        semconv.COST,
        *semconv.TOKEN_COUNTERS.values(),
        semconv.CALLS,
        semconv.UNPRICED_CALLS,
        semconv.CACHE_SAVINGS,
        semconv.RESPONSE_LATENCY,
    )
)
"""Fleet metrics that are summed up and kept."""
CALLS_BEFORE: Final = semconv.RESPONSE_LATENCY.name
"""Stands for the calls of processes that have no counter of them: agents before it was made."""

_GROUP_LIMIT: Final = 5_000
_BURN_LEAST_S: Final = 60

_OVERFLOWN: Final[Attributes] = ((semconv.METRIC_OVERFLOW, True),)
_BURNING: Final = 1_000
"""Services whose spend of one second is told apart."""

TotalKey = tuple[str, str, Attributes]
"""Service, metric, attributes."""


class TotalSums:
    """Totals by metric, and by service, metric and attribute set."""

    def __init__(self) -> None:
        self._grand = {name: ExactSum() for name in TOTAL_METRICS}
        self._groups: dict[TotalKey, ExactSum] = {}

    def replace(self, service: str, metric: str, attributes: Attributes, before: float, after: float) -> None:
        """One series went from ``before`` to ``after``; their difference may not be a float, so both are booked."""
        if metric == CALLS_BEFORE:
            metric = semconv.CALLS.name
        grand = self._grand[metric]
        grand.add(-before)
        grand.add(after)
        group = (service, metric, attributes)
        held = self._groups.get(group)
        if held is None:
            if len(self._groups) >= _GROUP_LIMIT:
                # Services are as many as senders like: of those that came too late, one stands for the others.
                named = service if len(self._groups) < 2 * _GROUP_LIMIT else semconv.OVERFLOW
                group = (named, metric, _OVERFLOWN)
            held = self._groups.setdefault(group, ExactSum())
        held.add(-before)
        held.add(after)

    def copy(self) -> TotalSums:
        copied = TotalSums()
        copied._grand = {name: copy(held) for name, held in self._grand.items()}
        copied._groups = {group: copy(held) for group, held in self._groups.items()}
        return copied

    def of_service(self, service: str) -> TotalSums:
        """One service's share of them, to be read."""
        theirs = TotalSums()
        for group, held in self._groups.items():
            # What stands for services that came too late is nobody's, whatever it is called.
            if group[0] == service and group != (semconv.OVERFLOW, group[1], _OVERFLOWN):
                theirs._groups[group] = held
                theirs._grand[group[1]].include(held)
        return theirs

    def groups(self) -> Iterator[tuple[TotalKey, list[float]]]:
        """The parts that add up to the totals, each as numbers that have to be added up exactly."""
        return ((group, held.parts) for group, held in self._groups.items())

    def value(self, metric: semconv.Metric) -> float:
        return self._grand[metric.name].value

    @property
    def cost(self) -> float:
        return self.value(semconv.COST)

    @property
    def calls(self) -> int:
        return int(self.value(semconv.CALLS))

    @property
    def tokens(self) -> TokenUsage:
        return _amount(self._grand).tokens

    def by_attribute(self, attribute: str) -> tuple[Share, ...]:
        """Parts by one attribute's value."""
        return self._shares(
            (str(dict(attributes).get(attribute, semconv.UNKNOWN)), metric, held)
            for (_, metric, attributes), held in self._groups.items()
        )

    def by_service(self) -> tuple[Share, ...]:
        """Parts by the service that spent."""
        return self._shares((service, metric, held) for (service, metric, _), held in self._groups.items())

    def _shares(self, parts: Iterator[tuple[str, str, ExactSum]]) -> tuple[Share, ...]:
        sums: dict[str, dict[str, ExactSum]] = {}
        for name, metric, held in parts:
            total = sums.setdefault(name, {}).setdefault(metric, ExactSum())
            total.include(held)
        return shares({name: _amount(held) for name, held in sums.items()})


class BurnMeter:
    """What was spent in the last five minutes, by seconds, whatever the wall clock did meanwhile."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._spent: deque[tuple[int, dict[str | None, float]]] = deque()
        """By seconds, and in each by service; None stands for those that were too many."""

    def add(self, service: str, cost: float, at: float) -> None:
        """``at``: when it arrived, unix seconds; a while ago where the journal tells it again."""
        second = int(self._forget() - max(0.0, time.time() - at))
        if not (self._spent and self._spent[-1][0] == second):
            self._spent.append((second, {}))
        by_service = self._spent[-1][1]
        name = service if service in by_service or len(by_service) < _BURNING else None
        by_service[name] = by_service.get(name, 0.0) + cost

    def _forget(self) -> float:
        now = time.monotonic()
        while self._spent and self._spent[0][0] < now - BURN_WINDOW_S:
            self._spent.popleft()
        return now

    def rate(self, service: str | None = None) -> BurnRate:
        """Of one service, or of all."""
        window = min(BURN_WINDOW_S, max(_BURN_LEAST_S, self._forget() - self._began))
        spent = (each.values() if service is None else [each.get(service, 0.0)] for _, each in self._spent)
        per_second = sum(map(sum, spent)) / window
        return BurnRate(per_minute=per_second * 60, per_hour=per_second * 3600, window_s=window)

    @property
    def burning(self) -> bool:
        return bool(self._spent)

    @staticmethod
    def is_recent(start: int, at: int) -> bool:
        """Whether a stream seen for the first time had just begun (unix nanoseconds, both by its sender's clock)."""
        return at - start < BURN_WINDOW_S * 1e9


def _amount(sums: Mapping[str, ExactSum]) -> Amount:
    """Sums by metric as one amount."""
    amount = Amount()
    for metric, field in COUNTERS.items():
        if metric.name in sums:
            amount.grow(field, 0.0, sums[metric.name].value)
    return amount
