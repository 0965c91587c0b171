"""One readable trace for a run: which spans there are, under which, and what they say."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
import time
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, StatusCode

from openhands_otel import OpenHandsInstrumentor
from openhands_otel._internal import guard
from openhands_otel._internal.demo.answers import Answer, ToolCall, Usage, refuse

from .scenario import EXACT, Scenario, called, needs, said
from .test_children import agent_with_task_tool
from .traced import Traced, instrument_again, leaf

COMMAND = "echo planted-argument; echo planted-resu''lt"
THINKING = [{"invoke_agent Agent": leaf("chat gpt-4o", "execute_tool think", "chat gpt-4o")}]


def test_a_run_is_one_trace(scenario: Scenario, traced: Traced) -> None:
    scenario.script("main", [called("think", {"thought": "hm"}), said(cached=400, reasoning=20, cost=0.25)])
    conversation = scenario.conversation(scenario.llm("main"))
    scenario.run(conversation)
    assert traced.tree() == THINKING
    run, tool, (first, second) = traced.one("invoke_agent"), traced.one("execute_tool"), traced.named("chat")
    named = {"gen_ai.conversation.id": str(conversation.id)}
    assert dict(run.attributes or {}) == named | {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "Agent",
        "openhands.run.outcome": "finished",
    }
    assert dict(tool.attributes or {}) == named | {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "think",
        "gen_ai.tool.type": "function",
        "gen_ai.agent.name": "Agent",
        "openhands.tool.outcome": "ok",
    }
    said_of = dict(second.attributes or {})
    answer_id = said_of.pop("gen_ai.response.id")
    assert isinstance(answer_id, str)
    assert said_of.pop("gen_ai.response.model").startswith("gpt-4o")
    assert said_of == named | {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.agent.name": "Agent",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.cache_read.input_tokens": 400,
        "gen_ai.usage.cache_write.input_tokens": 0,
        "gen_ai.usage.reasoning.output_tokens": 20,
        "gen_ai.usage.cost": 0.25,
        "gen_ai.usage.cost.amount": 0.25,
        "gen_ai.usage.cost.currency": "USD",
        "gen_ai.usage.cost.source": "provider",
        "openhands.cost.source": "provider",
        "openhands.llm.role": "agent",
        "openhands.usage.id": "default",
    }
    assert (first.attributes or {})["gen_ai.response.finish_reasons"] == ("tool_calls",)
    assert (first.attributes or {})["gen_ai.usage.cost.source"] == "local"
    assert [span.kind for span in (run, first, tool)] == [SpanKind.INTERNAL, SpanKind.CLIENT, SpanKind.INTERNAL]
    assert {span.status.status_code for span in traced.spans} == {StatusCode.UNSET}
    assert {span.instrumentation_scope.name for span in traced.spans} == {"openhands_otel.spans"}
    assert cost_of(traced) == pytest.approx(scenario.bill().total, abs=EXACT)
    scenario.check()


def cost_of(traced: Traced) -> float:
    return sum((span.attributes or {}).get("gen_ai.usage.cost", 0.0) for span in traced.spans)


def test_an_async_run(scenario: Scenario, traced: Traced) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.arun")
    scenario.script("main", lambda request: called("think", {"thought": "hm"}) if request.turn % 2 == 0 else said())
    conversations = [scenario.conversation(scenario.llm("main", usage_id=f"llm-{n}")) for n in range(3)]

    async def all_at_once() -> None:
        for each in conversations:
            each.send_message("hello")
        await asyncio.gather(*(each.arun() for each in conversations))

    asyncio.run(all_at_once())
    assert traced.tree() == THINKING * 3
    for run in traced.named("invoke_agent"):
        family = [span for span in traced.spans if span.parent and span.parent.span_id == run.context.span_id]
        ids = {(span.attributes or {})["gen_ai.conversation.id"] for span in (run, *family)}
        assert ids == {(run.attributes or {})["gen_ai.conversation.id"]}
    assert cost_of(traced) == pytest.approx(scenario.bill().total, abs=EXACT)


def consulting(scenario: Scenario, helper: Any, **options: Any) -> Any:
    from openhands.sdk import Tool, register_tool

    from .consult_tool import Consult, ConsultTool

    Consult.helper, Consult.says_no = helper, False
    register_tool("ConsultTool", ConsultTool)
    return scenario.conversation(scenario.agent(scenario.llm("main"), tools=[Tool(name="ConsultTool")], **options))


@pytest.mark.parametrize("how", ["run", "arun"])
def test_parallel_tools_and_the_calls_they_make(scenario: Scenario, traced: Traced, how: str) -> None:
    needs("openhands.sdk.agent.parallel_executor", "ParallelToolExecutor")
    if how == "arun":
        needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.arun")
    calls = tuple(ToolCall(name="consult", arguments={"question": f"q{n}"}) for n in range(3))
    scenario.script("main", [Answer(tool_calls=calls, usage=Usage(input=1000, output=50)), said()])
    scenario.script("colleague", lambda request: said("I would.", delay=0.1))
    helper = scenario.llm("colleague", model="gpt-4o-mini", usage_id="colleague")
    conversation = consulting(scenario, helper, tool_concurrency_limit=3)
    conversation.send_message("hello")
    if how == "run":
        conversation.run()
    else:
        asyncio.run(conversation.arun())
    tool = {"execute_tool consult": leaf("chat gpt-4o-mini")}
    assert traced.tree() == [{"invoke_agent Agent": [{"chat gpt-4o": []}, tool, tool, tool, {"chat gpt-4o": []}]}]
    assert cost_of(traced) == pytest.approx(scenario.bill().total, abs=EXACT)


def test_a_sub_agent_is_under_the_tool_that_started_it(scenario: Scenario, traced: Traced) -> None:
    name = "traced-child"
    agent = agent_with_task_tool(scenario, name)
    task = {"prompt": "do it", "subagent_type": name, "description": "a task"}
    scenario.script("main", [called("task", task), said()])
    scenario.run(scenario.conversation(agent))
    agents = sorted(str((span.attributes or {})["gen_ai.agent.name"]) for span in traced.named("invoke_agent"))
    assert agents in (["Agent", name], ["Agent", "Agent"]), "releases before 1.43 do not tell a sub-agent's kind"
    child = {f"invoke_agent {agents[1]}": leaf("chat gpt-4o")}
    chat = {"chat gpt-4o": []}
    assert traced.tree() == [{"invoke_agent Agent": [chat, {"execute_tool task": [child]}, chat]}]
    roles = [(span.attributes or {})["openhands.llm.role"] for span in traced.named("chat")]
    assert sorted(roles) == ["agent", "agent", "subagent"]


def test_a_sub_agent_in_a_thread_of_its_own(scenario: Scenario, traced: Traced) -> None:
    """Nothing in the thread says who started it; only one tool call is under way."""
    from openhands_otel._internal.capture.identity import Scope, enter_scope

    made: list[Any] = []
    llm = scenario.llm("child", model="gpt-4o-mini")

    class Helper:
        def completion(self, messages: Any) -> None:
            made.append(scenario.conversation(llm))
            made[-1].send_message("do it")

            def work() -> None:
                leave = enter_scope(Scope())
                made[-1].run()
                leave()

            thread = threading.Thread(target=work)
            thread.start()
            thread.join(100)

    needs("openhands.sdk.agent.parallel_executor", "ParallelToolExecutor")
    scenario.script("main", [called("consult", {"question": "q"}), said()])
    conversation = consulting(scenario, Helper())
    scenario.run(conversation)
    (root,) = traced.tree()
    assert root["invoke_agent Agent"][1] == {"execute_tool consult": [{"invoke_agent Agent": leaf("chat gpt-4o-mini")}]}


def test_a_streamed_answer(scenario: Scenario, traced: Traced) -> None:
    llm = scenario.llm("main", stream=True)
    if "stream" not in type(llm).model_fields:
        pytest.skip("this release of OpenHands does not stream")
    scenario.script("main", lambda request: said("many words " * 20, stream_time=0.2))
    chunks: list[Any] = []
    scenario.run(scenario.conversation(llm, token_callbacks=[chunks.append]))
    assert traced.tree() == [{"invoke_agent Agent": leaf("chat gpt-4o")}]
    attributes = traced.one("chat").attributes or {}
    assert attributes["gen_ai.request.stream"] is True
    chat = traced.one("chat")
    assert 0 < attributes["gen_ai.response.time_to_first_chunk"] <= (chat.end_time - chat.start_time) / 1e9


def test_a_retried_call_is_one_span(scenario: Scenario, traced: Traced) -> None:
    scenario.script("main", [refuse(500, text="planted-error"), refuse(500, text="planted-error"), said()])
    scenario.run(scenario.conversation(scenario.llm("main", num_retries=4)))
    assert traced.tree() == [{"invoke_agent Agent": leaf("chat gpt-4o")}]
    chat = traced.one("chat")
    if not chat.events:
        pytest.skip("with this release the provider's own client retries, unseen by OpenHands")
    retries = [(event.name, dict(event.attributes or {})) for event in chat.events]
    assert retries == [("openhands.llm.retry", {"openhands.llm.attempt": number}) for number in (2, 3)]
    assert chat.status.status_code is StatusCode.UNSET


def test_a_billed_attempt_is_part_of_its_calls_cost(scenario: Scenario, traced: Traced) -> None:
    empty = Answer(empty=True, usage=Usage(input=500, output=1))
    scenario.script("main", [empty, said()])
    scenario.run(scenario.conversation(scenario.llm("main", num_retries=4)))
    assert len(traced.named("chat")) == 1
    assert cost_of(traced) == pytest.approx(sum(scenario.recorded), abs=EXACT)


def test_a_failed_call(scenario: Scenario, traced: Traced) -> None:
    scenario.script("main", lambda request: refuse(401, text="planted-error-4711"))
    with pytest.raises(Exception):  # noqa: B017, PT011
        scenario.run(scenario.conversation(scenario.llm("main")))
    assert traced.tree() == [{"invoke_agent Agent": leaf("chat gpt-4o")}]
    for span in (traced.one("chat"), traced.one("invoke_agent")):
        assert "Authentication" in str((span.attributes or {})["error.type"])
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
        assert span.events == ()
    assert (traced.one("invoke_agent").attributes or {})["openhands.run.outcome"] == "error"
    assert b"planted-error" not in bytes_of(traced)


def test_runs_that_are_stopped(scenario: Scenario, traced: Traced) -> None:
    from openhands.sdk.conversation.impl.local_conversation import LocalConversation

    scenario.script("main", lambda request: called("think", {"thought": "the same again"}))
    scenario.run(scenario.conversation(scenario.llm("main")))
    stuck = traced.one("invoke_agent")
    assert (stuck.attributes or {})["openhands.run.outcome"] == "stuck"
    assert stuck.status.status_code is StatusCode.ERROR
    traced.exporter.clear()
    if "max_budget_per_run" not in inspect.signature(LocalConversation.__init__).parameters:
        pytest.skip("this release of OpenHands knows no budget")
    scenario.script("main", lambda request: called("think", {"thought": f"number {request.number}"}))
    scenario.run(scenario.conversation(scenario.llm("main"), max_budget_per_run=0.004))
    limited = traced.one("invoke_agent").attributes or {}
    assert (limited["openhands.run.outcome"], limited["error.type"]) == ("budget", "MaxBudgetReached")
    traced.tree()


def test_a_cancelled_run_leaves_nothing_open(scenario: Scenario, traced: Traced) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.arun")
    conversation, reached, go_on = scenario.held()

    async def cancel_midway() -> None:
        running = asyncio.ensure_future(conversation.arun())
        assert await asyncio.to_thread(reached.wait, 20)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    try:
        asyncio.run(cancel_midway())
    finally:
        # What the server still answers must not be on the bill of the next test.
        go_on.set()
        deadline = time.monotonic() + 100
        while not scenario.bill().entries and time.monotonic() < deadline:
            time.sleep(0.01)
    assert traced.tree() == [{"invoke_agent Agent": leaf("chat gpt-4o")}]
    assert (traced.one("chat").attributes or {})["error.type"] == "CancelledError"
    assert (traced.one("invoke_agent").attributes or {})["openhands.run.outcome"] == "paused"


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(("error", "name"), [(ValueError, "exception"), (RuntimeError, "RuntimeError")])
def test_a_tool_that_raises(scenario: Scenario, traced: Traced, error: type[Exception], name: str) -> None:
    needs("openhands.sdk.agent.parallel_executor", "ParallelToolExecutor")

    class Helper:
        def completion(self, messages: Any) -> None:
            raise error("planted-error-4711")

    scenario.script("main", [called("consult", {"question": "q"}), said()])
    scenario.run(consulting(scenario, Helper()))
    tool = traced.one("execute_tool")
    assert (tool.attributes or {})["error.type"] == name
    assert (tool.attributes or {})["openhands.tool.outcome"] == "exception"
    assert (tool.status.status_code, tool.status.description, tool.events) == (StatusCode.ERROR, None, ())
    traced.tree()


def bytes_of(traced: Traced) -> bytes:
    return json.dumps([json.loads(span.to_json()) for span in traced.spans]).encode()


def test_nothing_that_was_said_is_in_a_span(scenario: Scenario, traced: Traced) -> None:
    from openhands.sdk import Tool
    from openhands.tools.terminal import TerminalTool

    scenario.script(
        "main",
        [called("terminal", {"command": "echo planted-argument; echo planted-resu''lt"}), said("planted-answer")],
    )
    shell = Tool(name=TerminalTool.name, params={"terminal_type": "subprocess"})
    conversation = scenario.conversation(scenario.agent(scenario.llm("main"), tools=[shell]))
    scenario.run(conversation, "planted-prompt")
    exported = bytes_of(traced)
    assert b"execute_tool terminal" in exported
    assert b"planted" not in exported
    assert str(scenario.folder).encode() not in exported


def test_the_applications_own_span_is_the_runs_parent_and_nobody_elses(scenario: Scenario, traced: Traced) -> None:
    scenario.script("main", [called("think", {"thought": "hm"}), said()])
    conversation = scenario.conversation(scenario.llm("main"))
    with traced.provider.get_tracer("application").start_as_current_span("request"):
        scenario.run(conversation)
        assert trace.get_current_span().name == "request"  # pyright: ignore[reportAttributeAccessIssue]
    assert traced.tree() == [{"request": THINKING}]


def test_an_ambient_span_between_run_and_call_adopts_nothing(scenario: Scenario, traced: Traced) -> None:
    """As Laminar's own spans stand there when it is on."""
    from openhands.sdk import Agent

    scenario.script("main", [called("think", {"thought": "hm"}), said()])
    foreign = TracerProvider(shutdown_on_exit=False).get_tracer("laminar")
    original = Agent.step

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        with foreign.start_as_current_span("agent.step"):
            return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Agent, "step", step)
        scenario.run(scenario.conversation(scenario.llm("main")))
    assert traced.tree() == THINKING


