"""The labels of a conversation, for the threads that the SDK starts: ``labels()`` itself ends at a thread's border.

A conversation keeps what held where it was opened, what its parent had then, and of what is people's (``user_id``, its
tags, its folder) what ``OPENHANDS_OTEL_SEND`` lists. What holds where its run begins comes on top, for that run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from openhands_otel._internal.capture import compat
from openhands_otel._internal.labels import Labels, current, labels_of, merged

TAG = "tags."


@dataclass(frozen=True, slots=True, eq=False)
class _RunLabels:
    """What holds where a run began, and that over what held where the conversation was opened."""

    context: Labels
    held: Labels


class ConversationLabels:
    """Those of one conversation in this process. Any thread may ask, and runs may overlap: the newest one counts."""

    __slots__ = ("_holding",)

    def __init__(self, opened: Labels) -> None:
        self._holding = [_RunLabels((), opened)]

    @property
    def held(self) -> Labels:
        """Those of what the conversation does."""
        return self._holding[-1].held

    def here(self) -> Labels:
        """Those of what happens in this thread or task."""
        context, newest = current(), self._holding[-1]
        return newest.held if context is newest.context else merged(newest.held, context)

    def enter_run(self) -> Callable[[], None]:
        """A run begins here; the returned function ends it."""
        context = current()
        holding = _RunLabels(context, merged(self._holding[0].held, context))
        self._holding.append(holding)
        return lambda: self._holding.remove(holding)


def labels_at_opening(
    conversation: Any, given: Mapping[str, Any], send: Collection[str], parent: ConversationLabels | None
) -> Labels:
    """Those that a conversation has from now on; ``given`` are the keywords that it is made with."""
    told = labels_of(_told(conversation, given, send)) if send else ()
    return merged(merged(parent.held if parent is not None else (), told), current())


def _told(conversation: Any, given: Mapping[str, Any], send: Collection[str]) -> dict[str, object]:
    """What it says of people, as far as that may be sent."""
    found: dict[str, object] = {}
    if "workspace" in send:
        found["workspace"] = compat.workspace_folder(conversation)
    tags = compat.tags_of(conversation)
    found |= {name.removeprefix(TAG): tags.get(name.removeprefix(TAG)) for name in send if name.startswith(TAG)}
    if "user_id" in send:
        found["user"] = given.get("user_id")
    return {name: value for name, value in found.items() if value is not None}
