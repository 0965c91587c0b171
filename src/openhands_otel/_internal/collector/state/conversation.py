"""One conversation: what every process that worked on it says, and the constant-size state that viewers see."""

from __future__ import annotations

import math
from datetime import tzinfo
from typing import Any, Final

from openhands_otel import semconv
from openhands_otel._internal.collector.points.decode import Instance
from openhands_otel._internal.collector.points.limits import CONVERSATION_WEIGHT
from openhands_otel._internal.collector.points.series import Attributes, Point
from openhands_otel._internal.collector.state.erased import Erased
from openhands_otel._internal.collector.state.placing import (
    CONVERSATION_RECORDS,
    UNDATED,
    Cube,
    RecordKey,
    Unbooked,
    conversation_measure,
    place_of,
)
from openhands_otel._internal.collector.state.runs import Moment, Runs
from openhands_otel._internal.collector.state.series_set import SeriesSet
from openhands_otel._internal.combining.building import Life, of_life, parent_of, stats_of
from openhands_otel._internal.combining.naming import labels_in
from openhands_otel._internal.exact import ExactSum
from openhands_otel.stats import ConversationStats

_RESULTS: Final = frozenset({semconv.Status.FINISHED, semconv.Status.ERROR, semconv.Status.STUCK})
"""States in which a run leaves a conversation and that say how it ended."""


