"""Conversations, agents and condensers of the user's own: what they override is seen as what they override is."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from openhands_otel import OpenHandsInstrumentor, subscribe
from openhands_otel._internal.demo.answers import Script
from openhands_otel.events import (
    ConversationClosed,
    ConversationOpened,
    CostAdded,
    LLMCallEnded,
    LLMCallStarted,
    RunEnded,
    RunStarted,
    TokensUsed,
    ToolEnded,
    ToolStarted,
)

from .scenario import EXACT, Scenario, called, needs, said

CONVERSATION = "openhands.sdk.conversation.impl.local_conversation"
OF_CONVERSATIONS = (
    "run",
    "arun",
    "fork",
    "close",
    "ask_agent",
    "generate_title",
    "execute_tool",
    "rerun_actions",
    "condense",
    "send_message",
)
KINDS_OF_EVENTS = (
    ConversationOpened,
    ConversationClosed,
    RunStarted,
    RunEnded,
    LLMCallStarted,
    LLMCallEnded,
    CostAdded,
    TokensUsed,
    ToolStarted,
    ToolEnded,
)
OF_AGENTS = ("step", "astep", "_execute_action_event")


_names = (f"Mine{number}" for number in itertools.count())
"""OpenHands knows classes by their names."""


def own(base: type, name: str) -> Callable[..., Any]:
    """A method that does all that OpenHands' does, and never calls it: a copy of it, as it is without us."""
    copied = inspect.unwrap(getattr(base, name))
    if inspect.iscoroutinefunction(copied):

        async def own_async(self: Any, *args: Any, **kwargs: Any) -> Any:
            return await copied(self, *args, **kwargs)

        return own_async
    return lambda self, *args, **kwargs: copied(self, *args, **kwargs)


def without_super(base: type, names: tuple[str, ...]) -> type:
    return type(next(_names), (base,), {name: own(base, name) for name in names if hasattr(base, name)})


def by_mixin(base: type, names: tuple[str, ...]) -> type:
    mixin = type("Mixin", (), {name: own(base, name) for name in names if hasattr(base, name)})
    return type(next(_names), (mixin, base), {})


def with_super(base: type, names: tuple[str, ...]) -> type:
    def through(name: str) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(getattr(base, name)):

            async def method_async(self: Any, *args: Any, **kwargs: Any) -> Any:
                return await getattr(super(mine, self), name)(*args, **kwargs)

            return method_async
        return lambda self, *args, **kwargs: getattr(super(mine, self), name)(*args, **kwargs)

    mine = type(next(_names), (base,), {name: through(name) for name in names if hasattr(base, name)})
    return mine


def plain_async(base: type, names: tuple[str, ...]) -> type:
    """Functions that return a coroutine and are none."""
    made = without_super(base, names)
    for name in [name for name in vars(made) if inspect.iscoroutinefunction(vars(made)[name])]:
        method = vars(made)[name]
        setattr(made, name, lambda self, *args, method=method, **kwargs: method(self, *args, **kwargs))
    return type(next(_names), (base,), {name: vars(made)[name] for name in names if name in vars(made)})


KINDS = [without_super, by_mixin, with_super, plain_async]


def answers() -> Script:
    return [called("think", {"thought": "hm"}), *(said() for _ in range(20))]


def live(scenario: Scenario, conversation_class: Any, agent: Any, script: str) -> Counter[Any]:
    """A conversation's whole life; returns what was told of it, by kind, role, outcome and status."""
    scenario.script(script, answers())
    events: list[Any] = []
    unsubscribe = subscribe(events.append, kinds=KINDS_OF_EVENTS)
    given = inspect.signature(conversation_class.__init__).parameters
    quiet = {"visualizer": None} if "visualizer" in given or "kwargs" in given else {"visualize": False}
    (scenario.folder / "workspace").mkdir(exist_ok=True)
    conversation = conversation_class(agent=agent, workspace=str(scenario.folder / "workspace"), **quiet)
    conversation.send_message("hello")
    conversation.run()
    if hasattr(conversation, "arun"):
        conversation.send_message("and again")
        asyncio.run(conversation.arun())
    if hasattr(conversation, "ask_agent"):
        conversation.ask_agent("well?")
    if hasattr(conversation, "generate_title"):
        conversation.generate_title()
    if hasattr(conversation, "fork"):
        conversation.fork().close()
    conversation.close()
    unsubscribe()
    # Not those of before, which end when they are collected.
    ids = list(dict.fromkeys(event.conversation_id for event in events if isinstance(event, ConversationOpened)))
    return Counter(
        (
            type(event).__name__,
            ids.index(whose) if (whose := conversation_of(event)) in ids else None,
            *(str(getattr(event, name, None)) for name in ("outcome", "status", "error")),
            str(getattr(getattr(event, "origin", None), "role", None)),
        )
        for event in events
        if not isinstance(event, ConversationClosed) or event.conversation_id in ids
    )


