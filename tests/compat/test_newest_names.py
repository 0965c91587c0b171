"""GenAI names by OpenTelemetry's own switch: a real run under each word of it, held against the provider's bill.

The money, and all else that is ``openhands.*``, is the same under each. Only what the conventions renamed differs.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes import error_attributes, gen_ai_attributes, server_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics

from openhands_otel import semconv
from openhands_otel._internal.demo.answers import refuse
from openhands_otel.semconv import GenAINames, Metric

from .scenario import EXACT, Scenario, called, said
from .traced import Traced

SWITCH = {
    GenAINames.TODAY: "http/dup",
    GenAINames.NEWEST: "http,gen_ai_latest_experimental",
    GenAINames.BOTH: "gen_ai_latest_experimental, gen_ai_latest_experimental/dup",
}
GEN_AI = "gen_ai."
REQUIRED = {semconv.OPERATION_NAME, semconv.PROVIDER_NAME, semconv.REQUEST_MODEL}
SERVER = {semconv.SERVER_ADDRESS, semconv.SERVER_PORT}
OURS = {semconv.LLM_ROLE, semconv.AGENT_NAME}
"""What stands beside the conventions' attributes on each of these metrics."""
COUNTERS = set(semconv.TOKEN_COUNTERS.values())
DETAILED = COUNTERS | semconv.NEWEST_ONLY


