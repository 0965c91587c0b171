"""An ACP agent that does nothing but report what a script (a JSON file) says each turn cost.

The script is a list of turns: {"input", "output", "cached", "cost" (cumulative, or null), "currency"}; how far it is
stands in a file beside it, so that a restarted process goes on. Run as ``python acp_stub.py SCRIPT [MODEL]``: it says
that a session uses this model, if one is named.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from pathlib import Path
from typing import Any

import acp
from acp.schema import (
    AgentCapabilities,
    Cost,
    ForkSessionResponse,
    InitializeResponse,
    LoadSessionResponse,
    NewSessionResponse,
    PromptResponse,
    Usage,
    UsageUpdate,
)

SCRIPT = Path(sys.argv[1])
PLACE = SCRIPT.with_suffix(".place")
MODEL = sys.argv[2] if len(sys.argv) > 2 else None


def session(session_id: str) -> NewSessionResponse:
    answer: dict[str, Any] = {"sessionId": session_id}
    if MODEL is not None:
        options = [{"value": MODEL, "name": MODEL}]
        choice = {"type": "select", "id": "model", "name": "Model", "currentValue": MODEL, "options": options}
        answer["configOptions"] = [choice]
    return NewSessionResponse.model_validate(answer)


class Stub:
    client: Any = None

    def on_connect(self, conn: Any) -> None:
        self.client = conn

    async def initialize(self, protocol_version: int, **kwargs: Any) -> InitializeResponse:
        return InitializeResponse(
            protocol_version=protocol_version, agent_capabilities=AgentCapabilities(load_session=True)
        )

    async def new_session(self, cwd: str, **kwargs: Any) -> NewSessionResponse:
        return session(str(uuid.uuid4()))

    async def load_session(self, cwd: str, session_id: str, **kwargs: Any) -> LoadSessionResponse:
        return LoadSessionResponse()

    async def fork_session(self, session_id: str, cwd: str, **kwargs: Any) -> ForkSessionResponse:
        return ForkSessionResponse(session_id=str(uuid.uuid4()))

    async def set_session_mode(self, session_id: str, mode_id: str, **kwargs: Any) -> None:
        return None

    async def set_session_model(self, *args: Any, **kwargs: Any) -> None:
        return None

    async def authenticate(self, method_id: str, **kwargs: Any) -> None:
        return None

    async def cancel(self, session_id: str, **kwargs: Any) -> None:
        return None

    async def prompt(self, session_id: str, prompt: Any = None, **kwargs: Any) -> PromptResponse:
        place = int(PLACE.read_text()) if PLACE.exists() else 0
        turn = json.loads(SCRIPT.read_text())[place]
        PLACE.write_text(str(place + 1))
        await self.client.session_update(
            session_id=session_id, update=acp.update_agent_message_text(f"turn {place} done")
        )
        cost = None
        if turn.get("cost") is not None:
            cost = Cost(amount=turn["cost"], currency=turn.get("currency", "USD"))
        update = UsageUpdate(session_update="usage_update", used=100, size=200_000, cost=cost)
        await self.client.session_update(session_id=session_id, update=update)
        tokens = {"input": turn.get("input", 0), "output": turn.get("output", 0), "cached": turn.get("cached", 0)}
        usage = Usage(
            total_tokens=sum(tokens.values()),
            input_tokens=tokens["input"],
            output_tokens=tokens["output"],
            cached_read_tokens=tokens["cached"],
        )
        return PromptResponse(stop_reason="end_turn", usage=usage)


if __name__ == "__main__":
    asyncio.run(acp.run_agent(Stub(), use_unstable_protocol=True))
