"""What a request is of and has left memory: it comes back before its points are judged, so that a retry counts once.

What somebody had forgotten comes back only if it goes on spending.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Final

from openhands_otel import semconv
from openhands_otel._internal.collector.archive.history import Archive, Found
from openhands_otel._internal.collector.points.decode import Instance, MetricsUpdate
from openhands_otel._internal.collector.points.series import Attributes, Point
from openhands_otel._internal.collector.state.conversation import Conversation
from openhands_otel._internal.collector.state.conversations import Conversations
from openhands_otel._internal.collector.state.fleet import Fleet
from openhands_otel._internal.collector.state.process import Process, Record
from openhands_otel._internal.collector.state.series_set import INFOS
from openhands_otel._internal.collector.supervision import FORESEEN, Health
from openhands_otel._internal.combining.building import Life

HISTORY_PART: Final = "history"
"""Part whose health is told."""


class Unavailable(Exception):
    """It cannot be taken for now; the sender should try again. The message is one line."""


class Absent:
    """Brings back what is absent from memory."""

    def __init__(
        self, archive: Archive, fleet: Fleet, conversations: Conversations, health: Health, moving: asyncio.Lock
    ) -> None:
        self._archive, self._fleet, self._conversations, self._health = archive, fleet, conversations, health
        self._moving = moving
        """Held while conversations or processes go out of memory or come back."""

    async def bring_back(self, updates: list[ToldPoints], received: int, replayed: bool) -> int:
        """Have in memory what points are of; returns how many conversations are new that somebody had forgotten.

        Of what is forgotten and has spent nothing since, the points are taken out of the updates. Raises Unavailable.
        """
        if not self._missing(updates):
            return 0
        async with self._moving:
            found = await self._find_missing(updates)
            self._bring_back(found)
        return self._leave_forgotten(updates, found, received, replayed)

    def _missing(self, updates: list[ToldPoints]) -> tuple[set[str], set[str]] | None:
        # Asked of each: to take the keys of a dict away from a set goes through all of them.
        known, by_id = self._fleet.processes, self._conversations.by_id
        processes = {update.instance.key for update in updates if update.instance.key not in known}
        ids = {name for update in updates for name in update.named if name not in by_id}
        return (processes, ids) if processes or ids else None

    async def _find_missing(self, updates: list[ToldPoints]) -> Found:
        # Asked again: while this waited for what is moving, some of it may have come back.
        processes, ids = self._missing(updates) or (set[str](), set[str]())
        found = await self._read(self._archive.recall(list(processes), list(ids)))
        looked_up = set(ids)
        while holders := self._holders(found.conversations) - looked_up:
            looked_up |= holders
            _, above = await self._read(self._archive.find((), list(holders)))
            found.conversations |= {record["id"]: record for record in above}
        return found

    async def _read[T](self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except FORESEEN as error:
            # Were it taken as new, a process that came back would count twice. Its sender has it until we can tell.
            self._health.failed(HISTORY_PART, error)
            raise Unavailable("the history cannot be read for now") from error

    def _leave_forgotten(
        self,
        updates: list[ToldPoints],
        found: Found,
        received: int,
        replayed: bool,
    ) -> int:
        """Of what somebody had forgotten nothing comes back, unless it goes on spending."""
        processes, conversations, new = found.forgotten_processes, found.forgotten_conversations, 0
        for update in updates:
            key = update.instance.key
            if key in processes and key not in self._fleet.processes:
                process = Process.forgotten(update.instance, processes[key])
                if process.grows(update.fleet, received):
                    process.pulse.life = Life.SILENT if replayed else process.pulse.life
                    self._fleet.admit(process)
                else:
                    update.forgotten = True
            for name in conversations.keys() & update.named:
                told = [each for each in update.conversations if each[0] == name]
                if name not in self._conversations:
                    conversation = Conversation.forgotten(name, conversations[name])
                    spent = ((attributes, point) for _, attributes, point in told)
                    if conversation.series.grows(key, spent, received):
                        if replayed:
                            conversation.speaker, conversation.life = key, Life.SILENT
                        self._conversations.admit(conversation)
                        new += 1
                        continue
                    update.conversations = [each for each in update.conversations if each[0] != name]
        return new

    def _holders(self, records: dict[str, Record]) -> set[str]:
        """Conversations out of memory that hold the cost of these."""
        named = {record["folded_into"] for record in records.values() if record["folded_into"]}
        return named - self._conversations.by_id.keys() - records.keys()

    def _bring_back(self, found: Found) -> None:
        conversations = found.conversations
        for record in found.processes.values():
            if record["key"] not in self._fleet.processes:
                self._fleet.admit(Process.from_record(record))
        waiting = list(conversations.values())
        while waiting:
            record = waiting.pop()
            holder = conversations.get(record["folded_into"] or "")
            if record["id"] in self._conversations:
                continue
            if holder is not None and holder["id"] not in self._conversations:
                # From the top down: whoever holds a cost must be there to give it back.
                waiting += [record, holder]
                continue
            self._conversations.unfold(Conversation.from_record(record))


@dataclass(slots=True)
class ToldPoints:
    """One process's points: its own, and those of conversations (id, other attributes, point)."""

    instance: Instance
    fleet: list[Point] = field(default_factory=list[Point])
    conversations: list[tuple[str, Attributes, Point]] = field(default_factory=list[tuple[str, Attributes, Point]])
    named: set[str] = field(default_factory=set[str])
    """Ids of these conversations and of their parents."""
    forgotten: bool = False
    """Whether its process is forgotten and has spent nothing since."""


def told_by(update: MetricsUpdate) -> ToldPoints:
    """The points of a process, told apart."""
    result = ToldPoints(update.instance)
    for point in update.points:
        metric = INFOS.get(point.metric.name)
        ours = metric is not None and metric.kind == point.metric.kind and point.scope is None
        conversation_id, rest = _apart(point.attributes) if ours else ("", ())
        if metric is None or not conversation_id:
            result.fleet.append(point)
            continue
        result.conversations.append((conversation_id, rest, point))
        result.named.add(conversation_id)
        if metric.name == semconv.CONVERSATION_INFO.name:
            result.named.update(str(v) for k, v in rest if k == semconv.CONVERSATION_PARENT_ID and v)
    return result


def _apart(attributes: Attributes) -> tuple[str, Attributes]:
    """The id of a conversation among attributes, empty where there is none; and the others."""
    for place, (name, value) in enumerate(attributes):
        if name == semconv.CONVERSATION_ID:
            return str(value) if value else "", attributes[:place] + attributes[place + 1 :]
    return "", attributes
