"""Looks every few seconds what holds, keeps it, and tells who has not been told."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from zoneinfo import ZoneInfo

from openhands_otel._internal.collector.archive import told
from openhands_otel._internal.collector.budgets import budgets
from openhands_otel._internal.collector.notices.conditions import Progress, of_budget, of_conversation, of_models
from openhands_otel._internal.collector.notices.notice import Notice
from openhands_otel._internal.collector.notices.targets import Target
from openhands_otel._internal.collector.store import Store
from openhands_otel._internal.collector.supervision import keep_running
from openhands_otel._internal.log import logger
from openhands_otel._internal.spend.budgets import Limit
from openhands_otel._internal.spend.quiet_hours import QuietHours
from openhands_otel.semconv import NoticeKind, Status
from openhands_otel.stats import Budget

NOTICES: Final = "notices"
"""The part whose health is told."""
LOOK_EVERY_S: Final = 2.0
PURGE_EVERY_S: Final = 3600.0
_LINES: Final = 20
"""Of one message; what is more is counted."""
_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """What its owner wants to be told, and when."""

    limits: tuple[Limit, ...]
    zone: ZoneInfo
    burning_usd: float
    kinds: frozenset[NoticeKind]
    quiet: QuietHours | None


@dataclass(slots=True)
class _Way:
    """To one target."""

    target: Target
    not_before: float = 0.0
    """By the monotonic clock: after it failed."""
    pause_s: float = 0.0
    sending: asyncio.Task[None] | None = None
    known: set[str] = field(default_factory=set[str])
    """Digests of what is in the database for it, so that it is asked for what is new alone."""


class Notices:
    """Runs beside the receivers until stopped."""

    def __init__(self, store: Store, targets: Sequence[Target], wishes: Wishes) -> None:
        self._store = store
        self._ways = [_Way(target) for target in targets]
        self._wishes = wishes
        self._progress = Progress(wishes.burning_usd)
        self._task: asyncio.Task[None] | None = None
        self._purged = 0.0

    def start(self) -> None:
        if self._ways:
            self._task = asyncio.create_task(keep_running(self._store.health, NOTICES, self._rounds))

    async def stop(self) -> None:
        """What could not be sent is sent by the next viewer of this database."""
        tasks = [self._task, *(way.sending for way in self._ways)]
        for task in tasks:
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    async def _rounds(self) -> None:
        while True:
            await self._store.health.guard(NOTICES, self.look())
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """One round."""
        now = time.time()
        if self._wishes.limits:
            await self._store.save_all()
        standing = await self._store.archive.read(
            lambda connection: budgets(connection, self._wishes.limits, self._wishes.zone, now)
        )
        fresh, stale = self._events(now)
        await self._store.archive.change(lambda connection: self._keep(connection, standing, fresh, stale, now))
        if self._wishes.quiet is not None and self._wishes.quiet.hold(now, self._wishes.zone):
            return
        for way in self._ways:
            if (way.sending is None or way.sending.done()) and time.monotonic() >= way.not_before:
                way.sending = asyncio.create_task(self._store.health.guard(NOTICES, self._tell(way)))

    def _events(self, now: float) -> tuple[list[Notice], list[Notice]]:
        """What holds of conversations and models; and what held long ago already, which is no news."""
        fresh, stale = list(of_models(self._store.breakdown().by_model)), list[Notice]()
        running: set[str] = set()
        for conversation in self._store.conversations.by_id.values():
            stats = self._store.conversations.stats(conversation)
            is_old = stats.updated_unix_nano < (now - told.TRIED_S) * 1e9
            notice = of_conversation(conversation, stats)
            if stats.status == Status.RUNNING and not stats.stale:
                running.add(stats.conversation_id)
                run = conversation.runs.last
                signs = (0 if run is None else run.number, stats.tool_calls)
                notice = notice or self._progress.look(stats, signs)
            if notice is not None:
                (stale if is_old else fresh).append(notice)
        self._progress.keep(running)
        return fresh, stale

    def _keep(
        self,
        database: sqlite3.Connection,
        standing: Iterable[Budget],
        fresh: list[Notice],
        stale: list[Notice],
        now: float,
    ) -> None:
        told.prepare(database)
        if now - self._purged > PURGE_EVERY_S:
            told.purge(database, now)
            self._purged = now
        reached = [notices for budget in standing if (notices := of_budget(budget, self._wishes.zone))]
        for way in self._ways:
            known = way.known
            if told.introduce(database, way.target.digest, now):
                # It hears of what happens from now on, not of all that ever happened.
                known.clear()
                self._note(database, way, [*fresh, *stale], now, told_already=True)
            self._note(database, way, stale, now, told_already=True)
            self._note(database, way, fresh, now)
            for notices in reached:
                # Of several shares that are reached at once the highest says it all.
                new = [notice for notice in notices if notice.digest not in known]
                self._note(database, way, new[:-1], now, told_already=True)
                self._note(database, way, new[-1:], now)

    def _note(
        self,
        database: sqlite3.Connection,
        way: _Way,
        notices: Iterable[Notice],
        now: float,
        told_already: bool = False,
    ) -> None:
        new = [each for each in notices if each.kind in self._wishes.kinds and each.digest not in way.known]
        if new:
            rows = [(notice.digest, notice.kind, notice.text) for notice in new]
            told.note(database, rows, way.target.digest, now, told_already)
            way.known |= {notice.digest for notice in new}

    async def _tell(self, way: _Way) -> None:
        now, archive, target = time.time(), self._store.archive, way.target
        waiting = await archive.read(lambda connection: told.due(connection, target.digest, now))
        if not waiting:
            return
        lines = [each.text for each in waiting[:_LINES]]
        if len(waiting) > _LINES:
            lines.append(f"and {len(waiting) - _LINES} more")
        if not await target.send("\n".join(lines)):
            if not way.pause_s:
                logger.warning("notice target %s cannot be told; it is tried again", target.name)
            way.pause_s = min(_LONGEST_PAUSE_S, way.pause_s * 2 or _FIRST_PAUSE_S)
            way.not_before = time.monotonic() + way.pause_s
            return
        if way.pause_s:
            logger.warning("notice target %s is told again", target.name)
            way.pause_s = 0.0
        events = [each.event for each in waiting]
        await archive.change(lambda connection: told.sent(connection, target.digest, events))
