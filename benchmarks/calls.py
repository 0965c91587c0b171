"""Real LLM calls of a real conversation, one at a time, for the other benchmarks.

A call is what the agent's step makes: ``LLM.completion`` of the agent's LLM with the conversation's call context, over
litellm and HTTP to the scripted provider (a process of its own), through ``Telemetry.on_response`` into the
conversation's ``Metrics``. Only the messages are always the same two: with a history that grows, ten thousand calls
would take OpenHands hours.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from openhands_otel._internal.capture.identity import Scope, inside
from openhands_otel._internal.demo.answers import call, say
from openhands_otel._internal.demo.children import Child

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["OPENHANDS_SUPPRESS_BANNER"] = "1"
os.environ["LOG_LEVEL"] = "ERROR"
for _name in list(os.environ):
    if _name.startswith(("OTEL_", "OPENHANDS_OTEL_")):
        del os.environ[_name]

POINTS = (1, 10, 100, 1_000, 10_000)
QUICK_POINTS = (1, 10, 100, 500)


@dataclass(frozen=True)
class Talk:
    """A real conversation and its agent's LLM."""

    conversation: Any
    llm: Any

    def call(self) -> None:
        """Make one call."""
        from openhands.sdk import Message, TextContent

        messages = [Message(role="user", content=[TextContent(text="Say that you are done.")])]
        self.llm.completion(messages, call_context=self.conversation.get_llm_call_context())

    def record(self, calls: int) -> None:
        """Record calls that were never made."""
        with inside(Scope(conversation_id=str(self.conversation.id)), None):
            for number in range(calls):
                self.llm.metrics.add_cost(0.0001)
                self.llm.metrics.add_response_latency(0.1, f"r{number}")
                self.llm.metrics.add_token_usage(20, 5, 0, 0, 128_000, f"r{number}")


@contextmanager
def conversation(delay_s: float = 0.0, tool_calls: int = 0) -> Iterator[Talk]:
    """A conversation, and a provider for it that takes ``delay_s`` for an answer. Its first run calls tools."""
    from openhands.sdk import LLM, Agent, LocalConversation

    with tempfile.TemporaryDirectory() as name:
        os.environ["HOME"] = name
        command = [sys.executable, "-m", "openhands_otel._internal.demo.llm_server", "--ready-json", "--stop-on-eof"]
        with Child("provider", command, os.environ, Path(name)) as provider:
            url = provider.ready(60)["url"]
            thoughts = [call("think", {"thought": "hm"}, delay=delay_s).model_dump()] * tool_calls
            answers = thoughts + [say("Done.", delay=delay_s).model_dump()] * 1_000
            script = Request(f"{url}/scripts/benchmark", json.dumps(answers).encode(), method="PUT")
            urlopen(script, timeout=10).close()
            url = f"{url}/s/benchmark/v1"
            llm = LLM(model="openai/gpt-4o", base_url=url, api_key="benchmark", num_retries=1)
            talk = LocalConversation(agent=Agent(llm=llm, tools=[]), workspace=name, visualizer=None)
            talk.send_message("Say that you are done.")
            talk.run()
            yield Talk(talk, llm)
            talk.close()
