"""Beside other instrumentation of LLM calls: one span for a call, and theirs where there is none of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from openhands_otel import OpenHandsInstrumentor

from .scenario import Scenario, called, needs, said
from .traced import Traced, leaf

INSTRUMENTATIONS = {"OpenTelemetry": "opentelemetry.instrumentation.genai.openai",
                    "OpenLLMetry": "opentelemetry.instrumentation.openai"}  # fmt: skip
THINKING = [{"invoke_agent Agent": leaf("chat gpt-4o", "execute_tool think", "chat gpt-4o")}]


@pytest.fixture(params=INSTRUMENTATIONS)
def beside(traced: Traced, request: pytest.FixtureRequest) -> Iterator[InMemoryMetricReader]:
    """Instrumentation of the client that litellm uses, on the same provider."""
    import litellm

    module = pytest.importorskip(INSTRUMENTATIONS[request.param], reason=f"{request.param}'s is not installed here")

    # A client that was made before has the methods that there were then.
    litellm.in_memory_llm_clients_cache.flush_cache()
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    instrumentor = module.OpenAIInstrumentor()
    instrumentor.instrument(tracer_provider=traced.provider, meter_provider=meters)
    yield reader
    instrumentor.uninstrument()
    litellm.in_memory_llm_clients_cache.flush_cache()
    meters.shutdown()


def ask(scenario: Scenario) -> None:
    """A call of the application's own, with no OpenHands in it."""
    import openai

    client = openai.OpenAI(base_url=scenario.server.base_url("main"), api_key="x")
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hello"}])


def think(scenario: Scenario, how: str) -> None:
    if how == "arun":
        needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.arun")
    scenario.script("main", lambda request: called("think", {"thought": "hm"}) if request.turn % 2 == 0 else said())
    conversation = scenario.conversation(scenario.llm("main"))
    conversation.send_message("hello")
    if how == "run":
        conversation.run()
    else:
        asyncio.run(conversation.arun())


@pytest.mark.parametrize("how", ["run", "arun"])
def test_a_call_has_one_span(scenario: Scenario, traced: Traced, beside: InMemoryMetricReader, how: str) -> None:
    think(scenario, how)
    assert traced.tree() == THINKING
    assert {span.instrumentation_scope.name for span in traced.spans} == {"openhands_otel.spans"}
    assert beside.get_metrics_data() is None, "and is counted once"
    ask(scenario)
    (asked,) = [span for span in traced.spans if span.instrumentation_scope.name != "openhands_otel.spans"]
    assert asked.parent is None, "what is no call of OpenHands is theirs"


def assert_that_the_last_is_theirs(tree: Any) -> None:
    ours, theirs = tree
    assert ours == {"invoke_agent Agent": leaf("chat gpt-4o")}
    assert "invoke_agent Agent" not in theirs


@pytest.mark.parametrize("how", ["run", "arun"])
def test_without_spans_of_ours_theirs_stay(
    scenario: Scenario, traced: Traced, beside: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_TRACES", "off")
    OpenHandsInstrumentor().uninstrument()
    OpenHandsInstrumentor().instrument()
    think(scenario, how)
    assert len(traced.tree()) == 2


def test_it_is_over_with_the_call_also_where_that_fails(
    scenario: Scenario, traced: Traced, beside: InMemoryMetricReader
) -> None:
    from openhands_otel._internal.demo.answers import refuse

    scenario.script("main", lambda request: refuse(401))
    with pytest.raises(Exception):  # noqa: B017, PT011
        scenario.run(scenario.conversation(scenario.llm("main")))
    scenario.script("main", lambda request: said())
    ask(scenario)
    assert_that_the_last_is_theirs(traced.tree())


def test_it_is_over_with_the_call_also_where_we_are_taken_away_meanwhile(
    scenario: Scenario, traced: Traced, beside: InMemoryMetricReader
) -> None:
    def answer(request: Any) -> Any:
        OpenHandsInstrumentor().uninstrument()
        return said()

    scenario.script("main", answer)
    scenario.run(scenario.conversation(scenario.llm("main")))
    scenario.script("main", lambda request: said())
    ask(scenario)
    assert_that_the_last_is_theirs(traced.tree())
