"""Answers in the two shapes of OpenAI's HTTP API: Chat Completions and Responses, whole or as server-sent events."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from openhands_otel._internal.demo.answers import Answer, LLMRequest, ToolCall, Usage
from openhands_otel._internal.demo.pricing import MODELS

_PIECE = 24


def error_body(answer: Answer) -> dict[str, Any]:
    """Body of an HTTP error, as OpenAI words it."""
    message = answer.text or f"scripted error {answer.status}"
    return {"error": {"message": message, "type": "scripted_error", "param": None, "code": str(answer.status)}}


def body(request: LLMRequest, answer: Answer, usage: Usage) -> dict[str, Any]:
    """A whole response."""
    if request.api == "chat":
        return _completion(request, answer, usage)
    return _response(request, answer, usage)


def events(request: LLMRequest, answer: Answer, usage: Usage) -> Iterator[bytes]:
    """The same response as server-sent events."""
    if request.api == "chat":
        for chunk in _chunks(request, answer, usage):
            yield _event(chunk)
        yield b"data: [DONE]\n\n"
        return
    for number, item in enumerate(_response_events(request, answer, usage)):
        yield _event(item | {"sequence_number": number}, name=item["type"])


def _event(data: dict[str, Any], name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def _pieces(text: str) -> list[str]:
    return [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]


def _served_model(request: LLMRequest) -> str:
    sold = MODELS.get(request.model)
    return sold.dated_name if sold else request.model


def _call_id(request: LLMRequest, index: int) -> str:
    return f"call_{request.number}_{index}"


# ---------------------------------------------------------------- Chat Completions


def _completion(request: LLMRequest, answer: Answer, usage: Usage) -> dict[str, Any]:
    whole: dict[str, Any] = _completion_head(request, "chat.completion") | {"model": _served_model(request)}
    whole["choices"] = []
    if not answer.empty:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
        if answer.tool_calls:
            message["tool_calls"] = [_chat_call(request, n, item) for n, item in enumerate(answer.tool_calls)]
        whole["choices"] = [{"index": 0, "message": message, "finish_reason": _finish_reason(answer)}]
    if answer.usage_sent:
        whole["usage"] = _chat_usage(usage)
    return whole


def _chunks(request: LLMRequest, answer: Answer, usage: Usage) -> Iterator[dict[str, Any]]:
    head = _completion_head(request, "chat.completion.chunk") | {"model": _served_model(request)}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    if not answer.empty:
        yield chunk({"role": "assistant", "content": ""})
        for piece in _pieces(answer.text):
            yield chunk({"content": piece})
        for index, item in enumerate(answer.tool_calls):
            whole = _chat_call(request, index, item)
            arguments = whole["function"]["arguments"]
            opening = whole | {"index": index, "function": {"name": item.name, "arguments": ""}}
            yield chunk({"tool_calls": [opening]})
            for piece in _pieces(arguments):
                yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        yield chunk({}, _finish_reason(answer))
    options: dict[str, Any] = request.body.get("stream_options") or {}
    if answer.usage_sent and options.get("include_usage"):
        yield head | {"choices": [], "usage": _chat_usage(usage)}


def _completion_head(request: LLMRequest, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{request.number}", "object": kind, "created": int(time.time())}


def _finish_reason(answer: Answer) -> str:
    return "tool_calls" if answer.tool_calls else "stop"


def _chat_call(request: LLMRequest, index: int, item: ToolCall) -> dict[str, Any]:
    function = {"name": item.name, "arguments": json.dumps(item.arguments)}
    return {"id": _call_id(request, index), "type": "function", "function": function}


def _chat_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning, "audio_tokens": 0},
    }


# ---------------------------------------------------------------- Responses


def _response(request: LLMRequest, answer: Answer, usage: Usage) -> dict[str, Any]:
    whole = _response_head(request, "completed")
    if not answer.empty:
        whole["output"] = [item for item, _ in _output_items(request, answer)]
    if answer.usage_sent:
        whole["usage"] = {
            "input_tokens": usage.input,
            "input_tokens_details": {"cached_tokens": usage.cached},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.input + usage.output,
        }
    return whole


def _response_head(request: LLMRequest, status: str) -> dict[str, Any]:
    return {
        "id": f"resp_{request.number}",
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "model": _served_model(request),
        "output": [],
        "usage": None,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
    }


def _output_items(request: LLMRequest, answer: Answer) -> Iterator[tuple[dict[str, Any], str]]:
    """Finished output items, each with the text that a stream sends piece by piece."""
    if answer.text or not answer.tool_calls:
        content: list[dict[str, Any]] = [{"type": "output_text", "text": answer.text, "annotations": []}]
        message = {"type": "message", "id": f"msg_{request.number}", "role": "assistant", "status": "completed"}
        yield message | {"content": content}, answer.text
    for index, item in enumerate(answer.tool_calls):
        arguments = json.dumps(item.arguments)
        yield (
            {
                "type": "function_call",
                "id": f"fc_{request.number}_{index}",
                "call_id": _call_id(request, index),
                "name": item.name,
                "arguments": arguments,
                "status": "completed",
            },
            arguments,
        )


def _response_events(request: LLMRequest, answer: Answer, usage: Usage) -> Iterator[dict[str, Any]]:
    yield {"type": "response.created", "response": _response_head(request, "in_progress")}
    items = [] if answer.empty else list(_output_items(request, answer))
    for index, (item, text) in enumerate(items):
        place = {"output_index": index, "item_id": item["id"]}
        is_message = item["type"] == "message"
        kind = "output_text" if is_message else "function_call_arguments"
        where = place | {"content_index": 0} if is_message else place
        unfinished: dict[str, Any] = {"content": []} if is_message else {"arguments": ""}
        opening = item | {"status": "in_progress"} | unfinished
        yield {"type": "response.output_item.added", "output_index": index, "item": opening}
        for piece in _pieces(text):
            yield where | {"type": f"response.{kind}.delta", "delta": piece}
        yield where | {"type": f"response.{kind}.done", ("text" if is_message else "arguments"): text}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": "response.completed", "response": _response(request, answer, usage)}
