"""Time, failure and outcome of calls, tools and runs: what OpenHands' own figures hide or drop."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation

from openhands_otel._internal.demo.answers import refuse

from .scenario import EXACT, Scenario, called, needs, said

DURATION = "gen_ai.client.operation.duration"
TOOL = "gen_ai.execute_tool.duration"
RUN = "gen_ai.invoke_agent.duration"


def newest(scenario: Scenario, metric: str, **attributes: Any) -> list[Any]:
    """The newest point of each stream of a metric."""
    scenario.settle()
    return [points[-1] for points in scenario.receiver.streams(metric, **attributes).values()]


def one(scenario: Scenario, metric: str, **attributes: Any) -> Any:
    points = newest(scenario, metric, **attributes)
    assert len(points) == 1, points
    return points[0]


def test_a_call_that_is_retried_lasts_all_its_attempts(scenario: Scenario) -> None:
    scenario.script("main", [refuse(500, delay=0.2), refuse(500, delay=0.2), said(delay=0.2)])
    llm = scenario.llm("main", num_retries=4)
    scenario.run(scenario.conversation(llm))
    duration = one(scenario, DURATION)
    assert (duration.count, duration.value >= 0.6) == (1, True)
    if not newest(scenario, "openhands.llm.retries"):
        pytest.skip("with this release the provider's own client retries, unseen by OpenHands")
    assert one(scenario, "openhands.llm.retries").value == 2
    assert one(scenario, "openhands.llm.response.latency").value < duration.value - 0.4


def test_a_call_that_fails_is_counted_with_the_name_of_its_error(scenario: Scenario) -> None:
    scenario.script("main", lambda request: refuse(401))
    with pytest.raises(Exception):  # noqa: B017, PT011
        scenario.run(scenario.conversation(scenario.llm("main")))
    duration = one(scenario, DURATION)
    assert duration.count == 1
    assert "Authentication" in duration.attributes["error.type"]
    run = one(scenario, RUN)
    assert run.attributes["openhands.run.outcome"] == "error"
    assert "Authentication" in run.attributes["error.type"]


def test_two_threads_on_one_llm_have_durations_of_their_own(scenario: Scenario) -> None:
    scenario.script("main", lambda request: said(delay=0.4))
    llm = scenario.llm("main")
    conversations = [scenario.conversation(llm) for _ in range(2)]

    def run_later(number: int) -> None:
        time.sleep(0.2 * number)
        scenario.run(conversations[number])

    threads = [threading.Thread(target=run_later, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    duration = one(scenario, DURATION)
    assert duration.count == 2
    assert duration.value >= 0.8, "OpenHands itself takes the second call's start for the first's"


def test_the_first_chunk_of_a_streamed_answer_is_timed(scenario: Scenario) -> None:
    llm = scenario.llm("main", stream=True)
    if "stream" not in type(llm).model_fields:
        pytest.skip("this release of OpenHands does not stream")
    scenario.script("main", lambda request: said("a longer answer in many words " * 5, stream_time=0.5))
    chunks: list[Any] = []
    conversation = scenario.conversation(llm, token_callbacks=[chunks.append])
    scenario.run(conversation)
    assert chunks
    first, duration = one(scenario, "gen_ai.client.operation.time_to_first_chunk"), one(scenario, DURATION)
    assert first.count == 1
    assert first.value < duration.value


def test_a_call_without_a_token_callback_does_not_stream(scenario: Scenario) -> None:
    scenario.run(scenario.conversation(scenario.llm("main")))
    scenario.settle()
    assert scenario.receiver.points("gen_ai.client.operation.time_to_first_chunk") == []


def test_a_run_says_what_it_came_to(scenario: Scenario) -> None:
    scenario.script("main", [called("think", {"thought": "a"}), called("think", {"thought": "b"}), said()])
    scenario.run(scenario.conversation(scenario.llm("main")))
    run = one(scenario, RUN)
    assert (run.count, run.attributes["openhands.run.outcome"], "error.type" in run.attributes) == (
        1,
        "finished",
        False,
    )
    assert one(scenario, "gen_ai.invoke_agent.inference_calls").value == 3
    assert one(scenario, "gen_ai.invoke_agent.tool_calls").value == 2
    assert one(scenario, "openhands.conversation.tool_calls").value == 2
    assert one(scenario, "openhands.run.cost").value == pytest.approx(scenario.bill().total, abs=EXACT)
    tool = one(scenario, TOOL)
    assert (tool.count, tool.attributes["gen_ai.tool.name"], tool.attributes["openhands.tool.outcome"]) == (
        2,
        "think",
        "ok",
    )


def test_a_run_that_reaches_its_iteration_limit(scenario: Scenario) -> None:
    scenario.script("main", lambda request: called("think", {"thought": f"number {request.number}"}))
    conversation = scenario.conversation(scenario.llm("main"), max_iteration_per_run=3)
    scenario.run(conversation)
    run = one(scenario, RUN)
    if run.attributes["openhands.run.outcome"] != "iterations":
        pytest.skip("this release of OpenHands does not say that a run reached its limit")
    assert run.attributes["error.type"] == "MaxIterationsReached"


def test_a_run_that_reaches_its_budget(scenario: Scenario) -> None:
    from openhands.sdk.conversation.impl.local_conversation import LocalConversation

    if "max_budget_per_run" not in inspect.signature(LocalConversation.__init__).parameters:
        pytest.skip("this release of OpenHands knows no budget")
    scenario.script("main", lambda request: called("think", {"thought": f"number {request.number}"}))
    conversation = scenario.conversation(scenario.llm("main"), max_budget_per_run=0.004)
    scenario.run(conversation)
    assert one(scenario, RUN).attributes["openhands.run.outcome"] == "budget"
    assert one(scenario, "openhands.conversation.budget.limit").value == 0.004


def test_a_stuck_run(scenario: Scenario) -> None:
    scenario.script("main", lambda request: called("think", {"thought": "the same again"}))
    conversation = scenario.conversation(scenario.llm("main"))
    scenario.run(conversation)
    assert one(scenario, RUN).attributes["openhands.run.outcome"] == "stuck"
    assert one(scenario, "openhands.stuck_runs").value == 1


def test_condensations_are_counted(scenario: Scenario) -> None:
    from .test_topologies import condenser_for, thinking

    scenario.script("main", thinking(8))
    agent = scenario.agent(
        scenario.llm("main"), condenser=condenser_for(scenario.llm("condenser", usage_id="condenser"))
    )
    scenario.run(scenario.conversation(agent))
    assert one(scenario, "openhands.condensations").value == len(scenario.bill("condenser").entries)


def test_how_full_the_context_is(scenario: Scenario) -> None:
    scenario.script("main", lambda request: said(prompt=32_000, output=0))
    scenario.run(scenario.conversation(scenario.llm("main")))
    points = newest(scenario, "openhands.context.utilization")
    if not points:
        pytest.skip("this release of OpenHands does not know the context window")
    assert points[0].value == pytest.approx(0.25)


def test_what_is_under_way_is_seen_while_it_is(scenario: Scenario) -> None:
    with scenario.midway():
        assert [
            one(scenario, name).value for name in ("openhands.llm.active_calls", "openhands.conversation.active")
        ] == [
            1,
            1,
        ]
        now = one(scenario, "openhands.conversation.activity")
        assert now.attributes["openhands.conversation.activity"] == "llm"
        assert abs(now.value - time.time()) < 30
    assert one(scenario, "openhands.llm.active_calls").value == 0
    assert one(scenario, "openhands.conversation.active").value == 0


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        ("works", "ok"),
        ("says no", "tool_error"),
        ("raises ValueError", "exception"),
        ("raises", "exception"),
        ("is interrupted", "cancelled"),
        ("is cancelled", "cancelled"),
    ],
)
def test_how_a_tool_ended(scenario: Scenario, behaviour: str, outcome: str) -> None:
    needs("openhands.sdk.agent.parallel_executor", "ParallelToolExecutor")
    from openhands.sdk import Tool, register_tool

    from .consult_tool import Consult, ConsultTool

    behaviours: dict[str, Callable[[], None]] = {
        "works": lambda: None,
        "says no": lambda: None,
        "raises ValueError": lambda: fail(ValueError("secret-in-a-message")),
        "raises": lambda: fail(RuntimeError("secret-in-a-message")),
        "is interrupted": lambda: fail(KeyboardInterrupt("secret-in-a-message")),
        "is cancelled": lambda: fail(asyncio.CancelledError("secret-in-a-message")),
    }
    Consult.helper = _Helper(behaviours[behaviour])
    Consult.says_no = behaviour == "says no"
    register_tool("ConsultTool", ConsultTool)
    scenario.script("main", [called("consult", {"question": "q"}), said()])
    conversation = scenario.conversation(scenario.agent(scenario.llm("main"), tools=[Tool(name="ConsultTool")]))
    # Who is interrupted, or told to stop, hears of it; what a tool raises by itself is the agent's to read.
    with pytest.raises(BaseException) if outcome == "cancelled" else nullcontext():  # noqa: PT011
        scenario.run(conversation)
    tool = one(scenario, TOOL)
    assert tool.attributes["openhands.tool.outcome"] == outcome
    assert not any(b"secret-in-a-message" in body for body in scenario.receiver.bodies)


def fail(error: BaseException) -> None:
    raise error


class _Helper:
    def __init__(self, behave: Callable[[], None]) -> None:
        self._behave = behave

    def completion(self, messages: Any) -> None:
        self._behave()


def test_a_rejected_tool_call(scenario: Scenario) -> None:
    policy = needs("openhands.sdk.security.confirmation_policy", "AlwaysConfirm")
    from openhands.sdk import Tool, register_tool

    from .consult_tool import ConsultTool

    register_tool("ConsultTool", ConsultTool)
    scenario.script("main", [called("consult", {"question": "q"}), said()])
    conversation = scenario.conversation(scenario.agent(scenario.llm("main"), tools=[Tool(name="ConsultTool")]))
    conversation.set_confirmation_policy(policy())
    scenario.run(conversation)
    assert one(scenario, RUN).attributes["openhands.run.outcome"] == "waiting"
    conversation.reject_pending_actions("no")
    tool = one(scenario, TOOL)
    assert (tool.attributes["openhands.tool.outcome"], tool.value) == ("rejected", 0)


def test_under_suppression_money_is_counted_and_durations_are_not(scenario: Scenario) -> None:
    scenario.script("main", [called("think", {"thought": "a"}), said()])
    conversation = scenario.conversation(scenario.llm("main"))
    with suppress_instrumentation():
        scenario.run(conversation)
    scenario.check()
    for metric in (DURATION, TOOL, RUN):
        assert scenario.receiver.points(metric) == []
