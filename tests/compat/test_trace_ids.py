"""From a conversation's series to the trace of its last run."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import format_trace_id

from openhands_otel import semconv

from .scenario import Scenario
from .traced import Traced, instrument_again

INFO = semconv.CONVERSATION_INFO.name
TRACE_ID = semconv.CONVERSATION_TRACE_ID


def test_a_conversation_names_the_trace_of_its_last_run_and_of_no_other(scenario: Scenario, traced: Traced) -> None:
    conversation = scenario.conversation(scenario.llm("main"))
    for _ in range(2):
        scenario.run(conversation)
        scenario.settle()
        newest = traced.named("invoke_agent")[-1]
        (info,) = scenario.facts(INFO)
        assert info.attributes[TRACE_ID] == format_trace_id(newest.context.trace_id)
        assert info.attributes[semconv.AGENT_NAME] == "Agent"
    conversation.close()
    scenario.settle()
    assert scenario.facts(INFO) == []


@pytest.mark.parametrize("sampled", [None, False])
def test_there_is_none_without_a_trace_that_is_sent(scenario: Scenario, sampled: bool | None) -> None:
    if sampled is not None:
        instrument_again(Traced(sampler=ALWAYS_OFF))
    scenario.run(scenario.conversation(scenario.llm("main")))
    scenario.settle()
    assert scenario.facts(INFO)
    assert not [point for point in scenario.receiver.points(INFO) if TRACE_ID in point.attributes]
