"""Between the agent's threads and the ledger: a queue on one side, a lock on the other.

``put`` is all that happens on an agent's thread. ``queue.SimpleQueue.put`` takes no Python lock and may be called from
a signal handler or a finalizer, so an interrupted thread can never hold what the flusher needs. Whoever reads the
ledger (the flusher, an observable's callback, a snapshot) holds ``lock`` and drains the queue first, so that it sees
everything that was put before. For that nobody may take an item out without the lock, not even to sleep on the queue:
the flusher sleeps on a bell, which ``put`` rings only while somebody sleeps until there is something to do. While a
flush is held back it dozes, and only ``ask`` rings.

The ledger holds how things are, so a run that begins right behind another's end would hide that end from whoever is
told of it. The flusher therefore stops there and goes on once it has sent something, unless much is waiting.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Final, cast

from opentelemetry.trace import SpanContext

from openhands_otel._internal.content import TitleAllowed
from openhands_otel._internal.guard import note_error
from openhands_otel._internal.ledger.account import RunRecord
from openhands_otel._internal.ledger.ledger import Ledger
from openhands_otel.events import (
    CallRetried,
    Condensed,
    ConversationClosed,
    ConversationOpened,
    CostAdded,
    Event,
    FirstChunk,
    LatencyRecorded,
    LLMCallEnded,
    LLMCallStarted,
    ResponseRecorded,
    RunEnded,
    RunStarted,
    TokensUsed,
    ToolEnded,
    ToolStarted,
)

URGENT: Final[frozenset[type[Event]]] = frozenset(
    (CostAdded, TokensUsed, LatencyRecorded, RunStarted, RunEnded, ConversationOpened, ConversationClosed)
)
"""Events that a viewer must see within milliseconds."""
LAZY: Final[frozenset[type[Event | TitleAllowed]]] = frozenset(
    (
        LLMCallStarted,
        LLMCallEnded,
        FirstChunk,
        CallRetried,
        ToolStarted,
        ToolEnded,
        ResponseRecorded,
        Condensed,
        TitleAllowed,
    )
)
"""Events that may wait for company. What stands in neither (MetricsMerged) wakes nobody."""
_MOST_BEHIND_AN_END: Final = 32
"""Items that may wait for an end to be sent. With more the agents are too busy for such detail."""
SAMPLES: Final[frozenset[type[Event]]] = frozenset((TokensUsed, LatencyRecorded, LLMCallEnded, FirstChunk, ToolEnded))
"""Events that are values of histograms. With a span, a cost is recorded too: as the exemplar of a counter."""
Measurement = CostAdded | TokensUsed | LatencyRecorded | LLMCallEnded | FirstChunk | ToolEnded | RunRecord


@dataclass(frozen=True, slots=True)
class OfSpan:
    """An event of a span that is sampled."""

    event: Event
    span: SpanContext


@dataclass(slots=True, eq=False)
class Wake:
    """Asks the flusher for something other than taking events in; ``done`` is fresh and nobody else's."""

    stop: bool
    """Whether to end afterwards."""
    last: bool = False
    """Whether the process may end behind it: a failure is not put up with while there is time."""
    until: float = 0.0
    """Monotonic time until which whoever asked waits."""
    done: threading.Event = field(default_factory=threading.Event)
    delivered: bool = False
    """Whether everything was delivered; stands when ``done`` is set."""


Item = Event | TitleAllowed | OfSpan


@dataclass(slots=True)
class Taken:
    """What was taken in since the flusher asked last, whoever drained it."""

    urgent_since: int | None = None
    lazy_since: int | None = None
    """When the oldest event of that kind happened, unix nanoseconds."""
    wakes: list[Wake] = field(default_factory=list[Wake])

    def __bool__(self) -> bool:
        return bool(self.urgent_since or self.lazy_since or self.wakes)


