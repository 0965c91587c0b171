"""Tells the viewers of each change, and those that come (again) of what they missed."""

from __future__ import annotations

import time
from collections import deque
from typing import Final, NamedTuple

from openhands_otel._internal.collector.archive.history import Archive
from openhands_otel._internal.collector.known import Known
from openhands_otel._internal.collector.points.refusals import Refusals
from openhands_otel._internal.collector.sight import Sight
from openhands_otel._internal.collector.state.conversation import Conversation
from openhands_otel._internal.collector.state.stream import ROW_LIMIT
from openhands_otel.stats import (
    ConversationUpdate,
    RemovedUpdate,
    SnapshotUpdate,
    TotalsUpdate,
)

_TOLD_REFUSALS: Final = 8
"""Refusals that go with every update; the state has all that are held."""


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

    def tell_conversation(self, conversation: Conversation, received: int) -> None:
        """Tell viewers of its state; where that was told often just now, of its state in a moment."""
        subject = f"conversation {conversation.id}"
        if self.broker.holds(subject, ROW_LIMIT, lambda: self.tell_conversation(conversation, received)):
            return
        conversation.changed_seq = position = self.broker.advance()
        for service in self.broker.services:
            update = self._conversation_update(self.sight(service), conversation, received)
            if update is not None:
                self.broker.publish(subject, update, position, service)

    def tell_totals(self, received: int) -> None:
        position = self.broker.advance()
        for service in self.broker.services:
            self.broker.publish("totals", self._totals_update(self.sight(service), received), position, service)

    def tell_removed(self, conversation: Conversation) -> None:
        removed = _Removed(self.broker.advance(), conversation.id, frozenset(conversation.services.values()))
        self._removed.append(removed)
        subject = f"conversation {removed.id}"
        self.broker.forget(subject)
        for service in self.broker.services:
            if removed.concerns(service):
                self.broker.publish(subject, RemovedUpdate(conversation_id=removed.id), removed.position, service)

    def greeting(self, last_event_id: str | None, service: str | None = None) -> bytes:
        """What a viewer (of one service, or of all) gets first: what it missed, or everything."""
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
            (one for one in self.conversations.by_id.values() if one.changed_seq > since),
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
