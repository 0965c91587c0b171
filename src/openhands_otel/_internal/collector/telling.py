"""Tells the viewers of each change, and those that come (again) of what they missed."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from openhands_otel._internal.collector.archive.history import Archive
from openhands_otel._internal.collector.known import Known
from openhands_otel._internal.collector.points.refusals import Refusals
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


class Telling(Known):
    """What is known, with those who are to hear of it."""

    def __init__(self, archive: Archive) -> None:
        super().__init__(archive)
        self._removed: deque[tuple[int, str]] = deque(maxlen=5_000)

    def tell_conversation(self, conversation: Conversation, received: int) -> None:
        """Tell viewers of its state; where that was told often just now, of its state in a moment."""
        subject = f"conversation {conversation.id}"
        if self.broker.holds(subject, ROW_LIMIT, lambda: self.tell_conversation(conversation, received)):
            return
        conversation.changed_seq = position = self.broker.advance()
        if self.broker.viewers:
            update = ConversationUpdate(
                received_unix_nano=received, conversation=self.conversations.stats(conversation)
            )
            self.broker.publish(subject, update, position)

    def tell_totals(self, received: int) -> None:
        position = self.broker.advance()
        if self.broker.viewers:
            update = self._totals_update(received)
            self.broker.publish("totals", update, position)

    def tell_removed(self, conversation_id: str) -> None:
        position = self.broker.advance()
        self._removed.append((position, conversation_id))
        subject = f"conversation {conversation_id}"
        self.broker.forget(subject)
        self.broker.publish(subject, RemovedUpdate(conversation_id=conversation_id), position)

    def greeting(self, last_event_id: str | None) -> bytes:
        """What a viewer gets first: what it missed, or everything."""
        position = self.broker.position
        since = self.broker.position_of(last_event_id)
        if since is None or since < self._forgotten:
            return self.broker.frame(SnapshotUpdate(state=self.state()), position)
        now = time.time_ns()
        frames = [
            self.broker.frame(RemovedUpdate(conversation_id=conversation_id), at)
            for at, conversation_id in self._removed
            if at > since and conversation_id not in self.conversations
        ]
        missed = sorted(
            (one for one in self.conversations.by_id.values() if one.changed_seq > since),
            key=lambda conversation: conversation.changed_seq,
        )
        for conversation in missed:
            stats = self.conversations.stats(conversation)
            update = ConversationUpdate(received_unix_nano=conversation.received, conversation=stats)
            frames.append(self.broker.frame(update, position))
        frames.append(self.broker.frame(self._totals_update(now), position))
        return b"".join(frames)

    @property
    def _forgotten(self) -> int:
        """The position up to which removals are no longer remembered."""
        return self._removed[0][0] if len(self._removed) == self._removed.maxlen else 0

    def _totals_update(self, received: int) -> TotalsUpdate:
        troubled = self.health.problems or self.refusals.total
        receiver = self.receiver_stats(_TOLD_REFUSALS) if troubled else None
        return TotalsUpdate(received_unix_nano=received, totals=self.totals(), receiver=receiver)

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
