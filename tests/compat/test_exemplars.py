"""From a number to the trace behind it: values lead to the spans they came from, where those are sampled."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from openhands_otel import semconv
from openhands_otel.semconv import Metric
from otlp_receiver import Exemplar

from .scenario import EXACT, Scenario, called, said
from .traced import Traced, instrument_again

OF_CALLS = (
    semconv.COST,
    semconv.INPUT_TOKENS,
    semconv.OUTPUT_TOKENS,
    semconv.TOKEN_USAGE,
    semconv.RESPONSE_LATENCY,
    semconv.OPERATION_DURATION,
)
OF_TOOLS = (semconv.TOOL_DURATION,)
OF_RUNS = (semconv.RUN_DURATION, semconv.RUN_COST, semconv.RUN_CALLS, semconv.RUN_TOOL_CALLS)


def thinking(scenario: Scenario) -> None:
    scenario.script("main", [called("think", {"thought": "hm"}), said(prompt=3000, output=70)])
    scenario.run(scenario.conversation(scenario.llm("main")))
    scenario.settle()


def exemplars(scenario: Scenario, metric: Metric) -> list[Exemplar]:
    return [each for point in scenario.receiver.points(metric.name) for each in point.exemplars]


def test_a_value_leads_to_the_span_it_came_from(scenario: Scenario, traced: Traced) -> None:
    thinking(scenario)
    owners = dict.fromkeys(OF_CALLS, "chat") | dict.fromkeys(OF_TOOLS, "execute_tool")
    for metric, owner in (owners | dict.fromkeys(OF_RUNS, "invoke_agent")).items():
        spans = {span.context.span_id: span for span in traced.named(owner)}
        found = exemplars(scenario, metric)
        assert {each.span_id for each in found} <= spans.keys(), metric.name
        assert found[-1].span_id == traced.named(owner)[-1].context.span_id, metric.name
        assert {each.trace_id for each in found} == {traced.one("invoke_agent").context.trace_id}
        for each in found:
            span = spans[each.span_id]
            assert (span.start_time or 0) <= each.time, "it happened in its span"
    scenario.check()


def test_its_value_is_what_that_call_came_to(scenario: Scenario, traced: Traced) -> None:
    thinking(scenario)
    last = traced.named("chat")[-1].attributes or {}
    values = {metric: exemplars(scenario, metric)[-1].value for metric in (*OF_CALLS, semconv.RUN_COST)}
    assert values[semconv.COST] == pytest.approx(last["gen_ai.usage.cost"], abs=EXACT)
    assert (values[semconv.INPUT_TOKENS], values[semconv.OUTPUT_TOKENS]) == (3000, 70)
    assert {each.value for each in exemplars(scenario, semconv.TOKEN_USAGE)} >= {3000, 70}
    assert values[semconv.RUN_COST] == pytest.approx(scenario.bill().total, abs=EXACT)


def test_no_exemplars_without_spans(scenario: Scenario) -> None:
    thinking(scenario)
    assert not [point for point in scenario.receiver.points() if point.exemplars]


def test_no_exemplars_of_spans_that_are_not_sampled(scenario: Scenario) -> None:
    traced = Traced(sampler=ALWAYS_OFF)
    instrument_again(traced)
    thinking(scenario)
    assert traced.spans == ()
    assert not [point for point in scenario.receiver.points() if point.exemplars]


def test_no_exemplars_where_they_are_switched_off(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXEMPLAR_FILTER", "always_off")
    traced = Traced()
    instrument_again(traced)
    thinking(scenario)
    assert traced.named("chat")
    assert not [point for point in scenario.receiver.points() if point.exemplars]
