"""An agent whose OpenHands records the cost of an answer and fails before its tokens; argument 1 is the provider."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from openhands.sdk import LLM, Agent, LocalConversation
from openhands.sdk.llm.utils.telemetry import Telemetry


def lose(*_: Any) -> None:
    raise AttributeError("'PromptTokensDetailsWrapper' object has no attribute 'cache_creation_tokens'")


Telemetry._record_usage = lose
llm = LLM(model="openai/gpt-4o-mini", api_key="key", base_url=f"{sys.argv[1]}/v1", usage_id="agent", num_retries=0)
conversation = LocalConversation(agent=Agent(llm=llm, tools=[]), workspace=os.getcwd(), visualizer=None)
print(conversation.id, flush=True)
conversation.send_message("Go on.")
with pytest.raises(Exception, match="cache_creation_tokens"):
    conversation.run()
conversation.close()
