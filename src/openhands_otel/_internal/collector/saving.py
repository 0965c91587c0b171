"""Writes what changed into the archive, a bounded piece at a time.

A record that cannot be written keeps no other from it: it is poisoned, which health tells, and tried again now and
then.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Final

from openhands_otel._internal.collector.absent import HISTORY_PART
from openhands_otel._internal.collector.archive.database import Lost
from openhands_otel._internal.collector.archive.history import HistorySample, Transaction
from openhands_otel._internal.collector.archive.journal import Settling
from openhands_otel._internal.collector.archive.samples import EVERYTHING
from openhands_otel._internal.collector.archive.schema import UnusableDatabase
from openhands_otel._internal.collector.state.conversation import Conversation
from openhands_otel._internal.collector.state.process import Process
from openhands_otel._internal.collector.store import Store, records_of
from openhands_otel._internal.exact import INT64_MAX
from openhands_otel._internal.log import logger
from openhands_otel.stats import TokenUsage

_BATCH_LIMIT: Final = 50
_POISONED_LIMIT: Final = 1_000
_RECORDS_FAULT: Final = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
_DATABASES_FAULT: Final = (sqlite3.Error, OSError, UnusableDatabase, Lost)


class Saving:
    """Writes from one store."""

    def __init__(self, store: Store, settling: Settling) -> None:
        self._store = store
        self._settling = settling
        self.poisoned: dict[str, str] = {}
        """Records that cannot be written (key of a process or id of a conversation), and why."""
        self.written = 0
        """Records and samples written so far."""

    def tell_health(self) -> None:
        """Say whether all that is known can be saved."""
        health = self._store.health
        if not self.poisoned:
            health.well(HISTORY_PART)
            return
        reason = next(iter(self.poisoned.values()))
        more = f" and {len(self.poisoned) - 1} more" if len(self.poisoned) > 1 else ""
        # Not whose they are: /healthz is open to everybody, and who may see one service sees what is wrong.
        health.wrong(HISTORY_PART, f"one record{more} cannot be saved ({reason}): the log names it")

    def try_poisoned_again(self) -> None:
        """Mark what could not be written as changed: it may have become another's, or whole."""
        store = self._store
        store.fleet.dirty |= self.poisoned.keys() & store.fleet.processes.keys()
        store.conversations.dirty |= self.poisoned.keys() & store.conversations.by_id.keys()
        self.poisoned = {
            name: reason
            for name, reason in self.poisoned.items()
            if name in store.fleet.processes or name in store.conversations
        }

    async def save(self) -> bool:
        """Write a bounded piece of what changed; False when there is nothing left."""
        store = self._store
        processes, conversations = _some(store.fleet.dirty), _some(store.conversations.dirty)
        subjects = _some(store.sampled)
        if not (processes or conversations or subjects):
            return False
        batch = Transaction()
        for key in processes:
            self._gather(key, lambda key=key: self.add_process(store.fleet.processes[key], batch, True))
        for one in conversations:
            self._gather(one, lambda one=one: self.add_conversation(store.conversations.by_id[one], batch, True))
        for subject in subjects:
            self._gather(subject, lambda subject=subject: batch.samples.extend(self._samples(subject)))
        try:
            await self._write(batch)
        except BaseException:
            self.unbook(batch)
            store.fleet.dirty |= processes & store.fleet.processes.keys()
            store.conversations.dirty |= conversations & store.conversations.by_id.keys()
            store.sampled |= subjects
            raise
        self.written += len(processes) + len(conversations) + len(subjects)
        self._settling.saved(records_of(processes, conversations))
        return True

    def _gather(self, name: str, take: Callable[[], None]) -> None:
        try:
            take()
        except KeyError:
            # It has left memory since it was marked, and was written then.
            return
        except Exception as error:
            self._poison(name, error)

    async def _write(self, batch: Transaction) -> None:
        """Write all of it; if a record is to blame that it cannot be, all the others."""
        try:
            await self._store.archive.write(batch)
        except Exception as error:
            if isinstance(error, _DATABASES_FAULT) and not isinstance(error, _RECORDS_FAULT):
                raise
        else:
            for name in batch.names() if self.poisoned else ():
                self.poisoned.pop(name, None)
            return
        for name, single in batch.singles():
            try:
                await self._store.archive.write(single)
            except Exception as error:
                if isinstance(error, _DATABASES_FAULT) and not isinstance(error, _RECORDS_FAULT):
                    raise
                self.unbook(single)
                self._poison(name, error)
            else:
                # What is written may not be put back, should a later one fail for the database's fault.
                for key in single.spent:
                    batch.spent.pop(key, None)
                    batch.runs = [run for run in batch.runs if run.conversation != key[1]]
                self.poisoned.pop(name, None)

    def unbook(self, batch: Transaction) -> None:
        """What was not written is to be written later."""
        for key, booked in batch.spent.items():
            self._store.fleet.unbooked.put_back(key, booked)
        batch.spent.clear()
        for run in batch.runs:
            conversation = self._store.conversations.by_id.get(run.conversation)
            if conversation is not None:
                conversation.runs.put_back([run])
        batch.runs.clear()

    def _poison(self, name: str, error: Exception) -> None:
        if name not in self.poisoned:
            logger.error("the record of %r cannot be saved: %s", name[:100], error, exc_info=error)
        if len(self.poisoned) < _POISONED_LIMIT:
            self.poisoned[name] = f"{type(error).__name__}: {error}"

    def add_process(self, process: Process, batch: Transaction, stays: bool) -> None:
        """Have a batch write a process; ``stays``: whether it stays in memory."""
        batch.processes.append((process.record(), stays))
        batch.spent[process.key] = self._store.fleet.unbooked.take(process.key)

    def add_conversation(self, conversation: Conversation, batch: Transaction, stays: bool, stats: str = "") -> None:
        """Have a batch write a conversation, with all that is booked with it; ``stats``: what viewers see, as JSON."""
        stats = stats or self._store.conversations.stats(conversation).model_dump_json()
        batch.conversations.append((conversation.record(), stats, stays))
        batch.runs += conversation.runs.changed()
        batch.present += [(conversation.id, *held) for held in conversation.held_by()]
        batch.spent[conversation.key] = self._store.fleet.unbooked.take(conversation.key)

    def _samples(self, subject: str) -> list[HistorySample]:
        store, now = self._store, int(time.time())
        if subject == EVERYTHING:
            sums = store.fleet.sums
            return [_sample(EVERYTHING, now, sums.cost, sums.tokens, sums.calls)]
        conversation = store.conversations.by_id.get(subject)
        if conversation is None:
            return []
        stats = store.conversations.stats(conversation)
        return [_sample(subject, now, stats.accumulated_cost, stats.accumulated_token_usage, stats.llm_calls)]


def _some(marked: set[str]) -> set[str]:
    """Take a bounded number of marks away."""
    return {marked.pop() for _ in range(min(_BATCH_LIMIT, len(marked)))}


def _sample(subject: str, now: int, cost: float, usage: TokenUsage, calls: int) -> HistorySample:
    prompt, completion, calls = (
        min(count, INT64_MAX) for count in (usage.prompt_tokens, usage.completion_tokens, calls)
    )
    return (subject, now, cost, prompt, completion, calls)
