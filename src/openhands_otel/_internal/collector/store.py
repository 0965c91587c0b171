"""What the collector knows: takes decoded points, answers questions, tells the viewers of each change.

Lives on the event loop, so nothing in it needs a lock. What leaves memory goes through the archive first: a process
after an hour of silence, the oldest ended conversations beyond the limit. Should a late point of theirs arrive, the
record comes back before the point is judged, so a retry counts once even then.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import batched
from typing import Final

from openhands_otel._internal.collector.absent import Absent, ToldPoints, told_by
from openhands_otel._internal.collector.archive.history import Archive, Restored
from openhands_otel._internal.collector.archive.journal import JournalEntry
from openhands_otel._internal.collector.archive.samples import EVERYTHING
from openhands_otel._internal.collector.points.decode import DecodedMetrics, Instance
from openhands_otel._internal.collector.points.limits import CONVERSATION_BYTES, PROCESSES_AT_ONCE
from openhands_otel._internal.collector.points.refusals import Refusals
from openhands_otel._internal.collector.state.conversation import Conversation
from openhands_otel._internal.collector.state.liveness import HEARTBEAT_S, Pulse
from openhands_otel._internal.collector.state.placing import RecordKey
from openhands_otel._internal.collector.state.process import Process
from openhands_otel._internal.collector.telling import STREAM, Telling
from openhands_otel._internal.combining.building import OVERDUE, Life

CONVERSATION_LIMIT: Final = 20_000
"""Conversations in memory beyond which new ones are refused; their money is in the totals all the same."""

JOURNAL: Final = "journal"
"""Part whose health is told, beside the history's and the stream's."""
_SAVING_STEPS: Final = 100


class Store(Telling):
    """What is known, with what becomes of it when points come and when time goes by."""

    def __init__(self, archive: Archive) -> None:
        super().__init__(archive)
        self._absent = Absent(archive, self.fleet, self.conversations, self.health, self.moving)

    def restore(self, held: Restored) -> None:
        """Start from what an earlier run left."""
        self.fleet.sums = held.totals
        for record in held.processes:
            self.fleet.admit(Process.from_record(record))
        self.fleet.recount_assumed()
        newest = max((record["seen"] for record in held.conversations), default=0.0)
        for record in held.conversations:
            conversation = Conversation.from_record(record)
            if "life" not in record and conversation.seen < newest - OVERDUE * HEARTBEAT_S:
                # From a viewer of before, which kept nothing of that.
                conversation.life = Life.SILENT
            self.conversations.admit(conversation)
        self.conversations_seen = held.conversation_count

    async def receive(self, decoded: DecodedMetrics, received: int, replayed: bool = False) -> Refusals:
        """Take one request's points; ``received`` is when it arrived (unix nanoseconds).

        ``replayed``: told after the event, by a spool or an import. It counts like any other and never takes the place
        of what was heard live.
        """
        refusals = decoded.refusals
        refused_before = refusals.count
        # One request may come from more processes than there is room for.
        for updates in batched(decoded.updates, PROCESSES_AT_ONCE):
            if self.make_room is not None and self.crowded:
                await self.make_room()
            await self._receive_some([told_by(update) for update in updates], received, refusals, replayed)
        self.received = max(self.received, received)
        self.counts.points += decoded.point_count - (refusals.count - refused_before)
        self.counts.refused_points += refusals.count
        self.refuse(refusals)
        return refusals

    @property
    def crowded(self) -> bool:
        """Whether some processes or conversations must leave memory before others come."""
        conversations = self.conversations
        return (
            self.fleet.crowded
            or len(conversations) > CONVERSATION_LIMIT // 2
            or (len(conversations) > 1 and conversations.weight > CONVERSATION_BYTES)
        )

    async def _receive_some(self, updates: list[ToldPoints], received: int, refusals: Refusals, replayed: bool) -> None:
        returned = await self._absent.bring_back(updates, received, replayed)
        self.conversations_seen += returned
        # Nothing is awaited from here on: what is in memory stays there until the points are in.
        changed: dict[str, Conversation] = {}
        totals_changed = False
        for update in updates:
            refusals.of(update.instance.service, update.instance.name)
            if not update.forgotten:
                totals_changed |= self.fleet.apply(update.instance, update.fleet, received, refusals, replayed)
            self._apply_conversations(update, received, refusals, changed, replayed)
            self._book(update.named)
        self._take_up_again(received, changed)
        # What viewers are told is no business of the sender's: its points are in.
        try:
            self._tell(changed, totals_changed, received)
        except Exception as error:
            self.health.failed(STREAM, error)
        else:
            self.health.well(STREAM)

    def note(self, entry: JournalEntry) -> None:
        """Keep a request that was just taken until what it changed is saved. Nothing may be awaited in between."""
        try:
            self.journal.append(entry)
        except OSError as error:
            self.health.failed(JOURNAL, error)

    async def save_all(self) -> None:
        """Have the archive know what is known here, as far as it can be written; a flood does not hold it up."""
        for _ in range(_SAVING_STEPS):
            if self.save_soon is None or not await self.save_soon():
                return

    def unsaved(self) -> list[RecordKey]:
        """The records of what changed and is not in the database."""
        return records_of(self.fleet.dirty, self.conversations.dirty)

    def _apply_conversations(
        self,
        update: ToldPoints,
        received: int,
        refusals: Refusals,
        changed: dict[str, Conversation],
        replayed: bool,
    ) -> None:
        for conversation_id, attributes, point in update.conversations:
            conversation = self.conversations.by_id.get(conversation_id)
            if conversation is None:
                if point.value is None or len(self.conversations) >= CONVERSATION_LIMIT:
                    if point.value is not None:
                        refusals.add(f"{CONVERSATION_LIMIT} conversations are held already")
                    continue
                conversation = Conversation(conversation_id)
                self.conversations.admit(conversation)
                self.conversations_seen += 1
                if replayed:
                    conversation.speaker, conversation.life = update.instance.key, Life.SILENT
            heard = min(received, point.time) if replayed else received
            conversation.seen = max(conversation.seen, heard / 1e9)
            heard = not replayed and self._hear(conversation, update.instance, received)
            weight, left_out = conversation.weight, conversation.series.left_out
            news = conversation.apply(update.instance, point, attributes, received, replayed)
            self.conversations.weight += conversation.weight - weight
            if conversation.series.left_out > left_out:
                refusals.add(f"{point.metric.name} has too many series in one conversation", rule=point.metric.name)
            if news or heard:
                conversation.received = received
                changed[conversation_id] = conversation

    def _book(self, conversations: Iterable[str]) -> None:
        """Give what was spent its place in time, once all is known that one request says of them."""
        for name in conversations:
            conversation = self.conversations.by_id.get(name)
            if conversation is not None and conversation.book(self.fleet.unbooked):
                self.conversations.dirty.add(name)

    def _hear(self, conversation: Conversation, instance: Instance, received: int) -> bool:
        """A process spoke of a conversation; True if that says something of its life."""
        pulse, before = self.fleet.lives.pulse(instance.key), conversation.life
        conversation.speaker, conversation.life = instance.key, Life.LIVE if pulse is None else pulse.life
        conversation.heard = self.fleet.lives.at(received / 1e9)
        return conversation.life is not before

    def _take_up_again(self, received: int, changed: dict[str, Conversation]) -> None:
        """Processes that were taken for dead have spoken: their conversations live, spoken of or not."""
        revived = self.fleet.lives.take_revived()
        for conversation in self.conversations.by_id.values() if revived else ():
            if conversation.speaker in revived and not conversation.closed:
                conversation.life = Life.LIVE
                conversation.received = received
                changed[conversation.id] = conversation

    def begin_to_watch(self) -> None:
        """Whatever was heard before is as old as this run."""
        self.fleet.lives.begin()
        for conversation in self.conversations.by_id.values():
            conversation.heard = None

    def look_at_lives(self, ahead_s: float = 0.0) -> None:
        """Judge by the time who is alive, and tell whose conversations are left alone now."""
        self.fleet.lives.judge(ahead_s)
        left: list[Conversation] = []
        for conversation in self.conversations.attended():
            pulse = self.fleet.lives.pulse(conversation.speaker) or Pulse()
            unheard_s = self.fleet.lives.awake + ahead_s - (conversation.heard or 0.0)
            life = pulse.life
            if life is Life.LIVE and unheard_s > OVERDUE * pulse.heartbeat_s:
                # The process is there, or was never saved; of this it says nothing any more.
                life = Life.SILENT
            if life is not conversation.life:
                conversation.life = life
                left.append(conversation)
        for conversation in left:
            self.conversations.refresh(conversation)
            self.conversations.dirty.add(conversation.id)
            self.tell_conversation(conversation, time.time_ns())
        if left:
            self.tell_totals(time.time_ns())

    def _tell(self, changed: dict[str, Conversation], totals_changed: bool, received: int) -> None:
        """Note what changed and tell the viewers: first the money's owner, then all whose tree it is in."""
        for conversation in list(changed.values()):
            self.conversations.refresh(conversation)
            self.conversations.dirty.add(conversation.id)
            self.sampled.add(conversation.id)
            for ancestor in self.conversations.ancestors(conversation):
                changed.setdefault(ancestor.id, ancestor)
        for conversation in changed.values():
            self.tell_conversation(conversation, received)
        if totals_changed:
            self.sampled.add(EVERYTHING)
        if totals_changed or changed:
            self.tell_totals(received)


def records_of(processes: Iterable[str], conversations: Iterable[str]) -> list[RecordKey]:
    """Their records in the database."""
    return [*(("processes", key) for key in processes), *(("conversations", name) for name in conversations)]
