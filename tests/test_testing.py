"""What a test spends is captured exactly, from anywhere in the process, and leaves no trace (``testing.py``)."""

from __future__ import annotations

import asyncio
import math
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from openhands_otel import OpenHandsInstrumentor, subscribe
from openhands_otel._internal.demo.answers import call, say
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel.events import ConversationOpened, CostAdded, RunEnded
from openhands_otel.testing import Captured, capture
from otlp_receiver import http_receiver


def metrics() -> Any:
    from openhands.sdk.llm.utils.metrics import Metrics

    return Metrics(model_name="m")


def add_cost() -> Any:
    return type(metrics()).__dict__["add_cost"]


def our_threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name.startswith("openhands-otel")}


def test_a_run_is_captured_in_two_lines(
    llm_server: LLMServer, make_llm: Callable[..., Any], make_agent: Any, make_conversation: Any
) -> None:
    llm_server.provider.script("tools", [call("terminal", {"command": "true"}), say("Done.")])
    before, threads = add_cost(), our_threads()
    conversation = make_conversation(make_agent(make_llm("tools")))
    with capture() as spent:
        conversation.send_message("hello")
        conversation.run()
    assert spent.cost == pytest.approx(llm_server.bill.total, abs=1e-9)

    assert spent.cost == math.fsum(event.amount for event in spent.of(CostAdded)) > 0
    billed = llm_server.bill.tokens
    assert (spent.tokens.prompt_tokens, spent.tokens.completion_tokens) == (billed.input, billed.output)
    assert (spent.llm_calls, spent.unpriced_calls) == (2, 0)
    assert spent.of(RunEnded) == tuple(event for event in spent.events if isinstance(event, RunEnded))
    (stats,) = spent.conversations
    assert stats == spent.conversation(conversation.id) == spent.conversation(str(conversation.id))
    assert stats.accumulated_cost == stats.tree_cost == spent.cost
    assert stats.accumulated_token_usage.prompt_tokens == billed.input
    assert (stats.outcome, stats.model_name, stats.provider_name) == ("finished", "gpt-4o", "openai")
    assert [part.llm_calls for part in stats.calls_by_model] == [2]
    assert stats.usage_to_metrics["default"].accumulated_cost == spent.cost
    assert add_cost() is before
    assert our_threads() == threads


def test_nothing_before_or_after_the_block_is_in_it() -> None:
    meter = metrics()
    meter.add_cost(1.0)
    with capture() as spent:
        for _ in range(10):
            meter.add_cost(0.1)
    meter.add_cost(1.0)
    assert spent.cost == 1.0, "rounded once: added up one by one it is 0.9999999999999999"
    assert len(spent.events) == 10
    assert repr(spent) == "<Captured $1, 0 LLM calls, 10 events>"


def test_captures_may_be_nested_and_end_with_an_exception() -> None:
    before, meter = add_cost(), metrics()
    with capture() as outer:
        meter.add_cost(0.25)
        with suppress(RuntimeError), capture() as inner:
            meter.add_cost(0.5)
            raise RuntimeError
        meter.add_cost(1.0)
    assert (inner.cost, outer.cost) == (0.5, 1.75)
    assert add_cost() is before


def test_what_any_thread_and_any_task_spends_is_in_it() -> None:
    async def spend() -> None:
        await asyncio.to_thread(metrics().add_cost, 0.25)
        metrics().add_cost(0.25)

    async def all_of_them() -> Captured:
        with capture() as spent:
            await asyncio.gather(*(spend() for _ in range(10)))
        return spent

    assert asyncio.run(all_of_them()).cost == 5.0
    with capture() as spent:
        threads = [threading.Thread(target=lambda: metrics().add_cost(0.5)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert spent.cost == 4.0, "readable inside of it, too"


@pytest.mark.parametrize("variables", [{}, {"OPENHANDS_OTEL_ENABLED": "false"}, {"OPENHANDS_OTEL_SERIES_LIMIT": "no"}])
def test_it_is_independent_of_instrumentation_and_its_settings(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with http_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{receiver.url}/v1/metrics")
        instrumentor, meter = OpenHandsInstrumentor(), metrics()
        instrumentor.instrument()
        try:
            meter.add_cost(0.25)
            with capture() as spent:
                meter.add_cost(0.5)
            meter.add_cost(1.0)
        finally:
            instrumentor.uninstrument()
        assert spent.cost == 0.5
        assert receiver.total("openhands.llm.cost") == (0.0 if variables else 1.75)


def test_subscribers_of_the_test_stay_while_a_capture_comes_and_goes() -> None:
    heard: list[Any] = []
    unsubscribe = subscribe(heard.append, kinds=CostAdded)
    with capture():
        metrics().add_cost(0.5)
    metrics().add_cost(0.5)
    unsubscribe()
    assert len(heard) == 2


def test_a_conversation_that_nothing_is_known_of_is_named(
    make_llm: Any, make_agent: Any, make_conversation: Any
) -> None:
    with capture() as spent:
        conversation = make_conversation(make_agent(make_llm(), tools=False))
    assert [event.conversation_id for event in spent.of(ConversationOpened)] == [str(conversation.id)]
    other = uuid.uuid4()
    with pytest.raises(KeyError, match=str(other)):
        spent.conversation(other)


def test_an_amount_that_no_exporter_would_take_is_in_no_total() -> None:
    with capture() as spent:
        metrics().add_cost(1e12)
        metrics().add_cost(0.5)
    assert spent.cost == 0.5
