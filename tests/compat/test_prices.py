"""Prices are OpenHands' own: what a cache saved is asked of the function that priced the call, and zero is a price."""

from __future__ import annotations

import asyncio
import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from openhands_otel import subscribe
from openhands_otel.events import CostAdded, ResponseRecorded
from openhands_otel.semconv import CostSource

from .scenario import COST, EXACT, Scenario, needs, said

UNPRICED = "openhands.llm.unpriced_calls"


def answer(
    model: str, prompt: int, cached: int, output: int = 50, hidden: dict[str, Any] | None = None, **more: Any
) -> Any:
    """An answer as litellm hands it to OpenHands."""
    from litellm.types.utils import ModelResponse, PromptTokensDetailsWrapper, Usage

    details = PromptTokensDetailsWrapper(cached_tokens=cached)
    usage = Usage(
        prompt_tokens=prompt, completion_tokens=output, total_tokens=prompt + output, prompt_tokens_details=details
    )
    found = ModelResponse(id="x", model=model, usage=usage, **more)
    if hidden is not None:
        found._hidden_params = hidden
    return found


def telemetry(model: str, **prices: float) -> Any:
    from openhands.sdk.llm.utils.metrics import Metrics
    from openhands.sdk.llm.utils.telemetry import Telemetry

    return Telemetry(model_name=model, metrics=Metrics(model_name=model), **prices)


@contextmanager
def listening() -> Iterator[list[Any]]:
    heard: list[Any] = []
    unsubscribe = subscribe(heard.append, kinds=(CostAdded, ResponseRecorded))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield heard
    finally:
        unsubscribe()


def recorded(heard: list[Any]) -> ResponseRecorded:
    (event,) = [event for event in heard if isinstance(event, ResponseRecorded)]
    heard.clear()
    return event


def answers(model: str, sizes: list[tuple[int, int]]) -> Iterator[tuple[Any, Any]]:
    """(with cached tokens, the same without)"""
    for prompt, cached in sizes:
        yield answer(model, prompt, cached), answer(model, prompt, 0)


