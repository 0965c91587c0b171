"""The fleet's totals: attribute sets from small sets of values, and sums by them, with caps."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from openhands_otel import semconv
from openhands_otel._internal.exact import ExactSum
from openhands_otel._internal.labels import Labels
from openhands_otel.events import Origin
from openhands_otel.semconv import CostSource, Operation, Role

LABEL_VALUES_LIMIT = 50
"""Values of one label on fleet counters; later ones share one."""

MoreAttributes = tuple[tuple[str, str | int], ...]
"""Attributes, as they are called on the wire."""


class FleetKey(NamedTuple):
    """Attribute set of a fleet counter."""

    provider: str
    model: str
    operation: Operation
    agent: str | None
    role: Role
    fallback: bool
    source: CostSource | None = None
    labels: Labels = ()
    detail: MoreAttributes = ()
    """What only the newest GenAI names tell."""


def agent_key(agent: str | None) -> FleetKey:
    """Key of what is an agent's and no LLM's."""
    return FleetKey("", "", Operation.INVOKE_AGENT, agent, Role.AGENT, False)


OVERFLOW_KEY = FleetKey("", "", Operation.CHAT, None, Role.OTHER, False)
"""Stands for the bucket that takes what the cap keeps out."""


class FleetTotals:
    """Totals of one fleet counter by attribute set, with a cap."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sums: dict[FleetKey, ExactSum] = {}
        self.overflowed = 0

    def of(self, key: FleetKey) -> tuple[ExactSum, bool]:
        """The total of ``key``, or of OVERFLOW_KEY where there is no room for another; whether it is ``key``'s own."""
        total = self._sums.get(key)
        if total is not None:
            return total, True
        own = len(self._sums) < self._limit
        if not own:
            self.overflowed += 1
            key = OVERFLOW_KEY
        return self._sums.setdefault(key, ExactSum()), own

    @property
    def total(self) -> float:
        """Over all attribute sets, rounded once."""
        total = ExactSum()
        for each in self._sums.values():
            total.include(each)
        return total.value

    def items(self) -> Iterable[tuple[FleetKey, float]]:
        """Current totals."""
        return [(key, total.value) for key, total in self._sums.items()]


class FleetLabels:
    """Which labels fleet counters have: those of a list, of each so many values; more share one value."""

    def __init__(self, names: Collection[str]) -> None:
        self._values: dict[str, set[str]] = {name: set() for name in names}

    def of(self, labels: Labels) -> tuple[Labels, bool]:
        """Those of ``labels``, and whether a value had to give way to the shared one."""
        found: list[tuple[str, str]] = []
        gave_way = False
        for name, value in labels:
            known = self._values.get(name)
            if known is None:
                continue
            if value not in known:
                if len(known) >= LABEL_VALUES_LIMIT:
                    value, gave_way = semconv.OVERFLOW, True
                else:
                    known.add(value)
            found.append((name, value))
        return tuple(found), gave_way


def fleet_key(
    origin: Origin, source: CostSource | None = None, labels: Labels = (), detail: MoreAttributes = ()
) -> FleetKey:
    """Key of what belongs to an LLM call."""
    return FleetKey(
        origin.provider,
        origin.model,
        origin.operation,
        origin.agent,
        origin.role,
        origin.fallback,
        source,
        labels,
        detail,
    )
