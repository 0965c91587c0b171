"""The collector's rounds: save what changed, let the old leave memory, notice who fell silent, forget the oldest.

Nothing that goes wrong ends them. Each step is guarded on its own, what it could not do stays marked and is tried
again, and health says what does not work until it does. A record that cannot be written keeps no other from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from openhands_otel._internal.collector.absent import HISTORY_PART, Unavailable
from openhands_otel._internal.collector.archive.database import Lost
from openhands_otel._internal.collector.archive.history import Transaction
from openhands_otel._internal.collector.archive.journal import Settling
from openhands_otel._internal.collector.archive.samples import EVERYTHING
from openhands_otel._internal.collector.points.limits import PROCESS_LIMIT
from openhands_otel._internal.collector.saving import Saving
from openhands_otel._internal.collector.state.conversation import Conversation
from openhands_otel._internal.collector.state.process import Process
from openhands_otel._internal.collector.store import JOURNAL, Store
from openhands_otel._internal.collector.supervision import keep_running, to_its_end
from openhands_otel._internal.log import logger

DATES_KEPT_S: Final = 400 * 86_400.0
"""How long spend keeps its quarter-hour, unless told otherwise: thirteen months."""
SAVE_EVERY_S: Final = 0.25
_SAVED_PER_S: Final = 500
"""Records beyond which saving waits for longer: a thousand agents, each with news each second, would take a third of
the viewer's time by it."""
LOOK_EVERY_S: Final = 5.0
PURGE_EVERY_S: Final = 3600.0
HARD_FACTOR: Final = 5
"""Open conversations may exceed the limit so many times before the oldest of them leave too."""
DATABASE_FILE: Final = "database"
HOUSEKEEPING: Final = "housekeeping"
"""Parts whose health is told."""
_BATCH_LIMIT: Final = 50
_CROWD_BATCH: Final = 500
_CROWD_STEPS: Final = 20
_STEPS: Final = 10
_LOOK_AT_FILE_EVERY_S: Final = 1.0


@dataclass(slots=True)
class _Gone:
    """What has left memory, until it is written."""

    processes: list[Process]
    conversations: list[Conversation]


