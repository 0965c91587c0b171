"""A scenario: the scripted provider, real OpenHands parts of whatever release is installed, our instrumentation, and an
OTLP receiver whose sums are held against the provider's bill.

Each LLM gets a script of its own, so the bill says what each part of a scenario really cost.
"""

from __future__ import annotations

import importlib
import inspect
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from openhands_otel import OpenHandsInstrumentor
from openhands_otel._internal.demo.answers import Answer, Script, Usage
from openhands_otel._internal.demo.bill import Bill
from openhands_otel._internal.demo.llm_server import LLMServer
from otlp_receiver import NO_RECORDED_VALUE, Receiver

if TYPE_CHECKING:
    from openhands.sdk import LLM, LocalConversation

EXACT = 1e-9
COST = "openhands.llm.cost"
TOKENS = {
    "input": "gen_ai.client.inference.usage.input_tokens",
    "output": "gen_ai.client.inference.usage.output_tokens",
    "cached": "gen_ai.client.inference.usage.cache_read.input_tokens",
    "reasoning": "gen_ai.client.inference.usage.reasoning.output_tokens",
}


def said(
    text: str = "Done.", prompt: int = 1000, output: int = 50, cached: int = 0, reasoning: int = 0, **more: Any
) -> Answer:
    """An answer in words with a known usage."""
    return Answer(text=text, usage=Usage(input=prompt, output=output, cached=cached, reasoning=reasoning), **more)


def called(tool: str, arguments: dict[str, Any], prompt: int = 1000, output: int = 50, **more: Any) -> Answer:
    """An answer that calls a tool, with a known usage."""
    from openhands_otel._internal.demo.answers import ToolCall

    return Answer(
        tool_calls=(ToolCall(name=tool, arguments=arguments),), usage=Usage(input=prompt, output=output), **more
    )


def needs(module: str, name: str) -> Any:
    """An attribute of OpenHands (dotted), or a skip that says which release lacks it."""
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        pytest.skip(f"this release of OpenHands has no {module}.{name}")
    return found


class Scenario:
    """See the module's docstring."""

    def __init__(self, server: LLMServer, receiver: Receiver, folder: Path, closing: ExitStack) -> None:
        self.server = server
        self.receiver = receiver
        self.folder = folder
        self._closing = closing
        self._scripts: set[str] = set()
        self.recorded: list[float] = []
        """What ``Metrics.add_cost`` was really given, seen below our hooks."""

    def instrument(self) -> None:
        """From here on, until the scenario ends."""
        OpenHandsInstrumentor().instrument()
        self._closing.callback(OpenHandsInstrumentor().uninstrument)

    def script(self, name: str, answers: Script) -> None:
        self._scripts.add(name)
        self.server.script(name, answers)

    def llm(self, script: str = "main", model: str = "gpt-4o", **options: Any) -> LLM:
        """A real LLM whose requests are played by ``script`` (default: "Done." for ever)."""
        from openhands.sdk import LLM

        if script not in self._scripts:
            self.script(script, lambda request: said())
        waits = {"num_retries": 0, "retry_min_wait": 0, "retry_max_wait": 0, "timeout": 30}
        fields = LLM.model_fields
        given = {"model": f"openai/{model}", "base_url": self.server.base_url(script), "api_key": "x"} | waits | options
        return LLM(**{name: value for name, value in given.items() if name in fields})

    def agent(self, llm: LLM, **options: Any) -> Any:
        from openhands.sdk import Agent

        return Agent(llm=llm, **({"tools": []} | options))

    def conversation(self, llm_or_agent: Any, **options: Any) -> LocalConversation:
        """A real LocalConversation, closed when the scenario ends."""
        from openhands.sdk import LLM
        from openhands.sdk.conversation.impl.local_conversation import LocalConversation

        agent = self.agent(llm_or_agent) if isinstance(llm_or_agent, LLM) else llm_or_agent
        workspace = self.folder / "workspace"
        workspace.mkdir(exist_ok=True)
        parameters = inspect.signature(LocalConversation.__init__).parameters
        quiet = {"visualizer": None} if "visualizer" in parameters else {"visualize": False}
        conversation = LocalConversation(agent=agent, **({"workspace": str(workspace)} | quiet | options))
        self._closing.callback(conversation.close)
        return conversation

    def run(self, conversation: LocalConversation, text: str = "hello") -> None:
        conversation.send_message(text)
        conversation.run()

    # What arrived.

    def held(self) -> tuple[LocalConversation, threading.Event, threading.Event]:
        """A conversation to be run, an event for when its LLM call is under way, and one that lets it be answered."""
        reached, go_on = threading.Event(), threading.Event()

        def answer(request: Any) -> Answer:
            reached.set()
            go_on.wait(100)
            return said()

        self.script("main", answer)
        conversation = self.conversation(self.llm("main"))
        conversation.send_message("hello")
        return conversation, reached, go_on

    @contextmanager
    def midway(self) -> Iterator[None]:
        """While an LLM call of a run is under way."""
        conversation, reached, go_on = self.held()
        running = threading.Thread(target=conversation.run)
        running.start()
        try:
            assert reached.wait(100)
            yield
        finally:
            go_on.set()
            running.join(100)

    def settle(self) -> None:
        assert OpenHandsInstrumentor().flush(50)

    def bill(self, *scripts: str) -> Bill:
        """The provider's bill, or what some scripts cost."""
        entries = self.server.bill.entries
        return Bill(entry for entry in entries if not scripts or entry.script in scripts)

    def fleet(self, metric: str = COST, **attributes: Any) -> float:
        return self.receiver.total(metric, **attributes)

    def cost_of(self, conversation: Any, **attributes: Any) -> float:
        """What the conversation series say of one conversation."""
        named = {"gen_ai__conversation__id": str(getattr(conversation, "id", conversation))} | attributes
        return self.receiver.total("openhands.conversation.cost", **named)

    def check(self) -> None:
        """Everything the provider billed arrived, once: fleet totals and the sum of the conversations' series."""
        self.settle()
        bill = self.server.bill
        assert self.fleet() == pytest.approx(bill.total, abs=EXACT)
        tokens = bill.tokens
        assert {kind: self.fleet(metric) for kind, metric in TOKENS.items()} == {
            "input": tokens.input,
            "output": tokens.output,
            "cached": tokens.cached,
            "reasoning": tokens.reasoning,
        }

    def check_what_the_sdk_saw(self, conversation: Any) -> None:
        """For what some releases never record (a billed answer that litellm refuses): we equal what was recorded."""
        self.settle()
        assert self.fleet() == pytest.approx(sum(self.recorded), abs=EXACT)

    def facts(self, metric: str) -> list[Any]:
        """Points of a gauge that still stand."""
        return [
            points[-1] for points in self.receiver.streams(metric).values() if not points[-1].flags & NO_RECORDED_VALUE
        ]
