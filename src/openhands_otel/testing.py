"""What a test spends, read inside of it: no network, no exporter, nothing to set up.

    from openhands_otel.testing import capture

    with capture() as spent:
        conversation.run()
    assert spent.cost == pytest.approx(0.03)
    assert spent.conversation(conversation.id).llm_calls == 2

The events and the totals are those that an instrumented process exports, from the same hooks and the same ledger. It
makes no difference whether the process is instrumented as well, nor what the ``OPENHANDS_OTEL_*`` and ``OTEL_*``
variables say. Captures may be nested, and one sees what every thread and every task of the process does while it is
open; child processes are not seen.

Since 0.1.0.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from uuid import UUID

from openhands_otel import semconv
from openhands_otel._internal.guard import note_error
from openhands_otel._internal.ledger.ledger import Ledger
from openhands_otel._internal.process.subscriptions import bus, listen
from openhands_otel._internal.usages import token_usage
from openhands_otel.events import Event
from openhands_otel.stats import ConversationStats, TokenUsage

__all__ = ["Captured", "capture"]

_UNLIMITED = 2**63


class Captured:
    """What happened while a capture was open. Readable in it and after it, on any thread."""

    def __init__(self, heard: Sequence[Event]) -> None:
        self._heard = heard
        self._applied = 0
        self._ledger = Ledger(series_limit=_UNLIMITED, conversation_limit=_UNLIMITED)
        self._reading = threading.Lock()

    def __repr__(self) -> str:
        return f"<Captured ${self.cost:g}, {self.llm_calls} LLM calls, {len(self._heard)} events>"

    @property
    def events(self) -> tuple[Event, ...]:
        """All events so far, in the order in which they happened."""
        return tuple(self._heard)

    def of[E: Event](self, kind: type[E]) -> tuple[E, ...]:
        """The events of one kind.

        Args:
            kind: A class of ``openhands_otel.events``.

        Returns:
            Those so far, in the order in which they happened.
        """
        return tuple(event for event in self.events if isinstance(event, kind))

    @property
    def cost(self) -> float:
        """US dollars spent, in conversations or not: the exact sum of each ``add_cost``, rounded once."""
        return self._total(semconv.COST)

    @property
    def tokens(self) -> TokenUsage:
        """Tokens used, in conversations or not."""
        return token_usage([{kind: int(self._total(metric)) for kind, metric in semconv.TOKEN_COUNTERS.items()}])

    @property
    def llm_calls(self) -> int:
        """Responses of LLMs."""
        return int(self._total(semconv.CALLS))

    @property
    def unpriced_calls(self) -> int:
        """Responses with tokens for which no price was known: of what they cost, ``cost`` has nothing."""
        return int(self._total(semconv.UNPRICED_CALLS))

    @property
    def conversations(self) -> tuple[ConversationStats, ...]:
        """All conversations of which there was an event, in the order in which they came."""
        with self._reading:
            ledger = self._settled()
            return tuple(stats for each in ledger.accounts if (stats := ledger.snapshot(each)) is not None)

    def conversation(self, conversation_id: str | UUID) -> ConversationStats:
        """One conversation, closed or not.

        Args:
            conversation_id: ``conversation.id``, or its text.

        Returns:
            Its totals and its state, as a viewer would show them; ``tree_cost`` has its sub-agents' spend in it.

        Raises:
            KeyError: There was no event of it.
        """
        with self._reading:
            found = self._settled().snapshot(str(conversation_id))
        if found is None:
            raise KeyError(f"nothing happened in conversation {conversation_id}")
        return found

    def _total(self, metric: semconv.Metric) -> float:
        with self._reading:
            return self._settled().fleet[metric.name].total

    def _settled(self) -> Ledger:
        """The ledger with all events in it: until somebody reads they wait, and the agent only appends to a list."""
        while self._applied < len(self._heard):
            event = self._heard[self._applied]
            self._applied += 1
            try:
                self._ledger.apply(event)
            except ValueError as error:
                # Refused as it is on the way to an exporter: no number, or none that may be true.
                note_error("Ledger.apply", error)
        return self._ledger


@contextmanager
def capture() -> Generator[Captured]:
    """Capture what is spent in this process, for as long as the ``with`` block runs.

    The hooks on OpenHands are put in place for it, unless they are, and taken away again after it, unless they are
    needed otherwise. OpenHands may be imported before, in it or never.

    Returns:
        A context manager; entered, it gives what was captured so far (Captured), which stays readable after the block.
    """
    heard: list[Event] = []
    remove = bus.add_sink(heard.append)
    try:
        stop = listen()
        try:
            yield Captured(heard)
        finally:
            stop()
    finally:
        remove()
