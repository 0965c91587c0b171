"""All conversations in memory as a forest: who is whose parent, and what lies under each.

Parents may arrive after their children, never, or (from a sender gone wrong) in a circle; none of it may hang a walk.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from datetime import tzinfo

from openhands_otel._internal.collector.points.limits import CONVERSATION_BYTES
from openhands_otel._internal.collector.state.conversation import Conversation
from openhands_otel._internal.collector.state.liveness import Life
from openhands_otel._internal.exact import ExactSum
from openhands_otel._internal.facts import WAIT_FOR_A_PERSON
from openhands_otel.semconv import Status
from openhands_otel.stats import ConversationStats


class _OfService(Mapping[str, Conversation]):
    """Of some conversations those on which one service alone has worked."""

    def __init__(self, every: Mapping[str, Conversation], service: str) -> None:
        self._every, self._service = every, service

    def __getitem__(self, name: str) -> Conversation:
        found = self._every[name]
        if not found.is_of(self._service):
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return (name for name, one in self._every.items() if one.is_of(self._service))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Conversations:
    """Conversations by id, with their children."""

    def __init__(self) -> None:
        self.zone: tzinfo | None = None
        """Whose clock names go by; None for this machine's."""
        self._held: dict[str, Conversation] = {}
        self.by_id: Mapping[str, Conversation] = self._held
        self.dirty: set[str] = set()
        self._children: dict[str, set[str]] = {}
        self._linked: dict[str, str] = {}
        """The parent under which a conversation stands in ``_children``."""
        self.weight = 0
        """Bytes that all of them take, about."""
        self._open: set[str] = set()
        self._running: set[str] = set()
        self._service: str | None = None
        """Whose alone they are; None where they are everybody's."""

    def __contains__(self, conversation_id: str) -> bool:
        return conversation_id in self.by_id

    def __len__(self) -> int:
        return len(self.by_id)

    def of_service(self, service: str) -> Conversations:
        """Those on which one service alone has worked, to be read: what they are changes with these."""
        theirs = Conversations()
        theirs.zone, theirs._service = self.zone, service
        theirs.by_id = _OfService(self.by_id, service)
        theirs._open, theirs._running, theirs._children = self._open, self._running, self._children
        return theirs

    @property
    def open_count(self) -> int:
        return self._count(self._open)

    @property
    def running_count(self) -> int:
        return self._count(self._running)

    def _count(self, ids: set[str]) -> int:
        return len(ids) if self._service is None else sum(name in self.by_id for name in ids)

    def admit(self, conversation: Conversation) -> None:
        self.weight += conversation.weight
        self._held[conversation.id] = conversation
        self.refresh(conversation)

    def refresh(self, conversation: Conversation) -> None:
        """Put a conversation that changed where it belongs: under its parent, among the open, among the running."""
        attended = conversation.attended
        _mark(self._open, conversation.id, attended)
        _mark(self._running, conversation.id, attended and conversation.status == Status.RUNNING)
        if self._linked.get(conversation.id) == conversation.parent_id:
            return
        self._unlink(conversation.id)
        if conversation.parent_id is not None:
            self._linked[conversation.id] = conversation.parent_id
            self._children.setdefault(conversation.parent_id, set()).add(conversation.id)

    def _unlink(self, conversation_id: str) -> None:
        parent = self._linked.pop(conversation_id, None)
        if parent is not None:
            siblings = self._children[parent]
            siblings.discard(conversation_id)
            if not siblings:
                del self._children[parent]

    def ancestors(self, conversation: Conversation) -> Iterator[Conversation]:
        """Those above, nearest first."""
        seen = {conversation.id}
        parent = self.by_id.get(conversation.parent_id or "")
        while parent is not None and parent.id not in seen:
            yield parent
            seen.add(parent.id)
            parent = self.by_id.get(parent.parent_id or "")

    def family(self, conversation: Conversation) -> Iterator[Conversation]:
        """A conversation and those under it that are in memory."""
        seen: set[str] = set()
        waiting = [conversation.id]
        while waiting:
            current = self.by_id.get(waiting.pop())
            if current is None or current.id in seen:
                continue
            seen.add(current.id)
            yield current
            waiting.extend(self._children.get(current.id, ()))

    def tree(self, conversation: Conversation) -> tuple[float, int]:
        """Cost of a conversation and of all under it, those that left memory included; and how many are under it.

        Where some that left memory were another's and these are of one service, none of those that left there count.
        """
        total = ExactSum()
        descendants = -1
        for current in self.family(conversation):
            descendants += 1
            total.add(current.own_cost)
            if self._service is None or current.folded_services <= {self._service}:
                descendants += current.folded_descendants
                total.include(current.folded_cost)
        return total.value, descendants

    def stats(self, conversation: Conversation) -> ConversationStats:
        return conversation.stats(*self.tree(conversation), self.zone)

    @property
    def waiting_count(self) -> int:
        """How many go on only when a person does something; of those whose process is lost nobody knows."""
        left = (one for one in self.by_id.values() if one.life in (Life.LIVE, Life.ENDED) and not one.closed)
        return sum(one.stats(0.0, 0, self.zone).outcome in WAIT_FOR_A_PERSON for one in left)

    def newest_first(self) -> list[Conversation]:
        return sorted(self.by_id.values(), key=lambda conversation: conversation.received, reverse=True)

    def attended(self) -> list[Conversation]:
        """Open conversations whose processes were there when they were looked at last."""
        return [self.by_id[conversation_id] for conversation_id in self._open]

    def leavers(self, limit: int, hard_limit: int, most: int) -> list[Conversation]:
        """Which may leave memory: the oldest ended ones over ``limit``; over ``hard_limit`` the oldest of all.

        Those with children in memory stay, so that what is folded into a parent is always whole.
        """
        too_heavy = self.weight > CONVERSATION_BYTES and len(self.by_id) > 1
        surplus = most if too_heavy else min(most, len(self.by_id) - limit)
        if surplus <= 0:
            return []
        childless = [one for one in self.by_id.values() if one.id not in self._children]
        ended = heapq.nsmallest(surplus, (one for one in childless if one.id not in self._open), key=_last_seen)
        if ended or (len(self.by_id) <= hard_limit and not too_heavy):
            return ended
        over = len(self.by_id) // 8 + 1 if too_heavy else len(self.by_id) - hard_limit
        return heapq.nsmallest(min(most, over), childless, key=_last_seen)

    def fold(self, conversation: Conversation) -> Conversation | None:
        """Take one out of memory and leave its cost with its parent, who is returned."""
        cost, descendants = _whole(conversation)
        del self._held[conversation.id]
        self.weight -= conversation.weight
        self._unlink(conversation.id)
        for marked in (self.dirty, self._open, self._running):
            marked.discard(conversation.id)
        parent = self.by_id.get(conversation.parent_id or "")
        if parent is None:
            return None
        conversation.folded_into = parent.id
        parent.folded_services |= {*conversation.services.values(), *conversation.folded_services}
        self._book(parent, cost, descendants + 1)
        return parent

    def unfold(self, conversation: Conversation) -> None:
        """The opposite of fold; the parent that has its cost must be in memory."""
        self.admit(conversation)
        self.dirty.add(conversation.id)
        holder = self.by_id.get(conversation.folded_into or "")
        conversation.folded_into = None
        if holder is not None:
            cost, descendants = _whole(conversation)
            self._book(holder, -cost, -(descendants + 1))

    def _book(self, parent: Conversation, cost: float, descendants: int) -> None:
        parent.folded_cost.add(cost)
        parent.folded_descendants += descendants
        self.dirty.add(parent.id)


def _last_seen(conversation: Conversation) -> float:
    return conversation.seen


def _mark(marked: set[str], conversation_id: str, belongs: bool) -> None:
    if belongs:
        marked.add(conversation_id)
    else:
        marked.discard(conversation_id)


def _whole(conversation: Conversation) -> tuple[float, int]:
    """What a conversation with no children in memory stands for."""
    total = ExactSum([conversation.own_cost])
    total.include(conversation.folded_cost)
    return total.value, conversation.folded_descendants
