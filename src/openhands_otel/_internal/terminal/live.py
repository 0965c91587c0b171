"""The newest of everything that a stream told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Family:
    """Conversations, and who descends from whom."""

    known: Mapping[str, Entry]
    """By id."""
    roots: Sequence[str]
    """Those with no parent here. Those that name each other count as such."""
    children: Mapping[str, Sequence[str]]
    """The others, by parent."""

    @classmethod
    def of(cls, known: Mapping[str, Entry]) -> Self:
        """As they name their parents now."""
        roots: list[str] = []
        children: dict[str, list[str]] = {}
        for name, entry in known.items():
            parent = entry.stats.parent_id
            if parent is not None and parent in known and name not in _above(parent, known):
                children.setdefault(parent, []).append(name)
            else:
                roots.append(name)
        return cls(known, roots, children)


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
        self.past: dict[str, Entry] = {}
        """Those that have left the viewer's memory, as far as they were asked for."""
        self.left: set[str] = set()
        """Ids of those that left it, and were not asked for yet."""
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
        self._family: Family | None = None
        """None where that is to be found out anew."""

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
                if self.entries.pop(update.conversation_id, None) is not None:
                    self._move()
                    self.left.add(update.conversation_id)

    def put_past(self, found: Iterable[ConversationStats]) -> None:
        """These are what is known of the past."""
        self.past.clear()
        for stats in found:
            self.add_past(stats)
        self._move()

    def add_past(self, stats: ConversationStats) -> None:
        """One more; what is in memory is known better."""
        if stats.conversation_id not in self.entries:
            entry = self.past[stats.conversation_id] = Entry(stats, self.now())
            entry.past = True
            self._move()

    @property
    def family(self) -> Family:
        """All conversations, the past included, and who descends from whom."""
        if self._family is None:
            self._family = Family.of({**self.past, **self.entries})
        return self._family

    def called(self, given: str) -> Entry | None:
        """The one conversation of this name, or whose id alone begins so."""
        known = self.family.known
        by_name = [entry for entry in known.values() if entry.stats.name == given]
        by_id = [entry for name, entry in known.items() if name.startswith(given)]
        return next((found[0] for found in (by_name, by_id) if len(found) == 1), None)

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
        self.left |= before.keys() - self.entries.keys()
        self.totals, self.receiver = state.totals, state.receiver
        self.started = True
        self._move()

    def _move(self) -> None:
        self.changed = self.moved = True
        self._family = None

    def _put(self, stats: ConversationStats, now: float) -> None:
        entry = self.entries.get(stats.conversation_id)
        if entry is None:
            self.entries[stats.conversation_id] = Entry(stats, now)
            self.past.pop(stats.conversation_id, None)
            self.left.discard(stats.conversation_id)
            self._move()
        else:
            if entry.stats.parent_id != stats.parent_id:
                self._move()
            entry.update(stats, now)


def _above(name: str, known: Mapping[str, Entry]) -> Iterator[str]:
    seen: set[str] = set()
    current: str | None = name
    while current is not None and current not in seen and current in known:
        seen.add(current)
        yield current
        current = known[current].stats.parent_id
