"""The provider's exact bill: one entry for each answer that a provider would charge, whether or not it was read."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from openhands_otel._internal.demo.answers import Usage


@dataclass(frozen=True, slots=True)
class Charge:
    """One billed answer; ``cost`` is None where the model has no price. ``at`` is unix nanoseconds."""

    request: int
    script: str
    model: str
    session_id: str | None
    usage: Usage
    cost: float | None
    at: int


class Bill:
    """Entries in the order in which answers were finished. Safe to use from any thread."""

    def __init__(self, entries: Iterable[Charge] = ()) -> None:
        self._lock = threading.Lock()
        self._entries = list(entries)

    def add(self, entry: Charge) -> None:
        with self._lock:
            self._entries.append(entry)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()

    @property
    def entries(self) -> tuple[Charge, ...]:
        with self._lock:
            return tuple(self._entries)

    @property
    def total(self) -> float:
        """US dollars, exactly summed."""
        return math.fsum(entry.cost for entry in self.entries if entry.cost is not None)

    @property
    def tokens(self) -> Usage:
        """Tokens of all entries."""
        usages = [entry.usage for entry in self.entries]
        return Usage(
            input=sum(usage.input for usage in usages),
            output=sum(usage.output for usage in usages),
            cached=sum(usage.cached for usage in usages),
            reasoning=sum(usage.reasoning for usage in usages),
        )

    def of_session(self, session_id: str) -> Bill:
        """The part that one conversation caused, by the session header that OpenHands sends."""
        return Bill(entry for entry in self.entries if entry.session_id == session_id)

    def as_json(self) -> dict[str, Any]:
        """What ``GET /bill`` answers."""
        return {
            "total": self.total,
            "calls": len(self.entries),
            "tokens": self.tokens.model_dump(),
            "entries": [asdict(entry) | {"usage": entry.usage.model_dump()} for entry in self.entries],
        }
