"""Reads messages, tool arguments and results from OpenHands' objects where capture is on. Images are left out.

Beside it goes what OpenHands knows to be secret: the conversation's registry (looked at, never asked: a lookup may be
a request over the network) and the LLM's own keys.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from openhands_otel._internal.capture import compat
from openhands_otel._internal.capture.identity import OpenConversations
from openhands_otel._internal.clock import now_ns
from openhands_otel._internal.content import (
    CapturedContent,
    Content,
    ContentPart,
    Message,
    MessageCaptured,
    Reasoning,
    Text,
    TitleCaptured,
    ToolAnswer,
    ToolRequest,
)
from openhands_otel._internal.guard import guarded

SHORTEST_KEY: Final = 6
"""A local model's key may be any word, which is found everywhere then."""
_LLM_SECRETS: Final = ("api_key", "aws_access_key_id", "aws_secret_access_key", "aws_session_token")


class ContentHooks:
    """Asked by the other hooks at their beginnings and ends; ``wanted`` says whether anybody captures."""

    def __init__(
        self, publish: Callable[[CapturedContent], None], conversations: OpenConversations, wanted: Callable[[], bool]
    ) -> None:
        self._publish = publish
        self._conversations = conversations
        self._wanted = wanted

    @guarded
    def call_started(
        self, call: int, conversation_id: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """An LLM call with these arguments has begun."""
        if not self._wanted():
            return
        llm, *more = args
        given: list[Any] = list(more[0] if more else kwargs.get("messages") or ())
        system = tuple(text for each in given if each.role == "system" for text in _texts(each.content))
        messages = tuple(_message(each) for each in given if each.role != "system")
        secrets = self._secrets(conversation_id, llm)
        self._publish(MessageCaptured(now_ns(), Content(system=system, input=messages, secrets=secrets), call=call))

    @guarded
    def call_ended(
        self, call: int, conversation_id: str | None, llm: Any, result: Any, error: BaseException | None
    ) -> None:
        """It has ended, with an answer or an exception."""
        if not self._wanted():
            return
        message = getattr(result, "message", None)
        said = () if message is None else (_message(message),)
        content = Content(output=said, error=_said_by(error), secrets=self._secrets(conversation_id, llm))
        self._publish(MessageCaptured(now_ns(), content, call=call))

    @guarded
    def tool_started(self, tool: int, conversation_id: str, action_event: Any) -> None:
        """A tool call has begun."""
        if not self._wanted():
            return
        asked = getattr(action_event, "tool_call", None)
        arguments = None if asked is None else _request(asked).arguments
        secrets = self._secrets(conversation_id, None)
        self._publish(MessageCaptured(now_ns(), Content(arguments=arguments, secrets=secrets), tool=tool))

    @guarded
    def tool_ended(self, tool: int, conversation_id: str, result: Any, error: BaseException | None) -> None:
        """It has ended; ``result`` is an event or a list of them."""
        if not self._wanted():
            return
        events: list[Any] = list(result) if isinstance(result, list | tuple) else [result]  # pyright: ignore[reportUnknownArgumentType]
        texts = [text for each in events if each is not None for text in _texts(each.to_llm_message().content)]
        secrets = self._secrets(conversation_id, None)
        content = Content(result="\n".join(texts) if texts else None, error=_said_by(error), secrets=secrets)
        self._publish(MessageCaptured(now_ns(), content, tool=tool))

    @guarded
    def run_ended(self, run: int, conversation_id: str, error: BaseException | None) -> None:
        """A run has ended."""
        if error is None or not self._wanted():
            return
        content = Content(error=_said_by(error), secrets=self._secrets(conversation_id, None))
        self._publish(MessageCaptured(now_ns(), content, run=run))

    @guarded
    def titled(self, conversation_id: str, title: Any) -> None:
        """A conversation has this title, which it need not have got just now; an empty one where it has none."""
        if isinstance(title, str) and self._wanted():
            self._publish(TitleCaptured(now_ns(), conversation_id, title, self._secrets(conversation_id, None)))

    def _secrets(self, conversation_id: str | None, llm: Any) -> frozenset[str]:
        facts = self._conversations.get(conversation_id)
        conversation = None if facts is None else facts.reference()
        registry = getattr(compat.state_of(conversation), "secret_registry", None)
        llms = (llm, getattr(getattr(conversation, "agent", None), "llm", None))
        keys = [_revealed(getattr(each, name, None)) for each in llms for name in _LLM_SECRETS]
        found: list[Any] = [key for key in keys if key is not None and len(key) >= SHORTEST_KEY]
        found += dict(getattr(registry, "_exported_values", None) or {}).values()
        sources = dict(getattr(registry, "secret_sources", None) or {}).values()
        found += [getattr(source, "value", None) for source in sources]
        return frozenset(text for each in found if (text := _revealed(each)))


def _message(message: Any) -> Message:
    texts = list(_texts(message.content))
    if message.role == "tool":
        answer = ToolAnswer(getattr(message, "tool_call_id", None), "\n".join(texts))
        return Message("tool", (answer,))
    parts: list[ContentPart] = [Reasoning(text) for text in _thoughts(message)]
    parts += [Text(text) for text in texts]
    parts += [_request(each) for each in getattr(message, "tool_calls", None) or ()]
    return Message(str(message.role), tuple(parts))


def _texts(content: Iterable[Any]) -> Iterator[str]:
    return (text for each in content if isinstance(text := getattr(each, "text", None), str))


def _thoughts(message: Any) -> list[str]:
    said = getattr(message, "reasoning_content", None)
    if isinstance(said, str) and said:
        return [said]
    blocks = getattr(message, "thinking_blocks", None) or ()
    item = getattr(message, "responses_reasoning_item", None)
    found: list[Any] = [getattr(each, "thinking", None) for each in blocks]
    found += getattr(item, "summary", None) or ()
    return [each for each in found if isinstance(each, str) and each]


def _request(call: Any) -> ToolRequest:
    # litellm's own objects have a function in them.
    function = getattr(call, "function", None) or call
    arguments: Any = function.arguments
    if isinstance(arguments, str):
        # What a model makes up need not be JSON.
        with contextlib.suppress(ValueError):
            arguments = json.loads(arguments)
    return ToolRequest(getattr(call, "id", None), str(function.name), arguments)


def _said_by(error: BaseException | None) -> str | None:
    return None if error is None else str(error)


def _revealed(value: Any) -> str | None:
    reveal = getattr(value, "get_secret_value", None)
    text = value if reveal is None else reveal()
    return text if isinstance(text, str) else None
