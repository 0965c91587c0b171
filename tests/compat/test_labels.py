"""Whatever thread or loop OpenHands works in, each dollar stands under the labels that held where its work began."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest

from openhands_otel import OpenHandsInstrumentor, labels, subscribe
from openhands_otel._internal.capture.identity import Scope, inside
from openhands_otel.events import CostAdded
from openhands_otel.semconv import LABEL_PREFIX
from openhands_otel.settings import Settings

from .scenario import EXACT, Scenario, called, needs, said
from .test_topologies import condenser_for, fallback, thinking
from .traced import Traced

SERIES = {
    "openhands.conversation.cost": lambda bill: bill.total,
    "openhands.conversation.tokens": lambda bill: bill.tokens.input,
    "openhands.conversation.llm_calls": lambda bill: len(bill.entries),
}


def under(name: str, value: str) -> dict[str, str]:
    return {f"{LABEL_PREFIX}{name}".replace(".", "__"): value}


def cost_under(scenario: Scenario, **named: str) -> float:
    wanted = {key: text for name, value in named.items() for key, text in under(name, value).items()}
    return scenario.receiver.total("openhands.conversation.cost", **wanted)


def at_once(*works: Callable[[], Any]) -> None:
    """Each on a thread of its own, of which none knows what held where it was started."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)


def team(scenario: Scenario, name: str) -> Any:
    """An agent with a condenser of its own and a sub-agent that has one too, each played by a script of ``name``'s."""
    needs("openhands.tools.task", "TaskToolSet")
    from openhands.sdk import Tool
    from openhands.sdk.subagent import register_agent
    from openhands.tools.task import TaskToolSet

    def condenser(part: str) -> Any:
        return condenser_for(scenario.llm(f"{name}-{part}", usage_id=f"condenser-{part}"))

    def make_child(llm: Any) -> Any:
        own = llm.model_copy(update={"base_url": scenario.server.base_url(f"{name}-child")})
        own.reset_metrics()
        return scenario.agent(own, condenser=condenser("child-summary"))

    register_agent(name=f"child-of-{name}", factory_func=make_child, description="works for the test")
    scenario.script(f"{name}-child", thinking(8))
    task = {"prompt": "do it", "subagent_type": f"child-of-{name}", "description": "a task"}
    scenario.script(
        f"{name}-main",
        lambda request: called("task", task) if request.turn == 0 else thinking(8)(request),
    )
    return scenario.agent(
        scenario.llm(f"{name}-main"), tools=[Tool(name=TaskToolSet.name)], condenser=condenser("summary")
    )


def parts(name: str) -> list[str]:
    return [f"{name}-{part}" for part in ("main", "summary", "child", "child-summary")]


def test_two_threads_with_sub_agents_and_condensers_each_under_its_own_label(scenario: Scenario) -> None:
    names = ("astropy-1", "django-2")
    agents = {name: team(scenario, name) for name in names}

    def work(name: str) -> None:
        with labels(instance=name, experiment="e7"):
            scenario.run(scenario.conversation(agents[name]))

    at_once(*(lambda name=name: work(name) for name in names))
    scenario.check()
    for name in names:
        bill = scenario.bill(*parts(name))
        assert len(bill.entries) > 20
        assert all(scenario.bill(part).entries for part in parts(name))
        for metric, expected in SERIES.items():
            more = {"gen_ai__token__type": "input"} if metric.endswith("tokens") else {}
            found = scenario.receiver.total(metric, **under("instance", name), **more)
            assert found == pytest.approx(expected(bill), abs=EXACT)
    assert cost_under(scenario, experiment="e7") == pytest.approx(scenario.bill().total, abs=EXACT)
    assert all(LABEL_PREFIX not in name for point in scenario.receiver.points(COST) for name in point.attributes)


COST = "openhands.llm.cost"


@pytest.mark.parametrize("how", ["run", "arun"])
@pytest.mark.parametrize("made_inside", [False, True], ids=["run inside", "made inside"])
def test_a_conversation_is_under_what_it_was_made_in_and_what_it_is_run_in(
    scenario: Scenario, how: str, made_inside: bool
) -> None:
    if how == "arun":
        needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.arun")

    def run() -> None:
        conversation.send_message("hello")
        asyncio.run(conversation.arun()) if how == "arun" else conversation.run()

    if made_inside:
        with labels(instance="a"):
            conversation = scenario.conversation(scenario.llm("main"))
        at_once(run)
    else:
        conversation = scenario.conversation(scenario.llm("main"))
        with labels(instance="a"):
            run()
    scenario.check()
    assert cost_under(scenario, instance="a") == pytest.approx(scenario.bill().total, abs=EXACT)


