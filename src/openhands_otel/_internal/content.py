"""Content of calls and tool calls as plain values, not redacted yet. It is made only where capture is on.

Nothing here may be printed or sent as it is: ``tracing/redaction.py`` comes first. So it has no ``repr``.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, repr=False)
class Text:
    """Words."""

    text: str


@dataclass(frozen=True, slots=True, repr=False)
class Reasoning:
    """What a model thought before it answered."""

    text: str


@dataclass(frozen=True, slots=True, repr=False)
class ToolRequest:
    """A model asks for a tool; ``arguments`` is what JSON can hold."""

    id: str | None
    name: str
    arguments: object


@dataclass(frozen=True, slots=True, repr=False)
class ToolAnswer:
    """What a tool answered."""

    id: str | None
    text: str


ContentPart = Text | Reasoning | ToolRequest | ToolAnswer


@dataclass(frozen=True, slots=True, repr=False)
class Message:
    """One message of a conversation with a model."""

    role: str
    parts: tuple[ContentPart, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Content:
    """What was said; of what there is nothing of stays empty."""

    system: tuple[str, ...] = ()
    input: tuple[Message, ...] = ()
    output: tuple[Message, ...] = ()
    arguments: object = None
    result: str | None = None
    error: str | None = None
    """Message of an exception."""
    secrets: frozenset[str] = field(default_factory=frozenset[str])
    """Values that OpenHands knows to be secret."""


@dataclass(frozen=True, slots=True)
class MessageCaptured:
    """What was said in an LLM call, a tool call or a run that is under way: the one whose number is given.

    Made only where it is to be captured; no subscriber hears of it, for it is not redacted yet.
    """

    at: int
    """Unix nanoseconds."""
    content: Content = field(repr=False)
    call: int | None = None
    tool: int | None = None
    run: int | None = None


@dataclass(frozen=True, slots=True)
class TitleCaptured:
    """What a conversation is called from now on: made of what was said in it, so it is content."""

    at: int
    """Unix nanoseconds."""
    conversation_id: str
    title: str = field(repr=False)
    secrets: frozenset[str] = field(default_factory=frozenset[str], repr=False)


CapturedContent = MessageCaptured | TitleCaptured


@dataclass(frozen=True, slots=True)
class TitleAllowed:
    """The same redacted and within limits, for the ledger."""

    at: int
    conversation_id: str
    title: str
