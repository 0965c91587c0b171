"""The collector's rounds: save what changed, let the old leave memory, notice who fell silent, forget the oldest."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import Final

from openhands_otel.collector.conversation import Conversation
from openhands_otel.collector.fleet import Process
from openhands_otel.collector.history import EVERYTHING, Batch, Sample
from openhands_otel.collector.store import Store
from openhands_otel.stats import TokenUsage

SAVE_EVERY_S: Final = 0.25
LOOK_EVERY_S: Final = 5.0
PURGE_EVERY_S: Final = 3600.0
PROCESS_LIMIT: Final = 1_000
HARD_FACTOR: Final = 5
"""Open conversations may exceed the limit so many times before the oldest of them leave too."""
_BATCH_LIMIT: Final = 50
_STEPS: Final = 10

_log = logging.getLogger(__name__)


class Keeper:
    """Runs beside the receivers until stopped."""

    def __init__(self, store: Store, conversation_limit: int, retention_s: float) -> None:
        self._store = store
        self._limit = conversation_limit
        self._retention = retention_s
        self._task: asyncio.Task[None] | None = None
        self._told_received = 0

    def start(self) -> None:
        self._task = asyncio.create_task(self._rounds(), name="openhands-otel-keeper")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._finish()

    async def _rounds(self) -> None:
        looked = purged = 0.0
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            now = time.time()
            await self._several(self.save)
            if len(self._store.conversations) > self._limit:
                await self._several(self.let_go)
            if now - looked >= LOOK_EVERY_S:
                looked = now
                self.notice_silence(now)
                await self._several(self.let_go)
            if now - purged >= PURGE_EVERY_S:
                purged = now
                await self._guard(self._store.archive.purge(now - self._retention))

    async def _several(self, step: Callable[[], Awaitable[bool]]) -> None:
        # Small steps, so that none holds up the receivers; a few of them, so that the work keeps up with theirs.
        for _ in range(_STEPS):
            if not await self._guard(step()):
                return

    async def _guard[T](self, work: Awaitable[T]) -> T | None:
        # A full disk must not stop the live view; what could not be saved stays marked and is tried again.
        try:
            return await work
        except (sqlite3.Error, OSError) as error:
            if self._store.archive_error is None:
                _log.warning("the history cannot be saved for now: %s", error)
            self._store.archive_error = str(error)
            return None

    async def save(self) -> bool:
        """Write a bounded piece of what changed; False when there is nothing left."""
        store = self._store
        processes = _some(store.fleet.dirty)
        conversations = _some(store.conversations.dirty)
        batch = Batch(samples=self._samples())
        batch.processes = [(store.fleet.processes[key].record(), True) for key in processes]
        for conversation_id in conversations:
            batch.conversations.append(self._kept(store.conversations.by_id[conversation_id], True))
        if not batch:
            return False
        try:
            await store.archive.write(batch)
        except BaseException:
            store.fleet.dirty |= processes & store.fleet.processes.keys()
            store.conversations.dirty |= conversations & store.conversations.by_id.keys()
            store.sampled |= {subject for subject, *_ in batch.samples}
            raise
        store.archive_error = None
        return True

    def _kept(self, conversation: Conversation, stays: bool) -> tuple[dict[str, object], str, bool]:
        stats = self._store.conversations.stats(conversation)
        return conversation.record(), stats.model_dump_json(), stays

    def _samples(self) -> list[Sample]:
        store, now = self._store, int(time.time())
        samples: list[Sample] = []
        for subject in _some(store.sampled):
            if subject == EVERYTHING:
                sums = store.fleet.sums
                samples.append(_sample(EVERYTHING, now, sums.cost, sums.tokens, sums.calls))
            elif (conversation := store.conversations.by_id.get(subject)) is not None:
                stats = store.conversations.stats(conversation)
                usage = stats.accumulated_token_usage
                samples.append(_sample(subject, now, stats.accumulated_cost, usage, stats.llm_calls))
        return samples

    def notice_silence(self, now: float) -> None:
        store = self._store
        fallen = store.conversations.find_stale(now)
        for conversation in fallen:
            store.conversations.dirty.add(conversation.id)
            store.tell_conversation(conversation, time.time_ns())
        # The burn rate falls by itself, and "last data" rises by heartbeats that change nothing.
        if fallen or store.received != self._told_received or store.fleet.burn.burning:
            self._told_received = store.received
            store.tell_totals(time.time_ns())

    async def let_go(self) -> bool:
        """Move a bounded number of what is old from memory to the archive; False when there is nothing to move."""
        store, now = self._store, time.time()
        async with store.moving:
            leavers = store.conversations.leavers(self._limit, self._limit * HARD_FACTOR, _BATCH_LIMIT)
            silent = store.fleet.silent(now, PROCESS_LIMIT)[:_BATCH_LIMIT]
            if not leavers and not silent:
                return False
            batch = Batch()
            processes: list[Process] = []
            for key in silent:
                process = store.fleet.drop(key)
                processes.append(process)
                batch.processes.append((process.record(), False))
            for conversation in leavers:
                stats = store.conversations.stats(conversation).model_dump_json()
                store.conversations.fold(conversation)
                batch.conversations.append((conversation.record(), stats, False))
            holders = {one.folded_into for one in leavers} & store.conversations.by_id.keys()
            batch.conversations += [self._kept(store.conversations.by_id[holder], True) for holder in holders if holder]
            try:
                await store.archive.write(batch)
            except BaseException:
                for process in processes:
                    store.fleet.admit(process)
                    store.fleet.dirty.add(process.instance.key)
                for conversation in leavers:
                    store.conversations.unfold(conversation)
                raise
        for conversation in leavers:
            store.tell_removed(conversation.id)
        return True

    async def _finish(self) -> None:
        store = self._store
        while store.fleet.dirty or store.conversations.dirty or store.sampled:
            await self._guard(self.save())
            if store.archive_error is not None:
                break


def _some(marked: set[str]) -> set[str]:
    """Take a bounded number of marks away."""
    return {marked.pop() for _ in range(min(_BATCH_LIMIT, len(marked)))}


def _sample(subject: str, now: int, cost: float, usage: TokenUsage, calls: int) -> Sample:
    return (subject, now, cost, usage.prompt_tokens, usage.completion_tokens, calls)