def test_inner_values_win_for_the_run_and_no_longer(scenario: Scenario) -> None:
    with labels(instance="a", experiment="e7"):
        conversation = scenario.conversation(scenario.llm("main"))
    with labels(instance="b"):
        scenario.run(conversation)
    once = scenario.bill().total
    scenario.run(conversation)
    scenario.run(conversation)
    scenario.check()
    assert cost_under(scenario, instance="b", experiment="e7") == pytest.approx(once, abs=EXACT)
    assert cost_under(scenario, instance="a", experiment="e7") == pytest.approx(2 * once, abs=EXACT)


def test_tasks_of_one_loop_keep_theirs_apart_a_fallback_in_an_executor_included(scenario: Scenario) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.arun")
    conversations = {name: fallback(scenario, scenario.conversation) for name in ("a", "b")}

    async def work(name: str) -> None:
        with labels(instance=name):
            conversations[name].send_message("hello")
            await conversations[name].arun()

    async def all_at_once() -> None:
        await asyncio.gather(*map(work, conversations))

    asyncio.run(all_at_once())
    scenario.check()
    assert scenario.bill("spare").total > 0
    for name, conversation in conversations.items():
        assert cost_under(scenario, instance=name) == pytest.approx(scenario.cost_of(conversation), abs=EXACT)
        assert cost_under(scenario, instance=name) > 0


def test_a_call_of_no_conversation_takes_its_labels_into_the_executor_of_its_fallback(scenario: Scenario) -> None:
    needs("openhands.sdk.llm.llm", "LLM.acompletion")
    from openhands.sdk import Message, TextContent

    llm = fallback(scenario, lambda llm: llm)
    seen: list[Any] = []
    unsubscribe = subscribe(seen.append, kinds=CostAdded)
    with labels(instance="a"):
        asyncio.run(llm.acompletion([Message(role="user", content=[TextContent(text="ping")])]))
    unsubscribe()
    assert [event.origin.labels for event in seen] == [(("instance", "a"),)]
    assert seen[0].origin.fallback


def test_tools_at_once_that_ask_a_model(scenario: Scenario) -> None:
    from openhands.sdk import Tool, register_tool

    from openhands_otel._internal.demo.answers import Answer, ToolCall, Usage

    from .consult_tool import Consult, ConsultTool

    register_tool("consult", ConsultTool)
    Consult.helper, Consult.says_no = scenario.llm("helper", usage_id="helper"), False
    asks = tuple(ToolCall(name="consult", arguments={"question": text}) for text in ("why?", "how?"))
    scenario.script("main", [Answer(tool_calls=asks, usage=Usage(input=1000, output=50)), said()])
    agent = scenario.agent(scenario.llm("main"), tools=[Tool(name="consult")])
    if "tool_concurrency_limit" in type(agent).model_fields:
        agent = agent.model_copy(update={"tool_concurrency_limit": 2})
    with labels(instance="a"):
        scenario.run(scenario.conversation(agent))
    scenario.check()
    assert len(scenario.bill("helper").entries) == 2
    assert cost_under(scenario, instance="a") == pytest.approx(scenario.bill().total, abs=EXACT)


def test_a_title_in_an_executor_and_a_question_from_another_thread(scenario: Scenario) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.ask_agent")
    with labels(instance="a"):
        conversation = scenario.conversation(scenario.llm("main"))
        scenario.run(conversation)
    at_once(lambda: conversation.ask_agent("How far are you?"), conversation.generate_title)
    scenario.check()
    assert len(scenario.bill().entries) == 3
    assert cost_under(scenario, instance="a") == pytest.approx(scenario.bill().total, abs=EXACT)


