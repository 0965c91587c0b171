"""An agent's program that gives every panel of the dashboards something to show, and is at work until it is killed.

Arguments: address of the scripted provider, folder to work in. It runs under ``openhands-otel run``.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from compat.consult_tool import Consult, ConsultTool
from openhands.sdk import LLM, Agent, LLMSummarizingCondenser, LocalConversation, Tool, register_tool
from openhands.sdk.subagent import register_agent
from openhands.tools.task import TaskToolSet
from openhands.tools.terminal import TerminalTool

PROVIDER, FOLDER = sys.argv[1:]


def llm(script: str, model: str = "gpt-4o", **options: Any) -> LLM:
    waits = {"num_retries": 2, "retry_min_wait": 0, "retry_max_wait": 0, "timeout": 600, "usage_id": script}
    return LLM(model=f"openai/{model}", base_url=f"{PROVIDER}/s/{script}/v1", api_key="x", **(waits | options))


def conversation(agent: Agent, **options: Any) -> LocalConversation:
    return LocalConversation(agent=agent, workspace=FOLDER, visualizer=None, **options)


def run(talk: LocalConversation, text: str = "hello") -> None:
    talk.send_message(text)
    talk.run()


class Broken:
    def completion(self, messages: Any) -> None:
        raise RuntimeError


# A sub-agent, a shell, a condenser.
register_agent(name="helper", factory_func=lambda given: Agent(llm=llm("child"), tools=[]), description="helps")
shell = Tool(name=TerminalTool.name, params={"terminal_type": "subprocess"})
condenser = LLMSummarizingCondenser(llm=llm("summary", model="gpt-4o-mini"), max_size=10, keep_first=2)
worker = Agent(llm=llm("main"), tools=[shell, Tool(name=TaskToolSet.name)], condenser=condenser)
main = conversation(worker)
run(main)

# Its answers are streamed; its model has no price.
run(conversation(Agent(llm=llm("streamed", stream=True), tools=[]), token_callbacks=[lambda chunk: None]))
run(conversation(Agent(llm=llm("unpriced", model="nobody-knows-its-price"), tools=[])))

# The provider refuses it; its tool raises.
Consult.helper = Broken()
register_tool("ConsultTool", ConsultTool)
for agent in (Agent(llm=llm("refused"), tools=[]), Agent(llm=llm("asking"), tools=[Tool(name="ConsultTool")])):
    with suppress(Exception):
        run(conversation(agent))

# Until somebody ends this process.
run(main, "and now wait")
