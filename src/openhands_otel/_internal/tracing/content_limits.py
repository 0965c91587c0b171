"""Content as it may leave: redacted, and within limits. What is too long is not cut, since half a key is no key that a
pattern would find: it is left out, and a few words say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from openhands_otel._internal.content import Content, ContentPart, Message, TitleCaptured, ToolRequest
from openhands_otel._internal.labels import VALUE_LIMIT, one_line
from openhands_otel._internal.tracing.redaction import REDACTED, Redaction

TEXT_LIMIT: Final = 100_000
"""Characters of one text."""
MESSAGES_LIMIT: Final = 400_000
"""Characters of the messages of one call; gRPC receivers refuse a request of more than 4 MiB."""
DEPTH_LIMIT: Final = 30
TITLE_LIMIT: Final = 1_000
"""Characters of a title that is looked at."""


@dataclass(frozen=True, slots=True)
class RedactedContent:
    """``content`` has no secrets any more; ``left_out`` counts the oldest messages, which had no room."""

    content: Content
    left_out: int


def redacted(content: Content, redaction: Redaction) -> RedactedContent:
    """Redact all of it. Raises where that fails: then there is nothing."""
    clean = _Cleaning(redaction, content.secrets)
    newest, left_out = _newest(content.input)
    return RedactedContent(
        Content(
            system=tuple(clean.text(each) for each in content.system),
            input=tuple(clean.message(each) for each in newest),
            output=tuple(clean.message(each) for each in content.output),
            arguments=clean.value(content.arguments),
            result=None if content.result is None else clean.text(content.result),
            error=None if content.error is None else clean.text(content.error),
        ),
        left_out,
    )


def redacted_title(captured: TitleCaptured, redaction: Redaction) -> str:
    """A title as it may leave: redacted, one line, and cut as a label is. Raises where that fails."""
    title = captured.title
    if len(title) > TITLE_LIMIT:
        return f"[left out: {len(title)} characters]"
    # Once more behind what hides in a key, which no pattern finds then.
    return redaction.text(one_line(redaction.text(title, captured.secrets)), captured.secrets)[:VALUE_LIMIT].rstrip()


@dataclass(frozen=True, slots=True, repr=False)
class _Cleaning:
    redaction: Redaction
    secrets: frozenset[str]

    def text(self, text: str) -> str:
        if len(text) > TEXT_LIMIT:
            return f"[left out: {len(text)} characters]"
        return self.redaction.text(text, self.secrets)

    def message(self, message: Message) -> Message:
        return Message(message.role, tuple(self.part(each) for each in message.parts))

    def part(self, part: ContentPart) -> ContentPart:
        if isinstance(part, ToolRequest):
            # The model writes the name, too.
            return replace(part, name=self.text(part.name), arguments=self.value(part.arguments))
        return replace(part, text=self.text(part.text))

    def value(self, value: object, depth: int = 0) -> object:
        """Anything that JSON can hold."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            # A secret may be one.
            said = str(value)
            return value if self.text(said) == said else REDACTED
        if isinstance(value, str):
            return self.text(value)
        if depth >= DEPTH_LIMIT:
            return "[left out: too deep]"
        if isinstance(value, Mapping):
            items = cast(Mapping[Any, Any], value).items()
            return {self.text(str(name)): self.named(str(name), each, depth + 1) for name, each in items}
        if isinstance(value, list | tuple):
            return [self.value(each, depth + 1) for each in cast(list[Any], value)]
        return f"[left out: {type(value).__name__}]"

    def named(self, name: str, value: object, depth: int) -> object:
        return REDACTED if self.redaction.is_secret_name(name) else self.value(value, depth)


def _newest(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], int]:
    """Those that there is room for, and how many there is none for."""
    room = MESSAGES_LIMIT
    for number, message in enumerate(reversed(messages)):
        room -= sum(_length(part) for part in message.parts)
        if room < 0:
            return messages[len(messages) - number :], len(messages) - number
    return messages, 0


def _length(part: ContentPart) -> int:
    size = len(str(part.arguments)) if isinstance(part, ToolRequest) else len(part.text)
    return min(size, TEXT_LIMIT)
