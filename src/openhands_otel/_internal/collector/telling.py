"""Tells the viewers of each change, and those that come (again) of what they missed."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, Final, NamedTuple

from openhands_otel._internal.collector.archive.history import Archive
from openhands_otel._internal.collector.known import Known
from openhands_otel._internal.collector.points.refusals import Refusals
from openhands_otel._internal.collector.sight import Sight
from openhands_otel._internal.collector.state.conversation import Conversation
from openhands_otel._internal.collector.state.stream import CHANGES_EVERY_S, ROWS_A_SECOND
from openhands_otel.stats import (
    ChangesUpdate,
    ConversationStats,
    ConversationUpdate,
    RemovedUpdate,
    SnapshotUpdate,
    TotalsUpdate,
)

STREAM: Final = "live updates"
"""Part whose health is told."""
_TOLD_REFUSALS: Final = 8
"""Refusals that go with every update; the state has all that are held."""

_PARTS: Final = frozenset({"costs", "usage_to_metrics", "calls_by_model"})
"""What only the page of a conversation shows; elsewhere it matters what parts there are."""
_FIELDS: Final = tuple(name for name in ConversationStats.model_fields if name != "conversation_id")


def changes(before: ConversationStats, now: ConversationStats) -> dict[str, Any]:
    """A row's id with those of its fields that are others than before."""
    row: dict[str, Any] = {"conversation_id": now.conversation_id}
    for name in _FIELDS:
        old, new = getattr(before, name), getattr(now, name)
        if (len(old) != len(new)) if name in _PARTS else (old is not new and old != new):
            row[name] = new
    return row


class _Removed(NamedTuple):
    position: int
    id: str
    services: frozenset[str]

    def concerns(self, service: str | None) -> bool:
        return service is None or service in self.services


