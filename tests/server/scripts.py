"""What the scripted model answers to an agent on a server."""

from __future__ import annotations

import json
import threading
from typing import Any

from openhands_otel._internal.demo.answers import Answer, LLMRequest, Script, ToolCall, Usage, say
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel._internal.demo.pricing import price

CALL = Usage(input=2000, output=40, cached=500)
TITLE = Usage(input=300, output=5)


def cost_of(usage: Usage) -> float:
    """What the model of the client's agents charges for it."""
    cost = price("gpt-4o", usage)
    assert cost is not None
    return cost


def playing(*answers: Answer) -> Script:
    """One after the other to the agent, then "Done." for ever; servers ask for a title in between, without tools."""
    left = list(answers)
    taking = threading.Lock()

    def answer(request: LLMRequest) -> Answer:
        if not request.body.get("tools"):
            return say("A title", usage=TITLE)
        with taking:
            return left.pop(0) if left else say("Done.", usage=Usage(input=1000, output=10))

    return answer


def calling(tool: str, **arguments: Any) -> Answer:
    return Answer(
        tool_calls=(ToolCall(name=tool, arguments=arguments),), usage=Usage(input=2000, output=40, cached=500)
    )


def running(command: str) -> Answer:
    return calling("terminal", command=command)


def look_around(llm_server: LLMServer) -> list[str]:
    """Have the agent's tool write its environment; returns a list that fills with the requests that the model gets.

    What the tool wrote is in the request behind it; its PYTHONPATH stands there as ``named '...'``.
    """
    asked: list[str] = []
    answers = playing(running("env; echo \"named '$PYTHONPATH'\""))

    def script(request: LLMRequest) -> Answer:
        asked.append(json.dumps(request.body))
        return answers(request)

    llm_server.script("main", script)
    return asked