def test_delegated_sub_agents_in_bare_threads(scenario: Scenario) -> None:
    executor = needs("openhands.tools.delegate", "DelegateExecutor")
    action = needs("openhands.tools.delegate", "DelegateAction")
    kinds = {}
    if "agent_types" in action.model_fields:
        register = needs("openhands.sdk.subagent", "register_agent_if_absent")
        register("labelled-child", lambda llm: scenario.agent(llm), "works for the test")
        kinds = {"agent_types": ["labelled-child", "labelled-child"]}
    with labels(instance="a"):
        conversation = scenario.conversation(scenario.llm("main"))
    scenario.run(conversation)

    def delegate() -> None:
        # As in the thread of a tool, where nothing says whose labels hold but the conversation that it works for.
        with inside(Scope(conversation_id=str(conversation.id)), None):
            delegating = executor()
            spawned = delegating(action(command="spawn", ids=["one", "two"], **kinds), conversation)
            assert not getattr(spawned, "is_error", False), spawned
            delegating(action(command="delegate", tasks={"one": "first", "two": "second"}), conversation)

    at_once(delegate)
    scenario.check()
    assert scenario.fleet(openhands__llm__role="subagent") > 0
    assert cost_under(scenario, instance="a") == pytest.approx(scenario.bill().total, abs=EXACT)


def test_calls_of_no_conversation_have_labels_on_the_fleets_counters_that_are_allowed_them(scenario: Scenario) -> None:
    from openhands.sdk import Message, TextContent

    OpenHandsInstrumentor().uninstrument()
    OpenHandsInstrumentor().instrument(settings=Settings(fleet_labels=("team",)))
    with labels(team="payments", instance="a"):
        scenario.llm("profile").completion([Message(role="user", content=[TextContent(text="ping")])])
        scenario.run(scenario.conversation(scenario.llm("main")))
    scenario.check()
    assert scenario.fleet(**under("team", "payments")) == pytest.approx(scenario.bill().total, abs=EXACT)
    assert scenario.fleet("openhands.llm.calls", **under("team", "payments")) == 2
    assert scenario.fleet(**under("instance", "a")) == 0
    assert cost_under(scenario, instance="a") == pytest.approx(scenario.bill("main").total, abs=EXACT)
    for metric in ("gen_ai.client.token.usage", "openhands.llm.response.latency", "gen_ai.client.operation.duration"):
        points = scenario.receiver.points(metric)
        assert points
        assert all(LABEL_PREFIX not in name for point in points for name in point.attributes)


def test_spans_carry_all_labels(scenario: Scenario) -> None:
    traced = Traced()
    OpenHandsInstrumentor().uninstrument()
    settings = Settings(labels={"team": "payments", "instance": "none"})
    OpenHandsInstrumentor().instrument(settings=settings, tracer_provider=traced.provider)
    scenario.script("main", [called("think", {"thought": "hm"}), said()])
    with labels(instance="a"):
        scenario.run(scenario.conversation(scenario.llm("main")))
    assert {span.name.split()[0] for span in traced.spans} == {"invoke_agent", "chat", "execute_tool"}
    for span in traced.spans:
        attributes = span.attributes or {}
        assert attributes[f"{LABEL_PREFIX}team"] == "payments"
        assert attributes[f"{LABEL_PREFIX}instance"] == "a"
    traced.provider.shutdown()


def test_subscribers_see_whose_it_is(scenario: Scenario) -> None:
    seen: list[Any] = []
    unsubscribe = subscribe(seen.append)
    with labels(instance="a", attempt=2):
        scenario.run(scenario.conversation(scenario.llm("main")))
    unsubscribe()
    assert {event.origin.labels for event in seen} == {(("attempt", "2"), ("instance", "a"))}


@pytest.mark.parametrize(("send", "named"), [(None, True), ("", False), ("tags.team", False)])
def test_of_a_conversations_tags_those_that_canvas_sets_are_sent(
    without_us: Scenario, monkeypatch: pytest.MonkeyPatch, send: str | None, named: bool
) -> None:
    """Not those that people set, unless they are listed; and then nothing but what is listed."""
    opened = needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation")
    if "tags" not in inspect.signature(opened.__init__).parameters:
        pytest.skip("this release of OpenHands has no tags")
    if send is None:
        monkeypatch.delenv("OPENHANDS_OTEL_SEND", raising=False)
    else:
        monkeypatch.setenv("OPENHANDS_OTEL_SEND", send)
    without_us.instrument()
    tags = {"automationname": "nightly triage", "automationtrigger": "cron", "acpserver": "codex", "team": "payments"}
    without_us.run(without_us.conversation(without_us.llm("main"), tags=tags))
    without_us.settle()
    total = pytest.approx(without_us.bill().total, abs=EXACT)
    assert without_us.bill().total > 0
    wanted = {"automationname", "acpserver"} if named else {"team"} if send else set()
    for name, value in tags.items():
        assert cost_under(without_us, **{name: value}) == (total if name in wanted else 0)