def cost(meter: Any, response: Any) -> float | None:
    """What OpenHands' own function says, nobody listening."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return meter._compute_cost(response)


SAMPLE = int(os.environ.get("OPENHANDS_OTEL_TEST_PRICES", "60"))
"""Models that are looked at; the whole table takes a minute."""
SIZES = [(1000, 800), (300_000, 250_000), (5000, 4000), (280_000, 1000), (200_000, 9), (200_001, 10_000)]
"""(input, cached part of it): each side of where prices change, and each kind of size twice."""
NETWORK = ("github_copilot", "chatgpt", "ollama", "oci")
"""litellm asks the network for these."""


def test_what_a_cache_saves_is_the_difference_of_two_prices_of_litellm() -> None:
    """Kind: a price that is looked up a second time, under another name. Each model of litellm's table that can be
    cached, below and above each size at which a price changes, asked the first time and once more."""
    import litellm

    table: dict[str, dict[str, Any]] = litellm.model_cost
    models = [
        name
        for name, entry in table.items()
        if any("cache_read" in key for key in entry) and str(entry.get("litellm_provider")) not in NETWORK
    ]
    assert len(models) > 100
    known = 0
    picked = random.Random(1).sample(models, min(len(models), SAMPLE))
    for name in picked:
        provider = str(table[name].get("litellm_provider"))
        model = name if name.startswith(f"{provider}/") else f"{provider}/{name}"
        meter = telemetry(model)
        for cached, plain in answers(name.partition("/")[2] or name, SIZES):
            before, after = cost(meter, plain), cost(meter, cached)
            with listening() as heard:
                meter.on_response(cached)
                saved = recorded(heard).cache_savings
            if before is None or after is None or not after:
                assert not saved, name
            elif saved is not None:
                known += 1
                assert saved == pytest.approx(before - after, abs=1e-12), (name, cached.usage)
            else:
                assert before < after, name
    assert known > len(picked)


@pytest.mark.parametrize(
    ("model", "answered_as", "prompt", "cached", "saved"),
    [
        pytest.param("gemini/gemini-2.5-pro", "gemini-2.5-pro", 260_000, 250_000, 0.5625, id="a tier by size"),
        pytest.param("azure/eu/gpt-4o", "eu/gpt-4o", 1000, 400, 0.00055, id="a region"),
    ],
)
def test_a_price_is_the_one_of_the_calls_tier_and_region(
    model: str, answered_as: str, prompt: int, cached: int, saved: float
) -> None:
    meter = telemetry(model)
    response = answer(answered_as, prompt, cached)
    plain = cost(meter, answer(answered_as, prompt, 0))
    if plain is None or plain - (cost(meter, response) or 0.0) != pytest.approx(saved, abs=EXACT):
        pytest.skip("the price table of this release of litellm has other prices")
    with listening() as heard:
        for _ in range(2):
            meter.on_response(answer(answered_as, prompt, cached))
            assert recorded(heard).cache_savings == pytest.approx(saved, abs=EXACT)


def test_a_service_tier_is_priced_as_such() -> None:
    meter = telemetry("openai/gpt-5")
    with listening() as heard:
        for tier in ("default", "flex", "priority", "default", "priority"):
            cached, plain = (answer("gpt-5", 1000, count, service_tier=tier) for count in (800, 0))
            expected = (cost(meter, plain) or 0.0) - (cost(meter, cached) or 0.0)
            heard.clear()
            meter.on_response(cached)
            assert recorded(heard).cache_savings == pytest.approx(expected, abs=1e-12)


def test_a_price_that_is_registered_later_is_the_one_that_counts() -> None:
    import litellm

    def register(full: float) -> None:
        entry = {
            "input_cost_per_token": full,
            "output_cost_per_token": full,
            "cache_read_input_token_cost": full / 10,
            "litellm_provider": "openai",
            "mode": "chat",
        }
        litellm.register_model({"registered-later": entry})

    meter = telemetry("openai/registered-later")
    try:
        with listening() as heard:
            for full in (1e-6, 1e-6, 3e-6):
                register(full)
                meter.on_response(answer("registered-later", 1000, 800))
                assert recorded(heard).cache_savings == pytest.approx(800 * full * 0.9, abs=1e-12)
    finally:
        litellm.model_cost.pop("registered-later", None)


def test_where_litellm_did_not_price_the_call_nothing_is_said_of_the_cache() -> None:
    header = {"additional_headers": {"llm_provider-x-litellm-response-cost": "0.5"}}
    with listening() as heard:
        telemetry("openai/gpt-4o").on_response(answer("gpt-4o", 1000, 800, hidden=header))
        assert recorded(heard).cache_savings is None
        telemetry("openai/gpt-4o", input_cost_per_token=1.0, output_cost_per_token=1.0).on_response(
            answer("gpt-4o", 1000, 800)
        )
        assert recorded(heard).cache_savings is None
        telemetry("openai/no-such-model-1").on_response(answer("no-such-model-1", 1000, 800))
        assert recorded(heard).cache_savings is None


def free_of_the_table() -> str:
    import litellm

    for name, entry in litellm.model_cost.items():
        zero = (
            entry.get("mode") == "chat" and entry.get("input_cost_per_token") == entry.get("output_cost_per_token") == 0
        )
        if zero and cost(telemetry(name), answer(name, 1000, 0)) == 0:
            return name
    pytest.skip("the price table of this release of litellm has no model that is free")


def test_zero_is_a_price() -> None:
    """Kind: zero taken for unknown. Whoever says that a call costs nothing has named its price."""
    zero = {"additional_headers": {"llm_provider-x-litellm-response-cost": "0.0"}}
    free = free_of_the_table()
    cases = [
        (telemetry("openai/gpt-4o"), answer("gpt-4o", 1000, 800, hidden=zero), CostSource.PROVIDER),
        (telemetry("openai/no-such-model-1"), answer("no-such-model-1", 1000, 0, hidden=zero), CostSource.PROVIDER),
        (
            telemetry("openai/mine", input_cost_per_token=0.0, output_cost_per_token=0.0),
            answer("mine", 9, 0),
            CostSource.CUSTOM,
        ),
        (telemetry(free), answer(free, 1000, 0), CostSource.PRICE_TABLE),
    ]
    with listening() as heard:
        for meter, response, source in cases:
            meter.on_response(response)
            event = recorded(heard)
            assert (event.priced, event.free) == (True, source)
            assert meter.metrics.accumulated_cost == 0


def test_no_price_is_no_zero() -> None:
    import litellm

    with listening() as heard:
        telemetry("openai/no-such-model-1").on_response(answer("no-such-model-1", 1000, 0))
        assert recorded(heard) == recorded_like(priced=False)
        # Not the price, but the count of tokens is missing.
        telemetry("openai/gpt-4o").on_response(answer("gpt-4o", 0, 0, output=0))
        assert recorded(heard) == recorded_like(priced=False)
        litellm.register_model({"openai/without-a-price": {"litellm_provider": "openai", "mode": "chat"}})
        try:
            telemetry("openai/without-a-price").on_response(answer("without-a-price", 1000, 0))
            assert recorded(heard) == recorded_like(priced=False)
        finally:
            litellm.model_cost.pop("openai/without-a-price", None)


NEWER = ["anthropic/claude-opus-99", "gemini/gemini-99-pro", "openai/gpt-99", "openrouter/anthropic/claude-opus-99"]


@pytest.mark.parametrize("model", [*NEWER, "litellm_proxy/claude-opus-99", "huggingface/owner/model"])
def test_a_model_that_the_table_does_not_have_yet_is_not_free(model: str) -> None:
    """Kind: unknown taken for zero. litellm prices a model of a family that it knows, and has no price of, at 0."""
    with listening() as heard:
        telemetry(model).on_response(answer(model.partition("/")[2], 1000, 800))
        event = recorded(heard)
    assert (event, event.cache_savings) == (recorded_like(priced=False), None)


def test_a_model_that_is_free_is_so_in_any_case() -> None:
    free = free_of_the_table()
    route, _, name = free.rpartition("/")
    shouted = f"{route}/{name.upper()}".lstrip("/")
    if cost(telemetry(shouted), answer(shouted, 1000, 0)) != 0:
        pytest.skip("this release of litellm takes a model's name as it is")
    with listening() as heard:
        telemetry(shouted).on_response(answer(shouted, 1000, 0))
        assert recorded(heard).free is CostSource.PRICE_TABLE


class recorded_like:
    """Equal to each event that says so."""

    def __init__(self, priced: bool) -> None:
        self.priced = priced

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ResponseRecorded) and other.priced is self.priced and other.free is None


def test_a_known_zero_is_shown_as_such(scenario: Scenario) -> None:
    """End to end: no unpriced call, and a series of 0 that says who named the price."""
    free = scenario.conversation(
        scenario.llm("mine", model="my-own", input_cost_per_token=0.0, output_cost_per_token=0.0)
    )
    scenario.run(free)
    scenario.script("gateway", lambda request: said(cost=0.0))
    scenario.run(scenario.conversation(scenario.llm("gateway", usage_id="gateway")))
    scenario.settle()
    assert scenario.fleet(UNPRICED) == 0
    points = [points[-1] for points in scenario.receiver.streams(COST).values()]
    assert {(point.attributes["openhands.cost.source"], point.value) for point in points} == {
        ("custom", 0.0),
        ("provider", 0.0),
    }
    assert scenario.cost_of(free) == 0
    assert scenario.fleet("gen_ai.client.inference.usage.input_tokens") == 2000


def test_what_litellm_counts_itself_is_an_estimate(scenario: Scenario) -> None:
    """Kind: a guess that passes for a price. The provider says nothing of what was used, of a streamed answer."""
    needs("openhands.sdk.llm.llm", "LLM.completion")
    from openhands.sdk import LLM, Message, TextContent

    if "stream" not in LLM.model_fields:
        pytest.skip("this release of OpenHands does not stream")
    question = [Message(role="user", content=[TextContent(text="What is it?")])]
    for name, usage_sent in (("silent", False), ("exact", True)):
        scenario.script(name, lambda request, sent=usage_sent: said("It is what it is.", usage_sent=sent))
        llm = scenario.llm(name, usage_id=name, stream=True)
        llm.completion(question, on_token=lambda chunk: None)
        if hasattr(llm, "acompletion"):
            asyncio.run(llm.acompletion(question, on_token=lambda chunk: None))
    scenario.settle()
    estimated, exact = scenario.fleet(openhands__cost__source="estimated"), scenario.bill("exact").total
    assert 0 < estimated < exact
    listed = scenario.fleet(openhands__cost__source="price_table")
    if listed == 0:
        pytest.skip("this release of OpenHands never asks a provider for the usage of a streamed answer")
    assert listed == pytest.approx(exact, abs=EXACT)


def test_an_answer_that_says_nothing_of_its_usage_is_unpriced(scenario: Scenario) -> None:
    scenario.script("main", lambda request: said(usage_sent=False))
    scenario.run(scenario.conversation(scenario.llm("main")))
    scenario.settle()
    assert scenario.fleet(UNPRICED) + scenario.fleet(openhands__cost__source="estimated") > 0
