"""From OpenHands' files to rows of spend: what is in a period, and no instrumented process has counted.

It is a lower bound: OpenHands saves late, and not every call.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from openhands_otel._internal.openhands_files.calls import NO_TOKENS, Answered, Spent
from openhands_otel._internal.openhands_files.finding import Search, Skip
from openhands_otel._internal.openhands_files.sifting import ConversationFile, HeldEntry, MeterPlace, Sifting
from openhands_otel._internal.openhands_files.state_file import Unreadable, read_state
from openhands_otel._internal.spend.amounts import Amount
from openhands_otel._internal.spend.rows import CLOCKS_S, QUARTER_S, SpendRow

PresenceById = Mapping[str, Sequence[tuple[float, float]]]
"""By conversation id: from when to when (unix seconds) an instrumented process held it."""

UNLISTED: Final = "unlisted"
"""Cost source of a row that is a difference: OpenHands' own total is higher than its list of calls."""

_WRITTEN_LATE_S: Final = 60.0
"""By how much a file server's clock may be behind."""


def presence_of(present: Iterable[tuple[str, float, float]]) -> dict[str, list[tuple[float, float]]]:
    """Presence out of stretches: conversation id, since and until when an instrumented process held it."""
    held: dict[str, list[tuple[float, float]]] = {}
    for conversation_id, since, until in present:
        held.setdefault(conversation_id, []).append((since, until))
    return held


@dataclass(slots=True)
class ConversationAbout:
    """What is known of a conversation beside its spend; times are unix seconds, of its own calls."""

    id: str
    path: Path
    parent_id: str | None
    agent: str | None
    model: str | None
    status: str | None
    modified: float
    first: float | None = None
    last: float | None = None


@dataclass(slots=True)
class Reading:
    """Rows of spend by quarter-hour; all of it is ``read_cost``."""

    rows: list[SpendRow] = field(default_factory=list[SpendRow])
    skipped: list[Skip] = field(default_factory=list[Skip])
    """Files and folders that were not read, or not wholly, each with a reason in words."""
    conversations: dict[str, ConversationAbout] = field(default_factory=dict[str, ConversationAbout])


def read(
    roots: Iterable[Path],
    *,
    presence: PresenceById | None = None,
    since: float | None = None,
    until: float | None = None,
    now: float | None = None,
) -> Reading:
    """Read what OpenHands has left below some folders; never raises for what stands there.

    Args:
        roots: Folders that hold conversations at some depth, or are one.
        presence: Whose calls are counted already, and when.
        since: Unix seconds, included; what has no date and may be older is left out then.
        until: Unix seconds, not included.
        now: Unix seconds; what says that it is much later has no date. None takes the clock.
    """
    now = time.time() if now is None else now
    with _nothing_collected():
        sources, skipped = _sources(roots, None if since is None else since - _WRITTEN_LATE_S, now)
        rows = _Rows(_Counted(presence or {}, {source.state.id for source in sources}), since, until)
        sifting = Sifting(sources)
        for cost in sifting.spent:
            rows.add_cost(cost)
        for answer in sifting.answered:
            rows.add_answer(answer)
        for place, unlisted in sifting.unlisted:
            rows.add_unlisted(place, unlisted)
    reading = Reading(rows.made(), skipped)
    for source in sources:
        known = reading.conversations.get(source.state.id)
        if known is None or known.modified < source.state.modified:
            reading.conversations[source.state.id] = _described(source)
    return reading