class Housekeeping:
    """Runs beside the receivers until stopped."""

    def __init__(
        self, store: Store, conversation_limit: int, retention_s: float, dates_s: float = DATES_KEPT_S
    ) -> None:
        self._store = store
        self._limit = conversation_limit
        self._retention = retention_s
        self._dates = dates_s
        self._task: asyncio.Task[None] | None = None
        self._told_received = 0
        self._due: dict[str, float] = {}
        """When steps that are not made in each round are due, by the monotonic clock."""
        self._settling = Settling(store.journal, store.unsaved)
        self._saving = Saving(store, self._settling)
        store.make_room = self.make_room
        store.save_soon = lambda: self._move(self.save)

    def start(self) -> None:
        self._task = asyncio.create_task(keep_running(self._store.health, HOUSEKEEPING, self._rounds))

    async def stop(self) -> None:
        """End the rounds, and save what is left."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._task
        await self._finish()

    async def _rounds(self) -> None:
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            await self._round()

    async def _round(self) -> None:
        store, guard = self._store, self._store.health.guard
        if self._is_due("file", _LOOK_AT_FILE_EVERY_S):
            await self._look_at_file()
        if store.journal.is_long or time.monotonic() >= self._due.get("save", 0.0):
            await self._save_some()
        looking = self._is_due("look", LOOK_EVERY_S)
        if looking:
            self._saving.try_poisoned_again()
            await guard(HOUSEKEEPING, self._notice_silence())
        if looking or len(store.conversations) > self._limit:
            await self._several(lambda: self._move(self.let_go))
        if looking:
            await self._several(lambda: self._move(store.archive.add_up))
        if self._is_due("purge", PURGE_EVERY_S):
            await self._move(self._purge)
        if store.trouble_changed:
            store.trouble_changed = False
            store.tell_totals(time.time_ns())

    async def _save_some(self) -> None:
        """A few pieces of what changed. The more these were, the longer until the next: the journal has it anyway."""
        before = self._saving.written
        self._journal(self._settling.begin)
        await self._several(lambda: self._move(self.save))
        self._journal(self._settling.end)
        self._due["save"] = time.monotonic() + (self._saving.written - before) / _SAVED_PER_S

    def _journal(self, step: Callable[[], None]) -> None:
        try:
            step()
        except OSError as error:
            self._store.health.failed(JOURNAL, error)
        else:
            if not self._store.journal.misses:
                self._store.health.well(JOURNAL)

    def _is_due(self, step: str, every_s: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(step, 0.0):
            return False
        self._due[step] = now + every_s
        return True

    async def _several(self, step: Callable[[], Awaitable[bool | None]]) -> None:
        # Small steps, so that none holds up the receivers; a few of them, so that the work keeps up with theirs.
        for _ in range(_STEPS):
            if not await step():
                return

    async def _look_at_file(self) -> None:
        """Also while nothing is to be saved: that what was saved is still there."""
        store = self._store
        try:
            warning = await store.archive.look()
        except Exception as error:
            await self._failed(error)
            return
        if warning is not None:
            store.health.wrong(DATABASE_FILE, warning)
        else:
            store.health.well(DATABASE_FILE)
        if store.health.reason(HISTORY_PART) is not None:
            # Only a write shows whether it works again.
            store.sampled.add(EVERYTHING)

    async def _move(self, step: Callable[[], Awaitable[bool]]) -> bool:
        """Make a step that writes, as a whole; True when there is more to do."""
        return await to_its_end(self._step(step))

    async def _step(self, step: Callable[[], Awaitable[bool]]) -> bool:
        try:
            more = await step()
        except Exception as error:
            await self._failed(error)
            return False
        if more:
            self._saving.tell_health()
        return more

    async def _purge(self) -> bool:
        now = time.time()
        await self._store.archive.purge(now - self._retention, now - self._dates)
        return False

    async def _failed(self, error: Exception) -> None:
        """The database failed. If what it held is lost, begin a new one with what memory holds."""
        store = self._store
        store.health.failed(HISTORY_PART, error)
        if isinstance(error, Lost):
            await store.health.guard(HISTORY_PART, to_its_end(self._rebuild()))

    async def _rebuild(self) -> None:
        store = self._store
        await store.archive.rebuild(store.fleet.absent_totals())
        self._lose_dates()
        store.fleet.dirty |= store.fleet.processes.keys()
        store.conversations.dirty |= store.conversations.by_id.keys()
        store.sampled |= {EVERYTHING, *store.conversations.by_id}

    def _lose_dates(self) -> None:
        """What the lost file knew of times and places is gone; what memory holds is booked without a date."""
        unbooked = self._store.fleet.unbooked
        unbooked.clear()
        for process in self._store.fleet.processes.values():
            process.book_undated(unbooked)
        for conversation in self._store.conversations.by_id.values():
            conversation.book_undated(unbooked)

    async def save(self) -> bool:
        """Write a bounded piece of what changed; False when there is nothing left."""
        return await self._saving.save()

    async def _notice_silence(self) -> None:
        self.notice_silence(time.time())

    def notice_silence(self, now: float) -> None:
        store = self._store
        store.look_at_lives(now - time.time())
        # The burn rate falls by itself, and "last data" rises by heartbeats that change nothing.
        if store.received != self._told_received or store.fleet.burn.burning:
            self._told_received = store.received
            store.tell_totals(time.time_ns())

    async def make_room(self) -> None:
        """Have the oldest leave before more comes; raises Unavailable where they cannot be written."""
        for _ in range(_CROWD_STEPS):
            if not self._store.crowded:
                return
            try:
                if not await to_its_end(self.let_go(_CROWD_BATCH)):
                    return
            except Exception as error:
                await self._failed(error)
                raise Unavailable("there is no room, since the history cannot be saved for now") from error

    async def let_go(self, batch_limit: int = _BATCH_LIMIT) -> bool:
        """Move a bounded number of what is old from memory to the archive; False when there is nothing to move."""
        store, now = self._store, time.time()
        async with store.moving:
            # What cannot be written stays; the others do not wait behind it.
            most = batch_limit + len(self._saving.poisoned)
            leavers = store.conversations.leavers(self._limit, self._limit * HARD_FACTOR, most)
            leavers = [one for one in leavers if one.id not in self._saving.poisoned]
            silent = store.fleet.silent(now, PROCESS_LIMIT)[:most]
            silent = [key for key in silent if key not in self._saving.poisoned]
            if not leavers and not silent:
                return False
            batch, gone = Transaction(), _Gone([], [])
            try:
                self._take_out(silent, leavers, batch, gone)
                await store.archive.write(batch)
            except BaseException:
                self._saving.unbook(batch)
                # If a record is to blame, saving finds out which: all are marked as changed.
                for process in gone.processes:
                    store.fleet.admit(process)
                    store.fleet.dirty.add(process.instance.key)
                for conversation in gone.conversations:
                    store.conversations.unfold(conversation)
                raise
        for conversation in leavers:
            store.tell_removed(conversation)
        return True

    def _take_out(self, silent: list[str], leavers: list[Conversation], batch: Transaction, gone: _Gone) -> None:
        store = self._store
        for key in silent:
            process = store.fleet.drop(key)
            gone.processes.append(process)
            self._saving.add_process(process, batch, False)
        for conversation in leavers:
            stats = store.conversations.stats(conversation).model_dump_json()
            store.conversations.fold(conversation)
            gone.conversations.append(conversation)
            self._saving.add_conversation(conversation, batch, False, stats)
        holders = {one.folded_into for one in leavers} & store.conversations.by_id.keys()
        for holder in filter(None, holders):
            self._saving.add_conversation(store.conversations.by_id[holder], batch, True)

    async def _finish(self) -> None:
        store = self._store
        for _ in range(2):
            # Twice, since what was lost is made anew by the first.
            with contextlib.suppress(Exception):
                while await self._move(self.save):
                    pass
        # What cannot be saved stays in the journal for the next run.
        for step in (self._settling.end, self._settling.begin, self._settling.end, store.journal.close):
            self._journal(step)
        unsaved = len(store.fleet.dirty | store.conversations.dirty | self._saving.poisoned.keys())
        if unsaved:
            reason = store.health.reason(HISTORY_PART) or "the database did not take them"
            logger.error("%d records could not be saved before the end (%s)", unsaved, reason)
