"""What is new since a source was asked last, for those that do not tell it by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from openhands_otel.stats import ConversationUpdate, RemovedUpdate, SnapshotUpdate, State, TotalsUpdate, Update

ASKED: Final = "asked"
"""In the place of an event's id."""


class Changes:
    """From one state to the next."""

    def __init__(self) -> None:
        self._held: State | None = None

    def since(self, state: State) -> Iterator[Update]:
        """The updates that lead from the state before to this one; the first is all of it."""
        before, self._held = self._held, state
        if before is None:
            yield SnapshotUpdate(state=state)
            return
        known = {stats.conversation_id: stats for stats in before.conversations}
        for stats in reversed(state.conversations):
            if known.pop(stats.conversation_id, None) != stats:
                yield ConversationUpdate(received_unix_nano=stats.received_unix_nano, conversation=stats)
        for conversation_id in known:
            yield RemovedUpdate(conversation_id=conversation_id)
        if state.totals != before.totals:
            yield TotalsUpdate(received_unix_nano=state.totals.received_unix_nano, totals=state.totals)