class Intake:
    """The queue, the ledger behind it, and what they hold for the flusher."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.lock = threading.RLock()
        self._queue: queue.SimpleQueue[Item | Wake] = queue.SimpleQueue()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._sleeping = False
        self._taken = Taken()
        self._next: Item | None = None
        """Where the flusher stopped: the begin of a run whose conversation has just ended another."""
        self._ended: set[str] = set()
        """Conversations whose run ended since something was sent."""
        self._is_asked = False
        """Whether somebody waits for all of it."""
        self.applied = 0
        """Events taken in: where it is as it was, nothing has changed."""
        self.to_record: deque[tuple[Measurement, SpanContext | None]] = deque()
        """What histograms have still to record: by the flusher alone, never inside a collection."""

    def put(self, item: Item) -> None:
        """Take an event; for any thread, also in a signal handler or a finalizer."""
        self._queue.put(item)
        if self._sleeping:
            self._sleeping = False
            self._bell.put(None)

    def ask(self, wake: Wake) -> None:
        """Take a wake, whatever the flusher does now; for the same places."""
        self._is_asked = True
        self._queue.put(wake)
        self._bell.put(None)

    def wait(self, timeout_s: float) -> None:
        """Sleep until something is put, at most ``timeout_s``. For the flusher alone."""
        self._sleeping = True
        try:
            if self._has_nothing():
                self._bell.get(timeout=max(0.0, timeout_s))
            self._sleeping = False
            while True:
                self._bell.get_nowait()
        except queue.Empty:
            self._sleeping = False

    def doze(self, timeout_s: float) -> None:
        """Sleep until somebody asks for something, at most ``timeout_s``. For the flusher alone."""
        try:
            self._bell.get(timeout=max(0.0, timeout_s))
            while True:
                self._bell.get_nowait()
        except queue.Empty:
            pass

    def _has_nothing(self) -> bool:
        # What was put before ``_sleeping`` stood is seen here or was drained by another thread, which holds the lock
        # until its flag stands; what comes after rings.
        with self.lock:
            return self._queue.empty() and not self._taken and self._next is None

    def drain(self, stops: bool = False) -> None:
        """Take in everything that is waiting; ``stops``: up to where an end would be hidden."""
        with self.lock:
            self._drain(stops)

    def take(self) -> Taken:
        """Drain up to where an end would be hidden, and say what came since this was last called. For the flusher."""
        with self.lock:
            self._drain(stops=True)
            taken, self._taken = self._taken, Taken()
            return taken

    def go_on(self) -> None:
        """Something was sent, or could not be: nothing waits for it any more. For the flusher alone."""
        with self.lock:
            self._ended.clear()

    def _drain(self, stops: bool) -> None:
        try:
            while True:
                item = self._queue.get_nowait() if self._next is None else self._next
                self._next = None
                if stops and self._hides_an_end(item):
                    self._next = cast(Item, item)
                    return
                self._take(item)
        except queue.Empty:
            pass

    def _hides_an_end(self, item: Item | Wake) -> bool:
        if not self._ended or self._is_asked or self._queue.qsize() > _MOST_BEHIND_AN_END:
            return False
        event = item.event if isinstance(item, OfSpan) else item
        return isinstance(event, RunStarted) and event.conversation_id in self._ended

    def _take(self, item: Item | Wake) -> None:
        kind = type(item)
        if kind is Wake:
            self._taken.wakes.append(cast(Wake, item))
            self._is_asked = False
            return
        span = None
        if kind is OfSpan:
            of_span = cast(OfSpan, item)
            item, span = of_span.event, of_span.span
            kind = type(item)
        event = cast(Event, item)
        try:
            run = self.ledger.apply(event)
        except Exception as error:
            note_error("Ledger.apply", error)
            return
        self.applied += 1
        if kind in SAMPLES or (span is not None and kind is CostAdded):
            self.to_record.append((cast(Measurement, event), span))
        if run is not None:
            self.to_record.append((run, span))
        if kind is RunEnded:
            self._ended.add(cast(RunEnded, event).conversation_id)
        if kind in URGENT:
            self._taken.urgent_since = self._taken.urgent_since or event.at
        elif kind in LAZY:
            self._taken.lazy_since = self._taken.lazy_since or event.at