@pytest.fixture(params=GenAINames, ids=str)
def names(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> GenAINames:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", SWITCH[request.param])
    return request.param


@pytest.fixture
def newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", SWITCH[GenAINames.NEWEST])


def streams(scenario: Scenario, metric: Metric, **attributes: Any) -> list[Any]:
    """The newest point of each."""
    return [points[-1] for points in scenario.receiver.streams(metric.name, **attributes).values()]


def work(scenario: Scenario) -> None:
    """Two answers of a streaming LLM, one after a failed attempt, then a call that fails for good."""
    scenario.instrument()
    scenario.script(
        "main",
        [
            called("think", {"thought": "a"}),
            refuse(500),
            said("a longer answer in many words " * 5, prompt=2000, output=70, cached=500),
        ],
    )
    scenario.run(scenario.conversation(scenario.llm("main", num_retries=3), token_callbacks=[lambda chunk: None]))
    scenario.script("refused", lambda request: refuse(401))
    with pytest.raises(Exception):  # noqa: B017, PT011
        scenario.run(scenario.conversation(scenario.llm("refused")))
    scenario.settle()


def test_each_switch_sends_its_names_and_no_other_and_the_money_is_the_bill(
    names: GenAINames, without_us: Scenario
) -> None:
    work(without_us)
    sent = {point.metric for point in without_us.receiver.points() if point.metric.startswith(GEN_AI)}
    # Tokens of a kind that no answer had are counted as 0 by the newest names alone.
    none = set[Metric]() if names.has_newest else {semconv.CACHE_WRITE_TOKENS, semconv.REASONING_TOKENS}
    expected = {metric.name for metric in COUNTERS - none}
    expected |= {"gen_ai.execute_tool.duration", "gen_ai.invoke_agent.duration"}
    expected |= {"gen_ai.invoke_agent.inference_calls", "gen_ai.invoke_agent.tool_calls"}
    if names.has_today:
        expected |= {semconv.TOKEN_USAGE.name, semconv.OPERATION_DURATION.name}
    if names.has_newest:
        expected |= {semconv.OPERATION_INPUT_TOKENS.name, semconv.OPERATION_OUTPUT_TOKENS.name}
        expected |= {semconv.INFERENCE_DURATION.name}
    streamed = {semconv.TIME_TO_FIRST_CHUNK.name} if names.has_today else set[str]()
    if names.has_newest:
        streamed |= {semconv.INFERENCE_TIME_TO_FIRST_CHUNK.name, semconv.TIME_PER_OUTPUT_CHUNK.name}
    assert sent - streamed == expected
    without_us.check()


def test_both_say_the_same_of_the_same_calls(monkeypatch: pytest.MonkeyPatch, without_us: Scenario) -> None:
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", SWITCH[GenAINames.BOTH])
    work(without_us)
    for today, newest in semconv.RENAMED.items():
        old, new = streams(without_us, today), streams(without_us, newest)
        assert sum(point.count for point in old) == sum(point.count for point in new)
        assert sum(point.value for point in old) == pytest.approx(sum(point.value for point in new), abs=EXACT)
    tokens = without_us.server.bill.tokens
    for metric, whole in (
        (semconv.OPERATION_INPUT_TOKENS, tokens.input),
        (semconv.OPERATION_OUTPUT_TOKENS, tokens.output),
    ):
        assert sum(point.value for point in streams(without_us, metric)) == whole


def test_the_attributes_are_the_conventions(names: GenAINames, without_us: Scenario) -> None:
    work(without_us)
    host, port = without_us.server.url.removeprefix("http://").split(":")
    for metric in DETAILED:
        for point in without_us.receiver.points(metric.name):
            detail = SERVER if names.has_newest else set[str]()
            wanted = REQUIRED | detail | ({semconv.TOKEN_MODALITY} if metric in COUNTERS and detail else set())
            allowed = wanted | OURS | {semconv.RESPONSE_MODEL, semconv.ERROR_TYPE}
            assert wanted <= point.attributes.keys() <= allowed, (metric.name, point.attributes)
            if detail:
                assert (point.attributes[semconv.SERVER_ADDRESS], point.attributes[semconv.SERVER_PORT]) == (
                    host,
                    int(port),
                )
    if names.has_newest:
        calls = streams(without_us, semconv.INFERENCE_DURATION)
        answered = [point for point in calls if semconv.RESPONSE_MODEL in point.attributes]
        assert sum(point.count for point in answered) == 2
        assert all("gpt-4o" in point.attributes[semconv.RESPONSE_MODEL] for point in answered)
    else:
        assert not any(semconv.RESPONSE_MODEL in point.attributes for point in without_us.receiver.points())


@pytest.mark.usefixtures("newest")
def test_a_failed_call_records_0_of_unknown_modality(without_us: Scenario) -> None:
    without_us.instrument()
    without_us.script("main", lambda request: refuse(401))
    with pytest.raises(Exception):  # noqa: B017, PT011
        without_us.run(without_us.conversation(without_us.llm("main")))
    without_us.settle()
    for metric in COUNTERS:
        (point,) = streams(without_us, metric)
        assert (point.value, point.attributes[semconv.TOKEN_MODALITY]) == (0, "unknown")
    for metric in (semconv.OPERATION_INPUT_TOKENS, semconv.OPERATION_OUTPUT_TOKENS, semconv.INFERENCE_DURATION):
        (point,) = streams(without_us, metric)
        assert point.count == 1
        assert "Authentication" in point.attributes[semconv.ERROR_TYPE]
    assert streams(without_us, semconv.OPERATION_INPUT_TOKENS)[0].value == 0


@pytest.mark.usefixtures("newest")
def test_each_chunk_after_the_first_of_an_answer_is_timed(without_us: Scenario) -> None:
    without_us.instrument()
    llm = without_us.llm("main", stream=True)
    if "stream" not in type(llm).model_fields:
        pytest.skip("this release of OpenHands does not stream")
    without_us.script("main", lambda request: said("a longer answer in many words " * 5))
    chunks: list[Any] = []
    without_us.run(without_us.conversation(llm, token_callbacks=[chunks.append]))
    without_us.settle()
    (between,) = streams(without_us, semconv.TIME_PER_OUTPUT_CHUNK)
    (first,) = streams(without_us, semconv.INFERENCE_TIME_TO_FIRST_CHUNK)
    (whole,) = streams(without_us, semconv.INFERENCE_DURATION)
    assert (first.count, between.count) == (1, len(chunks) - 1)
    assert first.value + between.value <= whole.value


def test_scopes_and_spans_name_the_schema(names: GenAINames, scenario: Scenario, traced: Traced) -> None:
    scenario.run(scenario.conversation(scenario.llm("main")))
    scenario.settle()
    told: dict[str, set[str]] = defaultdict(set)
    for request in scenario.receiver.requests:
        for metrics in request.resource_metrics:
            for scope in metrics.scope_metrics:
                told[scope.scope.name].add(scope.schema_url)
                if scope.scope.name in (semconv.SCOPE_FLEET, semconv.SCOPE_CONVERSATIONS):
                    told["resource"].add(metrics.schema_url)
    genai = semconv.GENAI_SCHEMA_URL if names.has_newest else ""
    assert told[semconv.SCOPE_FLEET] == told[semconv.SCOPE_CONVERSATIONS] == {genai}
    assert ("" not in told["resource"]) is names.has_newest
    schemas = {span.instrumentation_scope.schema_url for span in traced.spans}
    assert (schemas == {semconv.GENAI_SCHEMA_URL}) is names.has_newest
    chat = traced.one("chat")
    assert (semconv.SERVER_ADDRESS in (chat.attributes or {})) is names.has_newest


def test_todays_names_are_those_of_opentelemetrys_package() -> None:
    """There is no package of the newest ones: the tests above say what each metric has, after its registry."""
    packaged = {value for name, value in vars(gen_ai_metrics).items() if name.startswith("GEN_AI_")}
    assert {metric.name for metric in semconv.TODAY_ONLY} <= packaged
    assert packaged.isdisjoint(metric.name for metric in semconv.NEWEST_ONLY)
    attributes = {
        value
        for module in (gen_ai_attributes, server_attributes, error_attributes)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    newest = {semconv.TOKEN_MODALITY, semconv.USAGE_CACHE_WRITE_TOKENS}
    ours = {semconv.USAGE_COST, semconv.USAGE_COST_AMOUNT, semconv.USAGE_COST_CURRENCY, semconv.USAGE_COST_SOURCE}
    named = {
        value
        for name, value in vars(semconv).items()
        if isinstance(value, str) and value.startswith(GEN_AI) and "{" not in value and name.isupper()
    }
    assert named - newest - ours <= attributes
    assert newest.isdisjoint(attributes)
    assert {semconv.ERROR_TYPE, *SERVER, semconv.RESPONSE_MODEL} <= attributes
