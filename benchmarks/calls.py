"""Real LLM calls of a real conversation, one at a time, for the other benchmarks.

A call is what the agent's step makes: ``LLM.completion`` of the agent's LLM with the conversation's call context, over
litellm and HTTP to the scripted provider (a process of its own), through ``Telemetry.on_response`` into the
conversation's ``Metrics``. Only the messages are always the same two: with a history that grows, ten thousand calls
would take OpenHands hours.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["OPENHANDS_SUPPRESS_BANNER"] = "1"
os.environ["LOG_LEVEL"] = "ERROR"
for _name in list(os.environ):
    if _name.startswith(("OTEL_", "OPENHANDS_OTEL_")):
        del os.environ[_name]

POINTS = (1, 10, 100, 1_000, 10_000)
QUICK_POINTS = (1, 10, 100, 500)


@contextmanager
def conversation() -> Iterator[tuple[Any, Callable[[], None]]]:
    """A real conversation, and what makes one call of its agent's LLM."""
    from openhands.sdk import LLM, Agent, LocalConversation, Message, TextContent

    from openhands_otel.demo.children import Child

    with tempfile.TemporaryDirectory() as name:
        os.environ["HOME"] = name
        command = [sys.executable, "-m", "openhands_otel.demo.llm_server", "--ready-json", "--stop-on-eof"]
        with Child("provider", command, os.environ, Path(name)) as provider:
            url = provider.ready(60)["base_url"]
            llm = LLM(model="openai/gpt-4o", base_url=url, api_key="benchmark", num_retries=1)
            talk = LocalConversation(agent=Agent(llm=llm, tools=[]), workspace=name, visualizer=None)
            talk.send_message("Say that you are done.")
            talk.run()
            messages = [Message(role="user", content=[TextContent(text="Say that you are done.")])]

            def call() -> None:
                llm.completion(messages, call_context=talk.get_llm_call_context())

            yield talk, call
            talk.close()