def conversation_of(event: Any) -> str | None:
    return getattr(getattr(event, "origin", event), "conversation_id", None)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_life_is_told_alike_whoever_wrote_its_methods(
    scenario: Scenario, kind: Callable[..., type], when: str
) -> None:
    """Kind: a hook on a method that need not be called."""
    base = needs(CONVERSATION, "LocalConversation")
    agent_base = needs("openhands.sdk", "Agent")
    if when == "before":
        OpenHandsInstrumentor().uninstrument()
    mine, my_agent = kind(base, OF_CONVERSATIONS), kind(agent_base, OF_AGENTS)
    my_agent.__module__ = agent_base.__module__  # where its prompts lie
    if when == "before":
        OpenHandsInstrumentor().instrument()
    llm = scenario.llm("own")
    expected = live(scenario, base, scenario.agent(scenario.llm("theirs")), "theirs")
    assert any(key[0] == "RunEnded" for key in expected)
    assert live(scenario, mine, my_agent(llm=llm, tools=[]), "own") == expected
    scenario.check()
    own_total, their_total = (scenario.bill(script).total for script in ("own", "theirs"))
    assert own_total == pytest.approx(their_total, abs=EXACT)


def test_a_condenser_that_an_agent_calls_by_itself_has_its_role(scenario: Scenario) -> None:
    """Neither is OpenHands' own: the agent's step does not prepare messages as theirs does, and nothing is rolled."""
    agent_base = needs("openhands.sdk", "Agent")
    condenser_base = needs("openhands.sdk.context.condenser.base", "CondenserBase")
    from openhands.sdk import Message, TextContent

    llm, condensing = scenario.llm("main"), scenario.llm("condenser", usage_id="mine")

    def condense(self: Any, view: Any, *_: Any, **__: Any) -> Any:
        condensing.completion([Message(role="user", content=[TextContent(text="In short?")])])
        return view

    def step(self: Any, *args: Any, **kwargs: Any) -> None:
        self.condenser.condense(None)
        own(agent_base, "step")(self.model_copy(update={"condenser": None}), *args, **kwargs)

    condenser = type("MyCondenser", (condenser_base,), {"condense": condense, "__module__": __name__})()
    mine = type("Stepper", (agent_base,), {"step": step, "__module__": agent_base.__module__})
    conversation = scenario.conversation(mine(llm=llm, tools=[], condenser=condenser))
    scenario.run(conversation)
    scenario.check()
    for role, script in (("condenser", "condenser"), ("agent", "main")):
        billed = scenario.bill(script).total
        assert billed > 0
        assert scenario.fleet(openhands__llm__role=role) == pytest.approx(billed, abs=EXACT)
        assert scenario.cost_of(conversation, openhands__llm__role=role) == pytest.approx(billed, abs=EXACT)


def test_a_run_of_the_users_own_is_one_run_when_it_calls_theirs_in_a_task(scenario: Scenario) -> None:
    base = needs(CONVERSATION, "LocalConversation")
    needs(CONVERSATION, "LocalConversation.arun")

    class Patient(base):  # type: ignore[misc, valid-type]
        async def arun(self) -> None:
            await asyncio.create_task(super().arun())

    events: list[Any] = []
    unsubscribe = subscribe(events.append, kinds=(RunStarted, RunEnded))
    (scenario.folder / "workspace").mkdir()
    conversation = Patient(
        agent=scenario.agent(scenario.llm("main")), workspace=str(scenario.folder / "workspace"), visualizer=None
    )
    for _ in range(2):
        conversation.send_message("hello")
        asyncio.run(conversation.arun())
    conversation.close()
    unsubscribe()
    assert [type(event) for event in events] == [RunStarted, RunEnded] * 2