class Telling(Known):
    """What is known, with those who are to hear of it."""

    def __init__(self, archive: Archive) -> None:
        super().__init__(archive)
        self._removed: deque[_Removed] = deque(maxlen=5_000)
        self._changed: set[str] = set()
        """Conversations of whose changes is to be told."""
        self._last_told: dict[tuple[str | None, str], ConversationStats] = {}
        """What those who are told of changes know of a conversation, by the service that they look at."""
        self._telling: asyncio.TimerHandle | None = None
        self._told_at = -CHANGES_EVERY_S

    def tell_conversation(self, conversation: Conversation, received: int) -> None:
        """Tell viewers of its state; where that was told often just now, of its state in a moment."""
        self._mark(conversation)
        subject = f"conversation {conversation.id}"
        services = self.broker.services(by_changes=False)
        if not services and self.broker.viewers:
            return
        if self.broker.holds(subject, ROWS_A_SECOND, lambda: self.tell_conversation(conversation, received)):
            return
        conversation.changed_seq = position = self.broker.advance()
        for service in services:
            update = self._conversation_update(self.sight(service), conversation, received)
            if update is not None:
                self.broker.publish(subject, update, position, service)

    def tell_totals(self, received: int) -> None:
        self._soon()
        services = self.broker.services(by_changes=False)
        position = self.broker.advance()
        for service in services:
            self.broker.publish("totals", self._totals_update(self.sight(service), received), position, service)

    def _mark(self, conversation: Conversation) -> None:
        if self.broker.services(by_changes=True):
            self._changed.add(conversation.id)
            self._soon()
        else:
            self._last_told.clear()

    def _soon(self) -> None:
        """Tell those who are told of changes: now, where nothing was told just before."""
        if self._telling is None and self.broker.services(by_changes=True):
            loop = asyncio.get_running_loop()
            self._telling = loop.call_at(max(loop.time(), self._told_at + CHANGES_EVERY_S), self._tell_changes)

    def _tell_changes(self) -> None:
        self._telling, self._told_at = None, asyncio.get_running_loop().time()
        changed, self._changed = self._changed, set[str]()
        try:
            self._tell_changes_in(changed)
        except Exception as error:
            # Told again with the next change, and whole: how far it came is not known.
            self._changed |= changed
            self._last_told.clear()
            self.health.failed(STREAM, error)

    def _tell_changes_in(self, changed: set[str]) -> None:
        found = [one for one in map(self.conversations.by_id.get, changed) if one is not None]
        position = self.broker.advance()
        for conversation in found:
            conversation.changed_seq = position
        for service in self.broker.services(by_changes=True):
            sight = self.sight(service)
            self._tell_changes_of(sight, found, position)
            totals = self._totals_update(sight, self.received)
            self.broker.publish("totals", totals, position, service, by_changes=True)

    def _tell_changes_of(self, sight: Sight, changed: list[Conversation], position: int) -> None:
        rows: list[dict[str, Any]] = []
        wholes = self.broker.wholes(sight.service)
        for conversation in changed:
            update = self._conversation_update(sight, conversation, conversation.received)
            key = sight.service, conversation.id
            before = self._last_told.pop(key, None)
            subject = f"conversation {conversation.id}"
            if isinstance(update, ConversationUpdate):
                self._last_told[key] = update.conversation
                if before is not None:
                    rows.append(changes(before, update.conversation))
                    if conversation.id in wholes:
                        self.broker.publish(subject, update, position, sight.service, True, conversation.id)
                    continue
            if update is not None:
                self.broker.publish(subject, update, position, sight.service, by_changes=True)
        if rows:
            update = ChangesUpdate(conversations=tuple(rows))
            self.broker.publish(f"changes {position}", update, position, sight.service, by_changes=True)

    def tell_removed(self, conversation: Conversation) -> None:
        removed = _Removed(self.broker.advance(), conversation.id, frozenset(conversation.services.values()))
        self._removed.append(removed)
        subject = f"conversation {removed.id}"
        self.broker.forget(subject)
        update = RemovedUpdate(conversation_id=removed.id)
        for by_changes in (False, True):
            for service in filter(removed.concerns, self.broker.services(by_changes)):
                self._last_told.pop((service, removed.id), None)
                self.broker.publish(subject, update, removed.position, service, by_changes)

    def greeting(self, last_event_id: str | None, service: str | None = None, whole: str | None = None) -> bytes:
        """What a viewer (of one service, or of all) gets first: what it missed and the ``whole`` row, or everything."""
        if self._telling is not None:
            # Who comes is told what is known now. A row that then became what was told before would not be told again.
            self._telling.cancel()
            self._tell_changes()
        sight, position = self.sight(service), self.broker.position
        since = self.broker.position_of(last_event_id)
        if since is None or since < self._forgotten:
            return self.broker.frame(SnapshotUpdate(state=sight.state()), position)
        now = time.time_ns()
        frames = [
            self.broker.frame(RemovedUpdate(conversation_id=removed.id), removed.position)
            for removed in self._removed
            if removed.position > since and removed.id not in self.conversations and removed.concerns(service)
        ]
        missed = sorted(
            (one for one in self.conversations.by_id.values() if one.changed_seq > since or one.id == whole),
            key=lambda conversation: conversation.changed_seq,
        )
        for conversation in missed:
            update = self._conversation_update(sight, conversation, conversation.received)
            if update is not None:
                frames.append(self.broker.frame(update, position))
        frames.append(self.broker.frame(self._totals_update(sight, now), position))
        return b"".join(frames)

    def _conversation_update(
        self, sight: Sight, conversation: Conversation, received: int
    ) -> ConversationUpdate | RemovedUpdate | None:
        """What is told of a change of one; None where it is none of theirs."""
        if conversation.id in sight.conversations:
            return ConversationUpdate(received_unix_nano=received, conversation=sight.conversations.stats(conversation))
        # Another service has taken it up, so it is out of sight now.
        shared = sight.service in conversation.services.values()
        return RemovedUpdate(conversation_id=conversation.id) if shared else None

    @property
    def _forgotten(self) -> int:
        """The position up to which removals are no longer remembered."""
        return self._removed[0].position if len(self._removed) == self._removed.maxlen else 0

    def _totals_update(self, sight: Sight, received: int) -> TotalsUpdate:
        troubled = self.health.problems or self.refusals.total
        receiver = sight.receiver_stats(_TOLD_REFUSALS) if troubled else None
        return TotalsUpdate(received_unix_nano=received, totals=sight.totals(), receiver=receiver)

    def refuse(self, refusals: Refusals) -> None:
        """Tell what was left out of one request."""
        if refusals.count:
            self.refusals.take(refusals)
            self.tell_trouble()

    def refuse_request(self, reason: str, peer: str) -> None:
        """A whole request was refused; ``peer`` is the address it came from."""
        self.counts.refused_requests += 1
        self.refusals.refuse_request(reason, peer)
        self.tell_trouble()
