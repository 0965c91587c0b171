"""Tells doubles apart: of each cost and each answer that several files hold, one stays.

A fork begins with its parent's lists, a parent holds a copy of what its sub-agents spent (``task:...``), conversations
that share an LLM both show its calls, folders are copied. What counts is the sub-agent's own, else that of the
conversation that began first.
"""

from __future__ import annotations

import math
import re
import stat
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Final

from openhands_otel._internal.model_names import WELL_KNOWN, by_route
from openhands_otel._internal.openhands_files.calls import Answered, CopyKey, Spent, answered, date_neighbours, spent
from openhands_otel._internal.openhands_files.finding import EVENTS_FOLDER
from openhands_otel._internal.openhands_files.state_file import ConversationState, Meter
from openhands_otel._internal.spend.rows import Dimension
from openhands_otel.semconv import UNKNOWN, Role

_COPIES: Final = ("task:", "delegate:", "agent-hook:")
"""Usage ids under which a conversation holds what another spent."""
_ROLES: Final = (
    *((prefix, Role.SUBAGENT) for prefix in _COPIES[:2]),
    ("agent-hook:", Role.HOOK),
    ("prompt-hook:", Role.HOOK),
    ("condenser", Role.CONDENSER),
    ("ask-agent", Role.ASK_AGENT),
    ("acp-managed", Role.ACP),
)
_NOISE: Final = 1e-9
"""A difference below this share is how floats add up."""
_EVENTS_LIMIT: Final = 20_000
_EVENT_SIZE_LIMIT: Final = 256 * 1024
_RESPONSE_ID: Final = re.compile(rb'"llm_response_id"\s*:\s*"([^"\\]{1,256})"')


@dataclass(eq=False)
class ConversationFile:
    """A conversation's file; ``first`` and ``last`` are of its own calls, unix seconds."""

    state: ConversationState
    parent: ConversationFile | None
    first: float | None = None
    last: float | None = None

    @cached_property
    def depth(self) -> int:
        return 0 if self.parent is None else self.parent.depth + 1

    @cached_property
    def begun(self) -> float:
        """When the first of its events was written, unix seconds: a fork writes its parent's events anew.

        Minus infinity where there are none.
        """
        try:
            first = min((self.state.path.parent / EVENTS_FOLDER).glob("event-00000-*"), default=None)
            return -math.inf if first is None else min(first.stat().st_mtime, self.state.modified)
        except OSError:
            return -math.inf

    def note(self, when: float) -> None:
        if self.first is None or when < self.first:
            self.first = when
        if self.last is None or when > self.last:
            self.last = when

    def date(self, answers: list[Answered]) -> None:
        """Date what no cost dates: an event's file names the answer that it came of, and is written once."""
        undated = [answer for answer in answers if answer.time is None and answer.usage is not None]
        for answer in undated:
            answer.time = self._events.get(answer.usage.response_id) if answer.usage else None
        if undated:
            date_neighbours(answers)

    @cached_property
    def _events(self) -> dict[str, float]:
        """When what came of each answer was written, unix seconds."""
        found: dict[str, float] = {}
        try:
            for path in islice((self.state.path.parent / EVENTS_FOLDER).glob("event-*.json"), _EVENTS_LIMIT):
                status = path.lstat()
                if not stat.S_ISREG(status.st_mode):
                    continue
                with path.open("rb") as file:
                    named = _RESPONSE_ID.search(file.read(_EVENT_SIZE_LIMIT))
                if named:
                    found.setdefault(named[1].decode(errors="replace"), status.st_mtime)
        except OSError:
            pass
        return found


@dataclass(eq=False)
class MeterPlace:
    """A meter of a conversation."""

    source: ConversationFile
    meter: Meter
    group: MeterPlace | None = None
    """A meter that has entries in common with this one."""

    @cached_property
    def is_copy(self) -> bool:
        return self.meter.usage_id.startswith(_COPIES)

    def goes_before(self, other: MeterPlace) -> bool:
        """Whether this one's copy of an entry counts, and not the other's."""
        if self.is_copy != other.is_copy:
            return other.is_copy
        mine, theirs = self.source, other.source
        if mine is theirs:
            return False
        if self.is_copy and mine.depth != theirs.depth:
            return mine.depth > theirs.depth
        return (mine.begun, mine.state.id) < (theirs.begun, theirs.state.id)

    @property
    def first_of_group(self) -> MeterPlace:
        place = self
        while place.group is not None:
            # Next time the way is half as long.
            place.group = place.group.group or place.group
            place = place.group
        return place

    def join(self, other: MeterPlace) -> None:
        mine, theirs = self.first_of_group, other.first_of_group
        if mine is not theirs:
            mine.group = theirs

    def keys(self, model: str, cost_source: str) -> dict[str, str]:
        name, route = by_route(model or UNKNOWN)
        state = self.source.state
        keys = {
            Dimension.CONVERSATION: state.id,
            Dimension.MODEL: "" if name in (UNKNOWN, "default") else name,
            Dimension.PROVIDER: "" if route == UNKNOWN else WELL_KNOWN.get(route, route),
            Dimension.USAGE_ID: self.meter.usage_id,
            Dimension.AGENT: state.agent or "",
            Dimension.ROLE: self._role(state),
            Dimension.COST_SOURCE: cost_source,
        }
        return {str(name): value for name, value in keys.items() if value}

    def _role(self, state: ConversationState) -> str:
        usage_id = self.meter.usage_id
        role = next((role for prefix, role in _ROLES if usage_id.startswith(prefix)), None)
        if role is None and usage_id and usage_id == state.agent_usage_id:
            role = Role.AGENT if self.source.parent is None else Role.SUBAGENT
        return role or ""


