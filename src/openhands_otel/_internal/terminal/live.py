"""The newest of everything that a stream told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Self

from openhands_otel._internal.terminal.entry import Entry
from openhands_otel.stats import (
    ConversationStats,
    ConversationUpdate,
    ReceiverStats,
    RemovedUpdate,
    SnapshotUpdate,
    State,
    Totals,
    TotalsUpdate,
    Update,
)


class Live:
    """Conversations in the viewer's memory, the totals, and how the connection is.

    Args:
        clock: Unix seconds of this machine.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._ahead = 0.0
        """How far the viewer's clock is ahead of this machine's, seconds."""
        self.totals = Totals()
        self.receiver: ReceiverStats | None = None
        """Problems and refusals; None where there are none."""
        self.entries: dict[str, Entry] = {}
        self.started = False
        """Whether anything was heard."""
        self.problem = ""
        """What is wrong with the connection: then all of this is as old as ``cut_off`` says."""
        self.cut_off = 0.0
        """Unix seconds, by the viewer's clock."""
        self.changed = True
        """Whether anything changed since this was last taken back."""
        self.moved = True
        """Whether any conversation came, went or changed its parent since this was last taken back."""

    @classmethod
    def of(cls, state: State) -> Self:
        """What was known at one moment."""
        live = cls()
        live.apply(SnapshotUpdate(state=state))
        return live

    def now(self) -> float:
        """Unix seconds by the viewer's clock."""
        return self._clock() + self._ahead

    def note_connection(self, problem: Exception | None) -> None:
        """It broke, or (None) it is back."""
        if problem is not None and not self.problem:
            self.cut_off = self.now()
        self.problem = "" if problem is None else str(problem)
        self.changed = True

    def apply(self, update: Update) -> None:
        """Take one update."""
        self.changed = True
        match update:
            case SnapshotUpdate():
                self._restart(update.state)
            case ConversationUpdate():
                self._put(update.conversation, self.now())
            case TotalsUpdate():
                self.totals, self.receiver = update.totals, update.receiver
            case RemovedUpdate():
                self.moved |= self.entries.pop(update.conversation_id, None) is not None

    def roots_and_children(self) -> tuple[list[str], dict[str, list[str]]]:
        """Conversations with no parent here, and the others by parent. Those that name each other count as roots."""
        roots: list[str] = []
        children: dict[str, list[str]] = {}
        for name, entry in self.entries.items():
            parent = entry.stats.parent_id
            if parent is not None and parent in self.entries and name not in self._above(parent):
                children.setdefault(parent, []).append(name)
            else:
                roots.append(name)
        return roots, children

    def label_names(self) -> list[str]:
        """Of labels that any conversation has, the person's first."""
        names = {name for entry in self.entries.values() for name in entry.stats.labels} - {"name"}
        return sorted(names, key=lambda name: (name != "user", name))

    @property
    def stats(self) -> Iterable[ConversationStats]:
        """Of all conversations."""
        return (entry.stats for entry in self.entries.values())

    def _restart(self, state: State) -> None:
        if state.server_unix_nano:
            self._ahead = state.server_unix_nano / 1e9 - self._clock()
        before, self.entries = self.entries, {}
        now = self.now()
        for stats in state.conversations:
            known = before.get(stats.conversation_id)
            if known is not None:
                self.entries[stats.conversation_id] = known
            self._put(stats, now)
        self.totals, self.receiver = state.totals, state.receiver
        self.started = self.moved = True

    def _put(self, stats: ConversationStats, now: float) -> None:
        entry = self.entries.get(stats.conversation_id)
        if entry is None:
            self.entries[stats.conversation_id] = Entry(stats, now)
            self.moved = True
        else:
            self.moved |= entry.stats.parent_id != stats.parent_id
            entry.update(stats, now)

    def _above(self, name: str) -> Iterator[str]:
        seen: set[str] = set()
        current: str | None = name
        while current is not None and current not in seen and current in self.entries:
            seen.add(current)
            yield current
            current = self.entries[current].stats.parent_id
