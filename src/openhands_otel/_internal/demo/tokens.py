"""Token counts for answers whose script names none: they follow the text that really went over the wire.

Four characters are taken as one token. As with the real provider, what a request has in common with the beginning of
the last one of its conversation is read from the cache, in steps of 128 tokens, from 1,024 on.
"""

from __future__ import annotations

import json
from itertools import takewhile
from typing import Any

from openhands_otel._internal.demo.answers import Answer, Usage

_CHARACTERS_PER_TOKEN = 4
_CACHE_MINIMUM = 1024
_CACHE_STEP = 128


def prompt_text(body: dict[str, Any]) -> str:
    """All that the model reads, what stays the same from call to call in front."""
    return json.dumps([body.get(part) for part in ("tools", "instructions", "messages", "input")])


def measure(prompt: str, answer: Answer, previous_prompt: str) -> Usage:
    """Usage of ``answer`` to ``prompt``, which came after ``previous_prompt``."""
    written = answer.text + "".join(tool_call.name + json.dumps(tool_call.arguments) for tool_call in answer.tool_calls)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(prompt, previous_prompt, strict=False))
    repeated = sum(1 for _ in same) // _CHARACTERS_PER_TOKEN
    return Usage(
        input=_count(prompt),
        cached=repeated // _CACHE_STEP * _CACHE_STEP if repeated >= _CACHE_MINIMUM else 0,
        output=_count(written) + answer.reasoning,
        reasoning=answer.reasoning,
    )


def _count(text: str) -> int:
    return -(-len(text) // _CHARACTERS_PER_TOKEN)
