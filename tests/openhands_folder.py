"""A conversation on disk as OpenHands leaves it, with calls at given times."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Call:
    when: float
    cost: float
    model: str = "openai/gpt-5"
    prompt: int = 1_000
    completion: int = 100
    cached: int = 400


def write_conversation(root: Path, *calls: Call, identity: str | None = None) -> str:
    """Put it below a folder; returns its id."""
    identity = identity or str(uuid.uuid4())
    folder = root / identity.replace("-", "")
    folder.mkdir(parents=True)
    meter = {
        "model_name": calls[0].model,
        "accumulated_cost": sum(call.cost for call in calls),
        "costs": [{"model": call.model, "cost": call.cost, "timestamp": call.when} for call in calls if call.cost],
        "token_usages": [
            {
                "model": call.model,
                "prompt_tokens": call.prompt,
                "completion_tokens": call.completion,
                "cache_read_tokens": call.cached,
                "response_id": f"{identity}-{number}",
            }
            for number, call in enumerate(calls)
        ],
        "response_latencies": [
            {"model": call.model, "latency": 1.5, "response_id": f"{identity}-{number}"}
            for number, call in enumerate(calls)
        ],
    }
    state = {
        "id": identity,
        "agent": {"kind": "Agent", "llm": {"model": calls[0].model, "usage_id": "agent"}},
        "execution_status": "finished",
        "stats": {"usage_to_metrics": {"agent": meter}},
    }
    path = folder / "base_state.json"
    path.write_text(json.dumps(state))
    last = max(call.when for call in calls)
    os.utime(path, (last, last))
    return identity
