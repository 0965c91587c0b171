"""What the processes that worked on one conversation say of it, by series; and which of them is to be believed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from openhands_otel import semconv
from openhands_otel._internal.facts import FACTS
from openhands_otel.semconv import Metric

AttributeValue = str | bool | int | float
Attributes = tuple[tuple[str, AttributeValue], ...]
"""Sorted by name, so equal sets are equal keys."""
SeriesKey = tuple[str, Attributes]
"""Process, and attributes without the conversation's id (none for what has one slot)."""

Heard = tuple[int, int]
"""1 for what was heard live, 0 for what was told after the event; and when, by the collector's clock."""
NEVER: Final = (0, 0)

SLOTS: Final = frozenset(fact.metric.name for fact in FACTS if fact.slot)
"""Metrics of which a process has one series at a time."""
LASTING: Final = frozenset(fact.metric.name for fact in FACTS if fact.lasting)
"""Metrics whose series end only with the conversation."""


class ToldStream(Protocol):
    """One series of one process. Times are unix nanoseconds."""

    @property
    def start(self) -> int: ...
    @property
    def time(self) -> int:
        """The newest stamp."""
        ...

    @property
    def ended(self) -> bool: ...
    @property
    def total(self) -> int | float: ...


@dataclass(slots=True)
class ProcessSeries[S: ToldStream]:
    """A series of one process and the attributes it carries now."""

    process: str
    series: S
    attributes: Attributes
    heard: Heard
    """When it last said something new, its end apart."""

    def named(self, attribute: str) -> str | None:
        """What an attribute says."""
        return next((str(value) for name, value in self.attributes if name == attribute), None)


class ToldSeries[S: ToldStream]:
    """All series of one conversation, by metric."""

    __slots__ = ("_by_metric", "taken_up")

    def __init__(self) -> None:
        self._by_metric: dict[str, dict[SeriesKey, ProcessSeries[S]]] = {}
        self.taken_up: dict[str, Heard] = {}
        """When each process began, or began again, to work on the conversation."""

    def of(self, metric: Metric) -> Collection[ProcessSeries[S]]:
        """The series of one metric."""
        held = self._by_metric.get(metric.name)
        return () if held is None else held.values()

    @property
    def metrics(self) -> Iterable[str]:
        """Names of those that there were series of."""
        return self._by_metric.keys()

    def each(self) -> Iterator[tuple[str, ProcessSeries[S]]]:
        """Every series, with its metric's name."""
        for name, of_metric in self._by_metric.items():
            for held in of_metric.values():
                yield name, held

    def totals(self, metric: Metric) -> list[int | float]:
        """The values of one metric."""
        return [held.series.total for held in self.of(metric)]

    def newest(self, metric: Metric) -> ProcessSeries[S] | None:
        """What was heard last of one metric, ended or not."""
        of_metric = self.of(metric)
        return next(iter(of_metric)) if len(of_metric) == 1 else _newest(of_metric)

    def current(self, metric: Metric) -> ProcessSeries[S] | None:
        """What was heard last of those that have not ended; of all, where all have."""
        if len(self.of(metric)) < 2:
            return self.newest(metric)
        return _newest(held for held in self.of(metric) if not held.series.ended) or self.newest(metric)

    @property
    def last_process(self) -> str:
        """The process that took the conversation up last."""
        if len(self.taken_up) == 1:
            return next(iter(self.taken_up))
        return max(self.taken_up, key=lambda process: self.taken_up[process], default="")

    @property
    def state(self) -> ProcessSeries[S] | None:
        """What the process says of the conversation's state that is to be believed."""
        of_metric = self.of(semconv.CONVERSATION_STATE)
        if len(of_metric) == 1:
            return next(iter(of_metric))
        last = self.last_process

        def rank(held: ProcessSeries[S]) -> tuple[bool, Heard, int]:
            # Whoever has handed it on may close what is no longer his.
            handed_on = held.process != last and held.named(semconv.CONVERSATION_STATUS) == semconv.Status.CLOSED
            return not handed_on, held.heard, held.series.time

        return max(of_metric, key=rank, default=None)

    @property
    def status(self) -> str | None:
        """The conversation's state."""
        state = self.state
        return None if state is None else state.named(semconv.CONVERSATION_STATUS)

    def spoken(self, metric: Metric) -> ProcessSeries[S] | None:
        """What the process that says the state says of another metric now."""
        state = self.state
        process = self.last_process if state is None else state.process
        held = next((held for held in self.of(metric) if held.process == process), None)
        return None if held is None or held.series.ended else held

    @property
    def closed(self) -> bool:
        """Closed by the process that took it up last; one before may have died without a word."""
        last = self.last_process
        return self.status == semconv.Status.CLOSED or any(
            held.series.ended and held.process == last
            for name, of_metric in self._by_metric.items()
            if name in LASTING
            for held in of_metric.values()
        )


def takes_up[S: ToldStream](name: str, held: ProcessSeries[S] | None, attributes: Attributes) -> bool:
    """Whether what takes the place of ``held`` says that its process works on the conversation again."""
    if name == semconv.CONVERSATION_STATE.name:
        if held is not None and held.attributes == attributes:
            return False
        status = dict(attributes).get(semconv.CONVERSATION_STATUS)
        before = None if held is None else held.named(semconv.CONVERSATION_STATUS)
        return status != before and (status == semconv.Status.RUNNING or before == semconv.Status.CLOSED)
    return held is not None and held.series.ended and name in LASTING


def _newest[S: ToldStream](some: Iterable[ProcessSeries[S]]) -> ProcessSeries[S] | None:
    return max(some, key=lambda held: (held.heard, held.series.time), default=None)
