"""An agent that has a sub-agent do a part of its work, under whatever instruments it: argument 1 is the provider."""

from __future__ import annotations

import os
import sys
from typing import Any

from openhands.sdk import LLM, Agent, LocalConversation, Tool
from openhands.sdk.subagent import register_agent
from openhands.tools.task import TaskToolSet


def llm(script: str) -> LLM:
    url = f"{sys.argv[1]}/s/{script}/v1"
    return LLM(model="openai/gpt-4o-mini", api_key="key", base_url=url, usage_id="agent", num_retries=0)


def make_child(_: Any) -> Agent:
    return Agent(llm=llm("child"), tools=[])


register_agent(name="helper", factory_func=make_child, description="works for the test")
agent = Agent(llm=llm("boss"), tools=[Tool(name=TaskToolSet.name)])
conversation = LocalConversation(agent=agent, workspace=os.getcwd(), visualizer=None)
print(conversation.id, flush=True)
conversation.send_message("Go on.")
conversation.run()
conversation.close()
