"""One span as the viewer keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_ROW: Final = 300
"""Bytes that a row takes beside its texts, about."""


class SpanKind(StrEnum):
    """What a span stands for. All but ``OTHER`` are made by this project's instrumentation."""

    RUN = "run"
    CALL = "call"
    TOOL = "tool"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Span:
    """One span. Ids are hexadecimal, times unix nanoseconds; ``facts``, ``labels`` and ``details`` are JSON."""

    trace: str
    span: str
    parent: str
    """Empty where it has none."""
    conversation: str
    """Empty where it names none, or is not of our instrumentation."""
    service: str
    kind: SpanKind
    name: str
    started: int
    ended: int
    labels: str
    facts: str
    """What lists show, some hundred bytes."""
    details: str
    """Attributes, events and Resource: whatever was captured."""

    @property
    def size(self) -> int:
        """Bytes that it takes in the database, about."""
        return _ROW + sum(map(len, (self.conversation, self.service, self.name, self.labels, self.facts, self.details)))
