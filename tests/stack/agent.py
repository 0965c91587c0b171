"""An agent with a sub-agent, as somebody would write it: it knows nothing of telemetry.

Arguments: the provider's base URL with ``{script}`` in it, and a workspace.
"""

from __future__ import annotations

import sys

from openhands.sdk import LLM, Agent, LocalConversation, Tool
from openhands.sdk.subagent import register_agent
from openhands.tools.task import TaskToolSet

provider, workspace = sys.argv[1:]


def llm(script: str, model: str) -> LLM:
    return LLM(model=f"openai/{model}", base_url=provider.format(script=script), api_key="x", num_retries=0)


def worker(given: LLM) -> Agent:
    return Agent(llm=given.model_copy(update={"base_url": provider.format(script="worker")}), tools=[])


register_agent(name="worker", factory_func=worker, description="works")
lead = Agent(llm=llm("lead", "gpt-4o"), tools=[Tool(name=TaskToolSet.name)])
conversation = LocalConversation(agent=lead, workspace=workspace, visualizer=None)
conversation.send_message("Have it done.")
conversation.run()
conversation.close()