def test_a_run_inside_an_llm_call_of_the_application_is_seen(scenario: Scenario, traced: Traced) -> None:
    """util-genai takes an LLM call inside another one for the same call, and makes no span of it."""
    from opentelemetry.util.genai.handler import TelemetryHandler

    handler = TelemetryHandler(tracer_provider=traced.provider, instrumentation_scope_name="application")
    conversation = scenario.conversation(scenario.llm("main"))
    with handler.inference("openai", request_model="outer"):
        scenario.run(conversation)
    assert traced.tree() == [{"chat outer": [{"invoke_agent Agent": leaf("chat gpt-4o")}]}]


def test_a_call_of_no_run_is_a_trace_of_its_own(scenario: Scenario, traced: Traced) -> None:
    from openhands.sdk import Message, TextContent

    scenario.llm("profile").completion([Message(role="user", content=[TextContent(text="ping")])])
    assert traced.tree() == leaf("chat gpt-4o")
    assert "gen_ai.conversation.id" not in (traced.one("chat").attributes or {})


def test_a_fallback_is_part_of_the_call_that_failed(scenario: Scenario, traced: Traced) -> None:
    from .test_topologies import fallback

    scenario.run(fallback(scenario, scenario.conversation))
    assert traced.tree() == [{"invoke_agent Agent": leaf("chat gpt-4o")}]
    assert (traced.one("chat").attributes or {})["openhands.llm.fallback"] is True
    assert cost_of(traced) == pytest.approx(scenario.bill().total, abs=EXACT)


