"""From a conversation's series to the trace of its last run."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import format_trace_id

from openhands_otel import semconv

from .traced import Traced, instrument_again
from .world import World

INFO = semconv.CONVERSATION_INFO.name
TRACE_ID = semconv.CONVERSATION_TRACE_ID


def test_a_conversation_names_the_trace_of_its_last_run_and_of_no_other(world: World, traced: Traced) -> None:
    conversation = world.conversation(world.llm("main"))
    for _ in range(2):
        world.run(conversation)
        world.settle()
        newest = traced.named("invoke_agent")[-1]
        (info,) = world.facts(INFO)
        assert info.attributes[TRACE_ID] == format_trace_id(newest.context.trace_id)
        assert info.attributes[semconv.AGENT_NAME] == "Agent"
    conversation.close()
    world.settle()
    assert world.facts(INFO) == []


@pytest.mark.parametrize("sampled", [None, False])
def test_there_is_none_without_a_trace_that_is_sent(world: World, sampled: bool | None) -> None:
    if sampled is not None:
        instrument_again(Traced(sampler=ALWAYS_OFF))
    world.run(world.conversation(world.llm("main")))
    world.settle()
    assert world.facts(INFO)
    assert not [point for point in world.receiver.points(INFO) if TRACE_ID in point.attributes]