class Conversation:
    """What is held of one conversation."""

    __slots__ = (
        "_own_cost",
        "_stats",
        "changed_seq",
        "folded_cost",
        "folded_descendants",
        "folded_into",
        "folded_services",
        "heard",
        "id",
        "life",
        "parent_id",
        "process_labels",
        "received",
        "result",
        "runs",
        "seen",
        "series",
        "services",
        "speaker",
    )

    def __init__(self, conversation_id: str) -> None:
        self.id = conversation_id
        self.series = SeriesSet()
        self.runs = Runs(conversation_id)
        self.services: dict[str, str] = {}
        """Service names by process."""
        self.process_labels: dict[str, str] = {}
        """Labels of the processes, those of the one that was heard of last over others'."""
        self.parent_id: str | None = None
        self.result: str | None = None
        """What the last state said of a run's end, for senders that say no outcome; closing takes nothing back."""
        self.seen = 0.0
        self.received = 0
        self.heard: float | None = None
        """When something was said of it last, seconds awake (``liveness.py``)."""
        self.speaker = ""
        """The process that spoke of it last."""
        self.life = Life.LIVE
        """Of that process."""
        self.changed_seq = 0
        self.folded_cost = ExactSum()
        """What conversations under this one cost that have left memory."""
        self.folded_descendants = 0
        self.folded_services: set[str] = set()
        """Whose these were, and are or have been; of older archives nobody knows, which an empty name stands for."""
        self.folded_into: str | None = None
        """The parent that has its cost while it is out of memory."""
        self._stats: ConversationStats | None = None
        self._own_cost: float | None = None

    @property
    def weight(self) -> int:
        """Bytes that it takes, about."""
        return CONVERSATION_WEIGHT + self.series.weight

    def apply(
        self, instance: Instance, point: Point, attributes: Attributes, received: int, replayed: bool = False
    ) -> bool:
        """Take one point (``attributes``: without the conversation's id); True when anything changed."""
        if not self.series.apply(instance, point, attributes, received, replayed):
            return False
        if instance.key not in self.services:
            self.process_labels |= labels_in(instance.resource)
        self.services[instance.key] = instance.service
        self._stats = self._own_cost = None
        if point.metric.name == semconv.CONVERSATION_INFO.name:
            self._find_parent()
        elif point.metric.name == semconv.CONVERSATION_STATE.name:
            self._note_result()
        return True

    def is_of(self, service: str) -> bool:
        """Whether all processes that worked on it were of one service."""
        return bool(self.services) and all(each == service for each in self.services.values())

    @property
    def key(self) -> RecordKey:
        """Of its record."""
        return CONVERSATION_RECORDS, self.id

    @property
    def _agent(self) -> str:
        info = self.series.current(semconv.CONVERSATION_INFO)
        return (None if info is None else info.named(semconv.AGENT_NAME)) or ""

    def book(self, unbooked: Unbooked) -> bool:
        """Book what its series grew by since it was asked last; True if anything is to be written."""
        now = self._moment()
        grown, self.series.grown = self.series.grown, []
        tools, self.series.tool_calls = self.series.tool_calls, 0
        run = self.runs.begin(now, any(growth.is_agents for growth in grown), tools)
        agent = self._agent if grown else ""
        for growth in grown:
            whose = growth.instance
            place = place_of(Cube.CONVERSATIONS, self.id, whose.resource, whose.service, growth.attributes)
            place = place._replace(agent=agent, run=run)
            for quarter, low, high in growth.steps:
                unbooked.amount(self.key, quarter, place).grow(growth.measure, low, high)
        self.runs.end(now)
        return bool(grown)

    def _since(self, process: str) -> float:
        return next((since for name, since, _ in self.series.held_by() if name == process), 0.0)

    def _moment(self) -> Moment:
        state, outcome = self.series.state, self.series.newest(semconv.CONVERSATION_OUTCOME)
        stands = outcome is not None and not outcome.series.ended and bool(outcome.series.total)
        process = "" if state is None else state.process
        return Moment(
            status=None if state is None else state.named(semconv.CONVERSATION_STATUS),
            process=process,
            at=0.0 if state is None else state.series.time / 1e9,
            since=self._since(process) if self.runs.is_new(process) else 0.0,
            outcome=outcome.named(semconv.RUN_OUTCOME) if outcome is not None and stands else None,
            error=outcome.named(semconv.ERROR_TYPE) if outcome is not None and stands else None,
        )

    def book_undated(self, unbooked: Unbooked) -> None:
        """Book all of it, without a date."""
        self.series.grown, self.series.tool_calls = [], 0
        agent = self._agent
        for name, held in self.series.each():
            measure = conversation_measure(name, held.attributes)
            if measure is not None:
                service = self.services.get(held.process, "")
                place = place_of(Cube.CONVERSATIONS, self.id, (), service, held.attributes)
                spent = unbooked.amount(self.key, UNDATED, place._replace(agent=agent))
                spent.grow(measure, 0, held.series.total)

    def held_by(self) -> list[tuple[str, float, float]]:
        """Each process that worked on it, since when and until when (unix seconds)."""
        return self.series.held_by()

    def _note_result(self) -> None:
        status = self.series.status
        if status != semconv.Status.CLOSED:
            self.result = status if status in _RESULTS else None

    def _find_parent(self) -> None:
        self.parent_id = parent_of(self.id, self.series)

    @property
    def own_cost(self) -> float:
        if self._own_cost is None:
            self._own_cost = math.fsum(self.series.totals(semconv.CONVERSATION_COST))
        return self._own_cost

    @property
    def closed(self) -> bool:
        """Closed by the process that took it up last."""
        return self.series.closed

    @property
    def attended(self) -> bool:
        """Open, and its process is there."""
        return self.life is Life.LIVE and not self.closed

    @property
    def status(self) -> str | None:
        """What its process says that it does."""
        return self.series.status

    def stats(self, tree_cost: float, descendants: int, zone: tzinfo | None = None) -> ConversationStats:
        """The state that viewers see; what lies under it is known to the caller, and in which ``zone`` they are."""
        if self._stats is None:
            stats = stats_of(self.id, self.series, self.services, self.process_labels, zone)
            untold = self.series.newest(semconv.CONVERSATION_OUTCOME) is None
            self._stats = stats.model_copy(update={"outcome": self.result}) if untold else stats
        update: dict[str, Any] = {
            "tree_cost": tree_cost,
            "descendants": descendants,
            "received_unix_nano": self.received,
            **of_life(self.life, self._stats.closed),
        }
        return self._stats.model_copy(update=update)

    def record(self) -> dict[str, Any]:
        """What the archive keeps, plain enough for JSON."""
        return {
            "id": self.id,
            "seen": self.seen,
            "received": self.received,
            "speaker": self.speaker,
            "life": str(self.life),
            "services": self.services.copy(),
            "process_labels": self.process_labels.copy(),
            "folded_cost": self.folded_cost.parts,
            "folded_descendants": self.folded_descendants,
            "folded_into": self.folded_into,
            "folded_services": sorted(self.folded_services),
            "taken_up": self.series.taken_up,
            "result": self.result,
            "run": self.runs.record(),
            "held": self.series.records(),
            **({"erased": erased} if (erased := self.series.erased.record()) else {}),
        }

    @classmethod
    def forgotten(cls, conversation_id: str, record: dict[str, Any]) -> Conversation:
        """One that speaks again, by what stands for it."""
        conversation = cls(conversation_id)
        conversation.series.erased = Erased.from_record(record)
        return conversation

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Conversation:
        conversation = cls(record["id"])
        conversation.seen = record["seen"]
        conversation.received = record["received"]
        conversation.speaker = record.get("speaker", "")
        conversation.life = Life(record.get("life", Life.LIVE))
        conversation.services = dict(record["services"])
        conversation.process_labels = dict(record.get("process_labels", {}))
        conversation.folded_cost = ExactSum(record["folded_cost"])
        conversation.folded_descendants = record["folded_descendants"]
        conversation.folded_into = record["folded_into"]
        conversation.folded_services = set(
            record.get("folded_services", [""] if conversation.folded_descendants else [])
        )
        conversation.series.restore(record["held"], record.get("taken_up"), conversation.received)
        conversation.series.erased = Erased.from_record(record.get("erased", {}))
        conversation._find_parent()
        conversation.result = record.get("result")
        conversation.runs.restore(record.get("run"))
        conversation._note_result()
        return conversation
