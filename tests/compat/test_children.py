"""Spend that other agents and helpers make on a conversation's behalf: whose it is, and that it is there once."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from openhands_otel._internal.capture.identity import Scope, enter_scope
from openhands_otel._internal.demo.answers import Answer, ToolCall, Usage
from openhands_otel.semconv import Role

from .scenario import EXACT, Scenario, called, needs, said


def parents(scenario: Scenario) -> dict[str, str]:
    """Child conversation to its parent, as the conversation series say."""
    return {
        str(point.attributes["gen_ai.conversation.id"]): str(point.attributes["openhands.conversation.parent.id"])
        for point in scenario.receiver.points("openhands.conversation.info")
        if "openhands.conversation.parent.id" in point.attributes
    }


def agent_with_task_tool(scenario: Scenario, name: str, condensed: bool = False) -> Any:
    """An agent whose sub-agents (kind ``name``) are played by the script ``child``."""
    needs("openhands.tools.task", "TaskToolSet")
    from openhands.sdk import Tool
    from openhands.sdk.context.condenser import LLMSummarizingCondenser
    from openhands.sdk.subagent import register_agent, registry
    from openhands.tools.task import TaskToolSet

    def make_child(llm: Any) -> Any:
        own = llm.model_copy(update={"base_url": scenario.server.base_url("child")})
        condenser = None
        if condensed:
            summarizer = llm.model_copy(
                update={"base_url": scenario.server.base_url("summary"), "usage_id": "condenser"}
            )
            summarizer.reset_metrics()
            condenser = LLMSummarizingCondenser(llm=summarizer, max_size=10, keep_first=2)
        return scenario.agent(own, condenser=condenser)

    # OpenHands keeps one register for the process, and another test may have played the same.
    registry._agent_factories.pop(name, None)
    register_agent(name=name, factory_func=make_child, description="works for the test")
    scenario.script("child", lambda request: said("I am the child."))
    scenario.script("summary", lambda request: said("A summary."))
    return scenario.agent(scenario.llm("main"), tools=[Tool(name=TaskToolSet.name)])


def test_a_task_sub_agent(scenario: Scenario) -> None:
    name = "task-child"
    agent = agent_with_task_tool(scenario, name)
    task = {"prompt": "do it", "subagent_type": name, "description": "a task"}
    scenario.script("main", [called("task", task), said()])
    conversation = scenario.conversation(agent)
    scenario.run(conversation)
    scenario.check()
    assert len(scenario.bill("child").entries) == 1
    assert scenario.fleet(openhands__llm__role="subagent") == pytest.approx(scenario.bill("child").total, abs=EXACT)
    assert scenario.cost_of(conversation) == pytest.approx(scenario.bill("main").total, abs=EXACT)
    child, parent = next(iter(parents(scenario).items()))
    assert parent == str(conversation.id)
    assert scenario.cost_of(child) == pytest.approx(scenario.bill("child").total, abs=EXACT)


def test_a_sub_agents_spend_is_seen_while_it_runs(scenario: Scenario) -> None:
    name = "slow-child"
    agent = agent_with_task_tool(scenario, name)
    task = {"prompt": "do it", "subagent_type": name, "description": "a task"}
    scenario.script("main", [called("task", task), said()])
    reached, go_on = threading.Event(), threading.Event()

    def child(request: Any) -> Any:
        if request.turn == 1:
            reached.set()
            go_on.wait(100)
        return called("think", {"thought": "hm"}) if request.turn == 0 else said()

    scenario.script("child", child)
    conversation = scenario.conversation(agent)
    conversation.send_message("hello")
    running = threading.Thread(target=conversation.run)
    running.start()
    try:
        assert reached.wait(100)
        scenario.settle()
        seen = scenario.fleet(openhands__llm__role="subagent")
        assert seen == pytest.approx(scenario.bill("child").total, abs=EXACT)
        assert seen > 0
        ours = conversation.conversation_stats.get_combined_metrics().accumulated_cost
        assert ours == pytest.approx(scenario.bill("main").total, abs=EXACT)
    finally:
        go_on.set()
        running.join(100)
    scenario.check()


def test_a_sub_agents_condenser(scenario: Scenario) -> None:
    name = "condensed-child"
    agent = agent_with_task_tool(scenario, name, condensed=True)
    task = {"prompt": "do it", "subagent_type": name, "description": "a task"}
    scenario.script("main", [called("task", task), said()])
    scenario.script(
        "child",
        lambda request: called("think", {"thought": f"step {request.number}"}) if request.turn < 8 else said(),
    )
    conversation = scenario.conversation(agent)
    scenario.run(conversation)
    scenario.check()
    assert scenario.bill("summary").total > 0
    assert scenario.fleet(openhands__llm__role="condenser") == pytest.approx(scenario.bill("summary").total, abs=EXACT)
    child = next(iter(parents(scenario)))
    assert scenario.cost_of(child) == pytest.approx(scenario.bill("child", "summary").total, abs=EXACT)


def test_delegated_sub_agents_in_threads_of_their_own(scenario: Scenario) -> None:
    executor = needs("openhands.tools.delegate", "DelegateExecutor")
    action = needs("openhands.tools.delegate", "DelegateAction")
    kinds = {}
    if "agent_types" in action.model_fields:
        register = needs("openhands.sdk.subagent", "register_agent_if_absent")
        register("delegated-child", lambda llm: scenario.agent(llm), "works for the test")
        kinds = {"agent_types": ["delegated-child", "delegated-child"]}
    conversation = scenario.conversation(scenario.llm("main"))
    scenario.run(conversation)
    spent = scenario.bill().total
    delegate = executor()
    # The agent's own tool thread, so to speak: the executor is no registered tool in every release.
    leave = enter_scope(Scope(conversation_id=str(conversation.id), role=Role.OTHER))
    spawned = delegate(action(command="spawn", ids=["one", "two"], **kinds), conversation)
    leave()
    assert not getattr(spawned, "is_error", False), spawned
    scenario.script("main", lambda request: said("child's work", prompt=700))
    delegate(action(command="delegate", tasks={"one": "first", "two": "second"}), conversation)
    scenario.check()
    assert scenario.cost_of(conversation) == pytest.approx(spent, abs=EXACT)
    assert scenario.fleet(openhands__llm__role="subagent") == pytest.approx(scenario.bill().total - spent, abs=EXACT)
    assert scenario.fleet(openhands__llm__role="subagent") > 0
    assert set(parents(scenario).values()) == {str(conversation.id)}
    assert len(parents(scenario)) == 2


@pytest.mark.parametrize("kind", ["prompt", "agent"])
def test_a_hook_that_asks_a_model(scenario: Scenario, kind: str) -> None:
    needs("openhands.sdk.hooks.executor", "HookExecutor._execute_prompt_hook")
    from openhands.sdk.hooks.config import HookConfig, HookDefinition, HookMatcher

    definition: dict[str, Any] = {"prompt": {"prompt": "allow all"}, "agent": {"system_prompt": "allow all"}}[kind]
    hook = HookDefinition(type=kind, name="judge", **definition)
    allow = '{"decision": "allow", "reason": "fine"}'
    scenario.script("main", lambda request: said(allow))
    conversation = scenario.conversation(
        scenario.llm("main"), hook_config=HookConfig(user_prompt_submit=[HookMatcher(hooks=[hook])])
    )
    scenario.run(conversation)
    scenario.check()
    assert len(scenario.bill().entries) == 2
    assert scenario.fleet(openhands__llm__role="hook") == pytest.approx(scenario.bill().total / 2, abs=EXACT)
    if kind == "agent":
        child, parent = next(iter(parents(scenario).items()))
        assert parent == str(conversation.id)
        assert scenario.cost_of(child) == pytest.approx(scenario.bill().total / 2, abs=EXACT)
    else:
        assert scenario.cost_of(conversation) == pytest.approx(scenario.bill().total, abs=EXACT)


def test_a_router(scenario: Scenario) -> None:
    router = needs("openhands.sdk.llm.router", "RouterLLM")
    small, large = scenario.llm("small", model="gpt-4o-mini", usage_id="small"), scenario.llm("large", usage_id="large")

    class Alternating(router):  # type: ignore[misc, valid-type]
        router_name: str = "alternating"
        turns: ClassVar[list[str]] = []

        def select_llm(self, messages: Sequence[Any]) -> str:
            self.turns.append("small" if len(self.turns) % 2 == 0 else "large")
            return self.turns[-1]

    llm = Alternating(usage_id="router", llms_for_routing={"small": small, "large": large}, model="router")
    conversation = scenario.conversation(scenario.agent(llm))
    scenario.run(conversation)
    scenario.run(conversation, "once more")
    scenario.check()
    assert scenario.fleet(gen_ai__request__model="gpt-4o-mini") == pytest.approx(
        scenario.bill("small").total, abs=EXACT
    )
    assert scenario.fleet(gen_ai__request__model="gpt-4o") == pytest.approx(scenario.bill("large").total, abs=EXACT)
    assert scenario.cost_of(conversation, openhands__llm__role="agent") == pytest.approx(
        scenario.bill().total, abs=EXACT
    )


def test_a_call_that_is_given_up_costs_what_openhands_saw(scenario: Scenario) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.interrupt")
    import asyncio

    started = threading.Event()

    def slow(request: Any) -> Any:
        if request.turn == 1:
            started.set()
            time.sleep(1.0)
        return called("think", {"thought": "hm"}) if request.turn == 0 else said()

    scenario.script("main", slow)
    conversation = scenario.conversation(scenario.llm("main"))
    conversation.send_message("hello")

    async def give_up() -> None:
        running = asyncio.create_task(conversation.arun())
        while not started.is_set():
            await asyncio.sleep(0.01)
        conversation.interrupt()
        await running

    asyncio.run(give_up())
    scenario.check_what_the_sdk_saw(conversation)
    assert scenario.fleet() > 0
    # The provider finishes and charges all the same: OpenHands never sees that, and the next scenario must not.
    deadline = time.monotonic() + 100
    while len(scenario.bill().entries) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    scenario.check_what_the_sdk_saw(conversation)


def test_tools_that_call_a_model_in_parallel(scenario: Scenario) -> None:
    fields = needs("openhands.sdk", "Agent").model_fields
    if "tool_concurrency_limit" not in fields:
        pytest.skip("this release of OpenHands runs tools one after another")
    from openhands.sdk import Tool, register_tool

    from .consult_tool import Consult, ConsultTool

    Consult.says_no = False
    Consult.helper = scenario.llm("helper", model="gpt-4o-mini", usage_id="helper")
    register_tool("ConsultTool", ConsultTool)
    three = Answer(
        tool_calls=tuple(ToolCall(name="consult", arguments={"question": f"q{n}"}) for n in range(3)),
        usage=Usage(input=900, output=60),
    )
    scenario.script("main", [three, said()])
    agent = scenario.agent(scenario.llm("main"), tools=[Tool(name="ConsultTool")], tool_concurrency_limit=3)
    conversation = scenario.conversation(agent)
    scenario.run(conversation)
    scenario.check()
    assert len(scenario.bill("helper").entries) == 3
    share = scenario.cost_of(conversation, openhands__llm__role="other")
    assert share == pytest.approx(scenario.bill("helper").total, abs=EXACT)


def test_a_judge_in_a_bare_thread_is_known_by_the_events_it_reads(scenario: Scenario) -> None:
    controller = needs("openhands.sdk.conversation.goal.controller", "GoalController")
    bystander, conversation = scenario.conversation(scenario.llm("other")), scenario.conversation(scenario.llm("main"))
    scenario.run(bystander)
    scenario.run(conversation)
    scenario.script("judge", lambda request: said('{"score": 1.0, "complete": true, "missing": ""}'))
    judging = controller("objective", scenario.llm("judge", usage_id="judge"), max_iterations=2)
    events = list(conversation.state.events)
    thread = threading.Thread(target=judging.on_run_finished, args=(events,))
    thread.start()
    thread.join(100)
    scenario.check()
    share = scenario.cost_of(conversation, openhands__llm__role="other")
    assert share == pytest.approx(scenario.bill("judge").total, abs=EXACT)
    assert share > 0