def test_no_spans_under_suppression(scenario: Scenario, traced: Traced) -> None:
    conversation = scenario.conversation(scenario.llm("main"))
    with suppress_instrumentation():
        scenario.run(conversation)
    assert traced.spans == ()
    scenario.check()


def test_uninstrumenting_in_mid_run_leaves_nothing_open(scenario: Scenario, traced: Traced) -> None:
    with scenario.midway():
        OpenHandsInstrumentor().uninstrument()
    assert traced.tree() == [{"invoke_agent Agent": leaf("chat gpt-4o")}]


def test_instrumenting_again_in_mid_run_mixes_nothing_up(scenario: Scenario, traced: Traced) -> None:
    later = Traced()
    with scenario.midway():
        instrument_again(later)
        scenario.run(scenario.conversation(scenario.llm("other")))
    assert traced.tree() == [{"invoke_agent Agent": leaf("chat gpt-4o")}]
    assert later.tree() == [{"invoke_agent Agent": leaf("chat gpt-4o")}]


class Raising(SpanProcessor):
    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if span.name.startswith("execute_tool"):
            raise RuntimeError("planted-error")

    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("planted-error")


def test_a_processor_that_raises_is_not_felt_by_the_agent(scenario: Scenario) -> None:
    traced = Traced(Raising())
    instrument_again(traced)
    before = guard.error_counts().get("Spans.put", 0)
    scenario.script("main", [called("think", {"thought": "hm"}), said()])
    conversation = scenario.conversation(scenario.llm("main"))
    scenario.run(conversation)
    assert str(conversation.state.execution_status.value) == "finished"
    assert guard.error_counts()["Spans.put"] == before + 4
    scenario.check()
