"""Token counts for answers whose script names none: they follow the text that really went over the wire.

Four characters are taken as one token. As with the real provider, a prompt of 1,024 tokens or more is cached in steps
of 128, so the next request of the same conversation reads the part it repeats from the cache.
"""

from __future__ import annotations

import json
from typing import Any

from openhands_otel.demo.answers import Answer, Usage

_CHARACTERS_PER_TOKEN = 4
_CACHE_MINIMUM = 1024
_CACHE_STEP = 128


def measure(body: dict[str, Any], answer: Answer, previous_input: int) -> Usage:
    """Usage of ``answer`` to ``body``, where the last request of this conversation had ``previous_input`` tokens."""
    prompt = [body.get(part) for part in ("messages", "input", "instructions", "tools")]
    written = answer.text + "".join(tool_call.name + json.dumps(tool_call.arguments) for tool_call in answer.tool_calls)
    size = _count(json.dumps(prompt))
    repeated = min(previous_input, size)
    cached = repeated // _CACHE_STEP * _CACHE_STEP if repeated >= _CACHE_MINIMUM else 0
    return Usage(input=size, cached=cached, output=_count(written))


def _count(text: str) -> int:
    return -(-len(text) // _CHARACTERS_PER_TOKEN)