@contextmanager
def _nothing_collected() -> Generator[None]:
    """Looking for cycles, of which a hundred thousand calls make none, would take a fifth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _sources(roots: Iterable[Path], not_before: float | None, now: float) -> tuple[list[ConversationFile], list[Skip]]:
    search, sources = Search(), list[ConversationFile]()
    by_path: dict[Path, ConversationFile] = {}
    for root in roots:
        for found in search.states(root):
            try:
                state = read_state(found.path, not_before, now)
            except Unreadable as error:
                search.skipped.append((found.path, str(error)))
                continue
            if state is None:
                continue
            if state.refused:
                search.skipped.append((found.path, f"{state.refused} of its entries are out of range"))
            source = ConversationFile(state, None if found.parent is None else by_path.get(found.parent))
            by_path[found.path] = source
            sources.append(source)
    return sources, search.skipped


def _described(source: ConversationFile) -> ConversationAbout:
    state = source.state
    parent = None if source.parent is None else source.parent.state.id
    return ConversationAbout(
        *(state.id, state.path, parent, state.agent, state.model, state.status, state.modified),
        first=source.first,
        last=source.last,
    )


class _Counted:
    """Which calls an instrumented process has counted."""

    def __init__(self, presence: PresenceById, on_disk: set[str]) -> None:
        self.presence = presence
        self._not_on_disk = [spans for name, spans in presence.items() if name not in on_disk]

    def has(self, sources: Iterable[ConversationFile], owner: ConversationFile, when: float | None) -> bool:
        """Whether it may have been counted: in the presence of any conversation that has it."""
        spans = [self.presence.get(source.state.id, ()) for source in sources]
        if when is None:
            return any(spans)
        if self._not_on_disk and when < owner.begun - CLOCKS_S:
            # A fork's copy of calls of a conversation that is gone.
            spans += self._not_on_disk
        return any(since - CLOCKS_S <= when <= until + CLOCKS_S for each in spans for since, until in each)


class _Rows:
    """Adds up by quarter-hour and keys."""

    def __init__(self, counted: _Counted, since: float | None, until: float | None) -> None:
        self._counted = counted
        self._since = -math.inf if since is None else since
        self._until = math.inf if until is None else until
        self._amounts: dict[tuple[float | None, float, MeterPlace, str, str], Amount] = {}

    def made(self) -> list[SpendRow]:
        for amount in self._amounts.values():
            amount.read_cost.include(amount.cost)
        rows = [
            SpendRow(begin, end, place.keys(model, cost_source), amount)
            for (begin, end, place, model, cost_source), amount in self._amounts.items()
        ]
        return sorted(rows, key=lambda row: (row.end, row.begin or 0.0))

    def add_cost(self, held: HeldEntry[Spent]) -> None:
        entry = held.entry
        amount = self._amount(held.place, held.holders, entry.time, entry.model)
        if amount is not None:
            amount.cost.add(entry.cost)

    def add_answer(self, held: HeldEntry[Answered]) -> None:
        entry = held.entry
        amount = self._amount(held.place, held.holders, entry.time, entry.model)
        if amount is None:
            return
        tokens = NO_TOKENS if entry.usage is None else entry.usage.tokens
        prompt, completion, cache_read, cache_write, reasoning = tokens
        amount.prompt_tokens += prompt
        amount.completion_tokens += completion
        amount.cache_read_tokens += cache_read
        amount.cache_write_tokens += cache_write
        amount.reasoning_tokens += reasoning
        amount.seconds.add(entry.seconds)
        amount.calls += 1
        amount.unpriced_calls += entry.unpriced

    def add_unlisted(self, place: MeterPlace, unlisted: float) -> None:
        amount = self._amount(place, None, None, place.meter.model, UNLISTED)
        if amount is not None:
            amount.cost.add(unlisted)

    def _amount(
        self,
        place: MeterPlace,
        holders: list[ConversationFile] | None,
        when: float | None,
        model: str,
        cost_source: str = "",
    ) -> Amount | None:
        """Where it is added to; None for what is out of the period, or counted."""
        source = place.source
        if when is None:
            begin, end = self._bounds(source)
            earliest, latest = source.begun, source.state.modified
        else:
            begin = when // QUARTER_S * QUARTER_S
            end = begin + QUARTER_S
            earliest = latest = when
        if earliest < self._since or latest >= self._until:
            return None
        if when is not None:
            source.note(when)
        if self._counted.presence and self._counted.has(holders or (source,), source, when):
            return None
        row = (begin, end, place, model, cost_source)
        amount = self._amounts.get(row)
        if amount is None:
            amount = self._amounts[row] = Amount()
        return amount

    @staticmethod
    def _bounds(source: ConversationFile) -> tuple[float | None, float]:
        """Of what has no date: it is not newer than its file, and not older than the conversation."""
        begin = source.state.modified // QUARTER_S * QUARTER_S
        return (begin, begin + QUARTER_S) if source.begun >= begin else (None, source.state.modified)
