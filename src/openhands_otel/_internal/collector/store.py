"""What the collector knows: takes decoded points, answers questions, tells the viewers of each change.

Lives on the event loop, so nothing in it needs a lock. What leaves memory goes through the archive first: a process
after an hour of silence, the oldest ended conversations beyond the limit. Should a late point of theirs arrive, the
record comes back before the point is judged, so a retry counts once even then.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from itertools import batched
from typing import Final

from openhands_otel import semconv
from openhands_otel._internal.collector.archive.history import EVERYTHING, Archive, Restored
from openhands_otel._internal.collector.archive.journal import Journal, JournalEntry
from openhands_otel._internal.collector.archive.journal import Record as Unsaved
from openhands_otel._internal.collector.points.decode import DecodedMetrics, Instance, MetricsUpdate
from openhands_otel._internal.collector.points.limits import AT_ONCE, CONVERSATION_BYTES
from openhands_otel._internal.collector.points.refusals import LOG_LIMIT, RefusalLog, Refusals
from openhands_otel._internal.collector.points.series import Attributes, Point
from openhands_otel._internal.collector.state.conversation import Conversation
from openhands_otel._internal.collector.state.conversations import Conversations
from openhands_otel._internal.collector.state.fleet import Fleet, Process, Record
from openhands_otel._internal.collector.state.liveness import HEARTBEAT_S, OVERDUE, Pulse
from openhands_otel._internal.collector.state.series_set import INFOS
from openhands_otel._internal.collector.state.stream import Broker
from openhands_otel._internal.collector.supervision import FORESEEN, Health
from openhands_otel._internal.combining.building import Life
from openhands_otel._internal.version import __version__
from openhands_otel.stats import (
    Breakdown,
    ConversationStats,
    ConversationUpdate,
    Glance,
    ReceiverStats,
    RemovedUpdate,
    SnapshotUpdate,
    State,
    Totals,
    TotalsUpdate,
)

CONVERSATION_LIMIT: Final = 20_000
"""Conversations in memory beyond which new ones are refused; their money is in the totals all the same."""

HISTORY: Final = "history"
JOURNAL: Final = "journal"
STREAM: Final = "live updates"
"""Parts whose health is told."""
_SAVING_STEPS: Final = 100
_TOLD_REFUSALS: Final = 8
"""Refusals that go with every update; the state has all that are held."""


@dataclass(slots=True)
class Counts:
    """What the receivers did."""

    started: int = field(default_factory=time.time_ns)
    requests: int = 0
    refused_requests: int = 0
    points: int = 0
    refused_points: int = 0
    spans: int = 0
    log_records: int = 0


class Unavailable(Exception):
    """It cannot be taken for now; the sender should try again. The message is one line."""


class Store:
    """The collector's state."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.journal = Journal(archive.path)
        self.fleet = Fleet()
        self.conversations = Conversations()
        self.broker = Broker()
        self.counts = Counts()
        self.received = 0
        self.conversations_seen = 0
        self.refusals = RefusalLog()
        self.health = Health(self._tell_trouble)
        self.trouble_changed = False
        """Whether there is something about refusals or health that viewers have not been told."""
        self.sampled: set[str] = set()
        """Subjects that changed since the last samples were taken."""
        self.moving = asyncio.Lock()
        """Held while conversations or processes go out of memory or come back."""
        self.save_soon: Callable[[], Awaitable[bool]] | None = None
        """Saves a piece of what is not saved; False where there is nothing left."""
        self.make_room: Callable[[], Awaitable[None]] | None = None
        """Has the oldest leave memory (see ``housekeeping.py``); raises Unavailable where they cannot."""
        self._removed: deque[tuple[int, str]] = deque(maxlen=5_000)

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
        for updates in batched(decoded.updates, AT_ONCE):
            if self.make_room is not None and self.crowded:
                await self.make_room()
            await self._receive_some([_sort(update) for update in updates], received, refusals, replayed)
        self.received = max(self.received, received)
        self.counts.points += decoded.point_count - (refusals.count - refused_before)
        self.counts.refused_points += refusals.count
        self.refuse(refusals)
        return refusals

    def refuse(self, refusals: Refusals) -> None:
        """Tell what was left out of one request."""
        if refusals.count:
            self.refusals.take(refusals)
            self._tell_trouble()

    @property
    def crowded(self) -> bool:
        """Whether some processes or conversations must leave memory before others come."""
        conversations = self.conversations
        return (
            self.fleet.crowded
            or len(conversations) > CONVERSATION_LIMIT // 2
            or (len(conversations) > 1 and conversations.weight > CONVERSATION_BYTES)
        )

    async def _receive_some(self, updates: list[_Sorted], received: int, refusals: Refusals, replayed: bool) -> None:
        if self._absent(updates):
            async with self.moving:
                records = await self._find_absent(updates)
                forgotten = await self._find_forgotten(updates, *records)
                self._bring_back(*records)
            self._leave_forgotten(updates, *forgotten, received, replayed)
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

    def unsaved(self) -> list[Unsaved]:
        """The records of what changed and is not in the database."""
        return records_of(self.fleet.dirty, self.conversations.dirty)

    def _absent(self, updates: list[_Sorted]) -> tuple[set[str], set[str]] | None:
        processes = {update.instance.key for update in updates} - self.fleet.processes.keys()
        ids = {name for update in updates for name in update.named} - self.conversations.by_id.keys()
        return (processes, ids) if processes or ids else None

    async def _find_absent(self, updates: list[_Sorted]) -> tuple[list[Record], dict[str, Record]]:
        processes, ids = self._absent(updates) or (set[str](), set[str]())
        found, records = await self._find(processes, ids)
        conversations = {record["id"]: record for record in records}
        looked_up = set(ids)
        while holders := self._holders(conversations) - looked_up:
            looked_up |= holders
            _, above = await self._find((), holders)
            conversations |= {record["id"]: record for record in above}
        return found, conversations

    async def _find_forgotten(
        self, updates: list[_Sorted], found: list[Record], conversations: dict[str, Record]
    ) -> tuple[dict[str, Record], dict[str, Record]]:
        processes, ids = self._absent(updates) or (set[str](), set[str]())
        processes -= {record["key"] for record in found}
        try:
            return await self.archive.forgotten(list(processes), list(ids - conversations.keys()))
        except FORESEEN as error:
            self.health.failed(HISTORY, error)
            raise Unavailable("the history cannot be read for now") from error

    def _leave_forgotten(
        self,
        updates: list[_Sorted],
        processes: dict[str, Record],
        conversations: dict[str, Record],
        received: int,
        replayed: bool,
    ) -> None:
        """Of what somebody had forgotten nothing comes back, unless it goes on spending."""
        for update in updates:
            key = update.instance.key
            if key in processes and key not in self.fleet.processes:
                process = Process.forgotten(update.instance, processes[key])
                if process.grows(update.fleet, received):
                    process.pulse.life = Life.SILENT if replayed else process.pulse.life
                    self.fleet.admit(process)
                else:
                    update.forgotten = True
            for name in conversations.keys() & update.named:
                told = [each for each in update.conversations if each[0] == name]
                if name not in self.conversations:
                    conversation = Conversation.forgotten(name, conversations[name])
                    spent = ((attributes, point) for _, attributes, point in told)
                    if conversation.series.grows(key, spent, received):
                        if replayed:
                            conversation.speaker, conversation.life = key, Life.SILENT
                        self.conversations.admit(conversation)
                        self.conversations_seen += 1
                        continue
                    update.conversations = [each for each in update.conversations if each[0] != name]

    async def _find(self, processes: Iterable[str], ids: Iterable[str]) -> tuple[list[Record], list[Record]]:
        try:
            return await self.archive.find(list(processes), list(ids))
        except FORESEEN as error:
            # Were it taken as new, a process that came back would count twice. Its sender has it until we can tell.
            self.health.failed(HISTORY, error)
            raise Unavailable("the history cannot be read for now") from error

    def _holders(self, records: dict[str, Record]) -> set[str]:
        """Conversations out of memory that hold the cost of these."""
        named = {record["folded_into"] for record in records.values() if record["folded_into"]}
        return named - self.conversations.by_id.keys() - records.keys()

    def _bring_back(self, processes: list[Record], conversations: dict[str, Record]) -> None:
        for record in processes:
            if record["key"] not in self.fleet.processes:
                self.fleet.admit(Process.from_record(record))
        waiting = list(conversations.values())
        while waiting:
            record = waiting.pop()
            holder = conversations.get(record["folded_into"] or "")
            if record["id"] in self.conversations:
                continue
            if holder is not None and holder["id"] not in self.conversations:
                # From the top down: whoever holds a cost must be there to give it back.
                waiting += [record, holder]
                continue
            self.conversations.unfold(Conversation.from_record(record))

    def _apply_conversations(
        self,
        update: _Sorted,
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

    def tell_conversation(self, conversation: Conversation, received: int) -> None:
        conversation.changed_seq = position = self.broker.advance()
        if self.broker.viewers:
            update = ConversationUpdate(
                received_unix_nano=received, conversation=self.conversations.stats(conversation)
            )
            self.broker.publish(f"conversation {conversation.id}", update, position)

    def tell_totals(self, received: int) -> None:
        position = self.broker.advance()
        if self.broker.viewers:
            update = self._totals_update(received)
            self.broker.publish("totals", update, position)

    def refuse_request(self, reason: str, peer: str) -> None:
        """A whole request was refused; ``peer`` is the address it came from."""
        self.counts.refused_requests += 1
        self.refusals.refuse_request(reason, peer)
        self._tell_trouble()

    def _tell_trouble(self) -> None:
        """Told in the next round of housekeeping: a flood of refusals is no flood of updates."""
        self.trouble_changed = True

    def tell_removed(self, conversation_id: str) -> None:
        position = self.broker.advance()
        self._removed.append((position, conversation_id))
        self.broker.publish(f"conversation {conversation_id}", RemovedUpdate(conversation_id=conversation_id), position)

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

    def totals(self) -> Totals:
        sums = self.fleet.sums
        return Totals(
            accumulated_cost=sums.cost,
            accumulated_token_usage=sums.tokens,
            llm_calls=sums.calls,
            unpriced_calls=int(sums.value(semconv.UNPRICED_CALLS)),
            cache_savings=sums.value(semconv.CACHE_SAVINGS),
            burn=self.fleet.burn.rate(),
            conversations_running=self.conversations.running_count,
            conversations_open=self.conversations.open_count,
            conversations_seen=self.conversations_seen,
            processes_live=self.fleet.lives.live_count,
            received_unix_nano=self.received,
        )

    def glance(self, cost_today: float) -> Glance:
        """One line about now; what today cost is the archive's to say."""
        return Glance(
            cost_today=cost_today,
            cost_per_hour=self.fleet.burn.rate().per_hour,
            cost_total=self.fleet.sums.cost,
            running=self.conversations.running_count,
            needs_you=self.conversations.waiting_count,
            unix_s=time.time(),
        )

    def breakdown(self) -> Breakdown:
        sums = self.fleet.sums
        return Breakdown(
            totals=self.totals(),
            by_model=sums.by_attribute(semconv.REQUEST_MODEL),
            by_role=sums.by_attribute(semconv.LLM_ROLE),
            by_provider=sums.by_attribute(semconv.PROVIDER_NAME),
            by_agent=sums.by_attribute(semconv.AGENT_NAME),
            by_service=sums.by_service(),
        )

    def all_stats(self) -> tuple[ConversationStats, ...]:
        return tuple(self.conversations.stats(conversation) for conversation in self.conversations.newest_first())

    def _totals_update(self, received: int) -> TotalsUpdate:
        troubled = self.health.problems or self.refusals.total
        receiver = self.receiver_stats(_TOLD_REFUSALS) if troubled else None
        return TotalsUpdate(received_unix_nano=received, totals=self.totals(), receiver=receiver)

    def receiver_stats(self, refusals: int = LOG_LIMIT) -> ReceiverStats:
        counts = self.counts
        return ReceiverStats(
            started_unix_nano=counts.started,
            requests=counts.requests,
            refused_requests=counts.refused_requests,
            points=counts.points,
            refused_points=counts.refused_points,
            spans=counts.spans,
            log_records=counts.log_records,
            viewers=self.broker.viewers,
            database=None if self.archive.path is None else str(self.archive.path),
            shared_points=self.fleet.shared_points,
            history_error=self.health.reason(HISTORY),
            problems=self.health.problems,
            refusals=self.refusals.newest(refusals),
            assumed_restarts=self.fleet.assumed_restarts,
        )

    def state(self) -> State:
        return State(
            totals=self.totals(),
            conversations=self.all_stats(),
            receiver=self.receiver_stats(),
            version=__version__,
            server_unix_nano=time.time_ns(),
        )


def records_of(processes: Iterable[str], conversations: Iterable[str]) -> list[Unsaved]:
    """Their records in the database."""
    return [*(("processes", key) for key in processes), *(("conversations", name) for name in conversations)]


@dataclass(slots=True)
class _Sorted:
    """One process's points: its own, and those of conversations (id, other attributes, point)."""

    instance: Instance
    fleet: list[Point] = field(default_factory=list[Point])
    conversations: list[tuple[str, Attributes, Point]] = field(default_factory=list[tuple[str, Attributes, Point]])
    named: set[str] = field(default_factory=set[str])
    """Ids of these conversations and of their parents."""
    forgotten: bool = False
    """Whether its process is forgotten and has spent nothing since."""


def _sort(update: MetricsUpdate) -> _Sorted:
    result = _Sorted(update.instance)
    for point in update.points:
        metric = INFOS.get(point.metric.name)
        conversation_id = next((v for k, v in point.attributes if k == semconv.CONVERSATION_ID), None)
        ours = metric is not None and metric.kind == point.metric.kind and point.scope is None
        if metric is None or not ours or not conversation_id:
            result.fleet.append(point)
            continue
        rest = tuple(pair for pair in point.attributes if pair[0] != semconv.CONVERSATION_ID)
        result.conversations.append((str(conversation_id), rest, point))
        result.named.add(str(conversation_id))
        if metric.name == semconv.CONVERSATION_INFO.name:
            result.named.update(str(v) for k, v in rest if k == semconv.CONVERSATION_PARENT_ID and v)
    return result
