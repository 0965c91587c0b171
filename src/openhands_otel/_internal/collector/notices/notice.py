"""One thing that somebody is told once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from openhands_otel.semconv import NoticeKind


@dataclass(frozen=True, slots=True)
class Notice:
    """``text`` is one line; ``key`` names the event, and is the same for as long as it is the same event."""

    kind: NoticeKind
    key: str
    text: str

    @property
    def digest(self) -> str:
        """What is kept of it: nobody reads a conversation's name out of that."""
        return hashlib.sha256(f"{self.kind}\0{self.key}".encode()).hexdigest()