@dataclass(slots=True)
class HeldEntry[Entry: (Spent, Answered)]:
    """An entry, where it counts, and who has it, where that is more than one."""

    entry: Entry
    place: MeterPlace
    holders: list[ConversationFile] | None = None

    def add_holder(self, source: ConversationFile) -> None:
        """That one has it, too."""
        if source is not self.place.source:
            if self.holders is None:
                self.holders = [self.place.source]
            self.holders.append(source)


class Sifting:
    """See the module's docstring."""

    def __init__(self, sources: Iterable[ConversationFile]) -> None:
        self._spent: dict[CopyKey, HeldEntry[Spent]] = {}
        self._answered: dict[CopyKey, HeldEntry[Answered]] = {}
        self._totals: dict[CopyKey, MeterPlace] = {}
        self._unlisted: list[tuple[MeterPlace, float]] = []
        for source in sources:
            for meter in source.state.meters:
                self._take(MeterPlace(source, meter))
        self._put_halves_together()

    def _take(self, place: MeterPlace) -> None:
        meter = place.meter
        for entry in spent(meter):
            _hold(self._spent, entry, place)
        answers = answered(meter)
        place.source.date(answers)
        for entry in answers:
            _hold(self._answered, entry, place)
        unlisted = meter.accumulated - math.fsum(entry.cost for entry in meter.costs)
        # A list that says more than the total is not contradicted by it: what is listed was paid.
        if unlisted > _NOISE * max(1.0, meter.accumulated):
            self._unlisted.append((place, unlisted))
            if not meter.costs:
                key = (meter.model, meter.accumulated, meter.accumulated_tokens)
                place.join(self._totals.setdefault(key, place))

    def _put_halves_together(self) -> None:
        """An answer whose file was saved before its tokens were there is that of another file which has them.

        Conversations of several threads share an LLM, and each is saved when it changes itself.
        """
        whole = {
            (held.entry.usage.response_id, held.entry.seconds): held
            for held in self._answered.values()
            if held.entry.usage is not None and held.entry.seconds
        }
        for key, half in list(self._answered.items()):
            known = whole.get((str(key[1]), half.entry.seconds)) if half.entry.usage is None else None
            if known is not None:
                del self._answered[key]
                for holder in half.holders or [half.place.source]:
                    known.add_holder(holder)
                known.place.join(half.place)
                if half.place.goes_before(known.place):
                    known.place = half.place

    @property
    def spent(self) -> Iterable[HeldEntry[Spent]]:
        """Every cost, once."""
        return self._spent.values()

    @property
    def answered(self) -> Iterable[HeldEntry[Answered]]:
        """Every answer, once."""
        return self._answered.values()

    @property
    def unlisted(self) -> Iterable[tuple[MeterPlace, float]]:
        """Of meters that have entries in common, those of the one conversation that knows of most."""
        groups: dict[int, dict[int, dict[float, MeterPlace]]] = defaultdict(lambda: defaultdict(dict))
        for place, unlisted in self._unlisted:
            groups[id(place.first_of_group)][id(place.source)][unlisted] = place
        for sources in groups.values():
            most = max(sources.values(), key=sum)
            yield from ((place, unlisted) for unlisted, place in most.items())


def _hold[Entry: (Spent, Answered)](held: dict[CopyKey, HeldEntry[Entry]], entry: Entry, place: MeterPlace) -> None:
    known = held.get(entry.key)
    if known is None:
        held[entry.key] = HeldEntry(entry, place)
        return
    place.join(known.place)
    known.add_holder(place.source)
    if place.goes_before(known.place):
        known.place = place
        if entry.time is not None:
            known.entry = entry
