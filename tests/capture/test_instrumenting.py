"""Hooks come and go without a trace, in whatever order, and count the same in between."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation

from openhands_otel import OpenHandsInstrumentor, subscribe
from openhands_otel._internal.demo.answers import call, say
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel.events import CostAdded, Event, LatencyRecorded, LLMCallStarted, MetricsMerged, TokensUsed
from otlp_receiver import Receiver, http_receiver

COST = "openhands.llm.cost"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with http_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{receiver.url}/v1/metrics")
        yield receiver
        OpenHandsInstrumentor().uninstrument()


def patched_classes() -> list[Any]:
    from openhands.sdk.agent.acp_agent import ACPAgent
    from openhands.sdk.agent.agent import Agent
    from openhands.sdk.context.condenser.base import RollingCondenser
    from openhands.sdk.conversation import title_utils
    from openhands.sdk.conversation.impl.local_conversation import LocalConversation
    from openhands.sdk.llm.fallback_strategy import FallbackStrategy
    from openhands.sdk.llm.llm import LLM
    from openhands.sdk.llm.utils.metrics import Metrics
    from openhands.sdk.llm.utils.telemetry import Telemetry

    return [
        Metrics,
        Telemetry,
        LLM,
        FallbackStrategy,
        LocalConversation,
        RollingCondenser,
        title_utils,
        Agent,
        ACPAgent,
    ]


def members() -> dict[tuple[str, str], Any]:
    return {(owner.__name__, name): value for owner in patched_classes() for name, value in vars(owner).items()}


def changed(before: dict[tuple[str, str], Any], after: dict[tuple[str, str], Any]) -> set[tuple[str, str]]:
    names = before.keys() | after.keys()
    return {name for name in names if before.get(name) is not after.get(name)}


def test_uninstrument_puts_the_identical_objects_back(receiver: Receiver) -> None:
    before = members()
    OpenHandsInstrumentor().instrument()
    assert changed(before, members())
    OpenHandsInstrumentor().uninstrument()
    assert changed(before, members()) == set()


def test_the_last_unsubscribe_puts_the_identical_objects_back() -> None:
    before = members()
    first, second = subscribe(print), subscribe(print)
    first()
    first()
    assert changed(before, members())
    second()
    assert changed(before, members()) == set()


def test_coroutine_functions_stay_coroutine_functions_and_identities_hold(receiver: Receiver) -> None:
    from openhands.sdk.conversation.base import BaseConversation
    from openhands.sdk.conversation.impl.local_conversation import LocalConversation

    before = {
        name: inspect.iscoroutinefunction(value) for name, value in members().items() if inspect.isfunction(value)
    }
    signatures = {name: inspect.signature(value) for name, value in members().items() if inspect.isfunction(value)}
    OpenHandsInstrumentor().instrument()
    after = members()
    assert {name: inspect.iscoroutinefunction(after[name]) for name in before} == before
    assert {name: inspect.signature(after[name]) for name in signatures} == signatures
    assert asyncio.iscoroutinefunction(LocalConversation.arun)
    assert LocalConversation.arun is LocalConversation.arun
    assert LocalConversation.arun is not BaseConversation.arun


def test_instrumenting_twice_counts_once(receiver: Receiver) -> None:
    from openhands.sdk.llm.utils.metrics import Metrics

    OpenHandsInstrumentor().instrument()
    OpenHandsInstrumentor().instrument()
    unsubscribe = subscribe(print)
    Metrics().add_cost(0.5)
    assert OpenHandsInstrumentor().flush(50)
    assert receiver.total(COST) == 0.5
    unsubscribe()


def test_instrument_uninstrument_instrument_again(receiver: Receiver) -> None:
    from openhands.sdk.llm.utils.metrics import Metrics

    metrics = Metrics()
    for instrumented in (True, False, True):
        if instrumented:
            OpenHandsInstrumentor().instrument()
        metrics.add_cost(0.25)
        OpenHandsInstrumentor().uninstrument()
    assert receiver.total(COST) == 0.5
    assert metrics.accumulated_cost == 0.75


def test_uninstrumented_in_mid_run(
    receiver: Receiver, llm_server: LLMServer, make_llm: Callable[..., Any], make_agent: Any, make_conversation: Any
) -> None:
    def answer(request: Any) -> Any:
        if request.turn == 1:
            OpenHandsInstrumentor().uninstrument()
        return call("think", {"thought": f"{request.turn}"}) if request.turn < 2 else say("done")

    llm_server.script("main", answer)
    OpenHandsInstrumentor().instrument()
    conversation = make_conversation(make_agent(make_llm("main"), tools=False))
    conversation.send_message("hello")
    conversation.run()
    first = llm_server.bill.entries[0].cost
    assert receiver.total(COST) == pytest.approx(first, abs=1e-9)
    assert conversation.state.execution_status.value == "finished"


def test_instrumented_in_mid_run(
    receiver: Receiver, llm_server: LLMServer, make_llm: Callable[..., Any], make_agent: Any, make_conversation: Any
) -> None:
    def answer(request: Any) -> Any:
        if request.turn == 1:
            OpenHandsInstrumentor().instrument()
        return call("think", {"thought": f"{request.turn}"}) if request.turn < 2 else say("done")

    llm_server.script("main", answer)
    conversation = make_conversation(make_agent(make_llm("main"), tools=False))
    conversation.send_message("hello")
    conversation.run()
    assert OpenHandsInstrumentor().flush(50)
    seen = [entry.cost or 0 for entry in llm_server.bill.entries[1:]]
    assert receiver.total(COST) == pytest.approx(sum(seen), abs=1e-9)
    named = {"gen_ai__conversation__id": str(conversation.id), "openhands__llm__role": "agent"}
    # The call that was under way when we came has no origin but what its thread knows; the next one has all.
    assert receiver.total("openhands.conversation.cost", **named) >= seen[-1]


def test_money_is_counted_under_suppress_instrumentation(receiver: Receiver) -> None:
    from openhands.sdk.llm.utils.metrics import Metrics

    OpenHandsInstrumentor().instrument()
    with suppress_instrumentation():
        Metrics().add_cost(0.125)
    assert OpenHandsInstrumentor().flush(50)
    assert receiver.total(COST) == 0.125


def test_each_update_is_announced_once_with_what_it_says() -> None:
    from openhands.sdk.llm.utils.metrics import Metrics

    heard: list[Event] = []
    unsubscribe = subscribe(heard.append)
    metrics = Metrics(model_name="m")
    metrics.add_cost(0.5)
    metrics.add_token_usage(10, 5, 4, 3, 100, "r1", reasoning_tokens=2)
    metrics.add_token_usage(
        prompt_tokens=1,
        completion_tokens=2,
        cache_read_tokens=0,
        cache_write_tokens=0,
        context_window=100,
        response_id="r2",
    )
    metrics.add_response_latency(0.75, "r1")
    other = Metrics()
    other.add_cost(0.25)
    metrics.merge(other)
    unsubscribe()
    metrics.add_cost(1.0)
    kinds = [CostAdded, TokensUsed, TokensUsed, LatencyRecorded, CostAdded, MetricsMerged]
    assert [type(event) for event in heard] == kinds
    cost, first, second, latency, _, merged = heard
    assert isinstance(cost, CostAdded)
    assert isinstance(first, TokensUsed)
    assert isinstance(second, TokensUsed)
    assert isinstance(latency, LatencyRecorded)
    assert isinstance(merged, MetricsMerged)
    assert (cost.amount, cost.recorded, cost.origin.model) == (0.5, 0.5, "m")
    assert (first.input, first.output, first.cache_read, first.cache_write, first.reasoning) == (10, 5, 4, 3, 2)
    assert (second.input, second.response_id) == (1, "r2")
    assert (latency.seconds, latency.response_id) == (0.75, "r1")
    assert merged.amount == 0.25


def test_what_is_copied_or_rolled_up_is_not_counted(receiver: Receiver) -> None:
    from openhands.sdk.conversation.conversation_stats import ConversationStats
    from openhands.sdk.llm.utils.metrics import Metrics

    OpenHandsInstrumentor().instrument()
    metrics = Metrics()
    metrics.add_cost(0.5)
    copy = metrics.deep_copy()
    Metrics().merge(copy)
    copy.diff(Metrics())
    stats = ConversationStats(usage_to_metrics={"a": metrics, "b": copy})
    ConversationStats.model_validate_json(stats.model_dump_json()).get_combined_metrics()
    assert OpenHandsInstrumentor().flush(50)
    assert receiver.total(COST) == 0.5


def test_a_refused_update_is_not_counted(receiver: Receiver) -> None:
    from openhands.sdk.llm.utils.metrics import Metrics

    OpenHandsInstrumentor().instrument()
    with pytest.raises(ValueError, match="negative"):
        Metrics().add_cost(-1.0)
    Metrics().add_cost(0.5)
    assert OpenHandsInstrumentor().flush(50)
    assert receiver.total(COST) == 0.5


def test_sixty_four_threads_on_shared_and_own_metrics(receiver: Receiver) -> None:
    from openhands.sdk.llm.utils.metrics import Metrics

    OpenHandsInstrumentor().instrument()
    shared = Metrics()
    heard: list[int] = []
    unsubscribe = subscribe(lambda event: heard.append(1), kinds=(CostAdded,))
    start = threading.Barrier(64)

    def spend() -> None:
        own = Metrics()
        start.wait(100)
        for _ in range(50):
            shared.add_cost(0.001)
            own.add_cost(0.002)
            own.add_token_usage(3, 2, 1, 0, 100, "r")

    threads = [threading.Thread(target=spend) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not any(thread.is_alive() for thread in threads)
    unsubscribe()
    assert OpenHandsInstrumentor().flush(50)
    assert receiver.total(COST) == pytest.approx(64 * 50 * 0.003, abs=1e-9)
    assert receiver.total("gen_ai.client.inference.usage.input_tokens") == 64 * 50 * 3
    assert len(heard) == 64 * 50 * 2


def test_conversations_that_die_leave_nothing_on_strangers(
    receiver: Receiver,
    llm_server: LLMServer,
    make_llm: Callable[..., Any],
    make_agent: Any,
    tmp_path: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """10,000 conversations are made and dropped, so that the interpreter uses their ids again; some of them spend."""
    # The SDK draws two boxes for each conversation, which takes longer than all else here.
    caplog.set_level(logging.ERROR, "openhands.sdk")
    from openhands.sdk import LocalConversation

    from openhands_otel._internal.process import subscriptions

    OpenHandsInstrumentor().instrument()
    known = subscriptions._hooks._conversations._facts
    before = len(known)
    spent: dict[str, float] = {}
    unsubscribe = subscribe(lambda event: add_up(spent, event), kinds=(CostAdded,))
    addresses: set[int] = set()
    agent = make_agent(make_llm(), tools=False)
    for number in range(10_000):
        conversation = LocalConversation(agent=agent, workspace=str(tmp_path), visualizer=None)
        addresses.add(id(conversation))
        if number % 100 == 0:
            conversation.send_message("hello")
            conversation.run()
        conversation.close()
        del conversation
    unsubscribe()
    gc.collect()
    assert len(addresses) < 10_000, "no address was used again, so this proves nothing"
    assert len(known) <= before + 1
    billed = {str(entry.session_id): entry.cost for entry in llm_server.bill.entries}
    assert len(billed) == 100
    assert spent == billed


def add_up(spent: dict[str, float], event: Event) -> None:
    assert isinstance(event, CostAdded)
    conversation = str(event.origin.conversation_id)
    spent[conversation] = spent.get(conversation, 0.0) + event.amount


def test_calls_say_when_they_begin(
    receiver: Receiver, llm_server: LLMServer, make_llm: Callable[..., Any], make_agent: Any, make_conversation: Any
) -> None:
    heard: list[Event] = []
    unsubscribe = subscribe(heard.append, kinds=(LLMCallStarted, CostAdded))
    conversation = make_conversation(make_agent(make_llm(), tools=False))
    conversation.send_message("hello")
    conversation.run()
    unsubscribe()
    assert [type(event) for event in heard] == [LLMCallStarted, CostAdded]
    assert heard[0].origin == heard[1].origin  # type: ignore[union-attr]


def test_an_sdk_that_lacks_something_is_counted_with_one_warning(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from openhands.sdk.agent.agent import Agent
    from openhands.sdk.llm.utils.metrics import Metrics
    from openhands.sdk.llm.utils.telemetry import Telemetry

    monkeypatch.delattr(Telemetry, "on_response")
    monkeypatch.delattr(Agent, "_execute_action_event")
    caplog.set_level(logging.WARNING, "openhands_otel")
    OpenHandsInstrumentor().instrument()
    Metrics().add_cost(0.5)
    assert OpenHandsInstrumentor().flush(50)
    assert receiver.total(COST) == 0.5
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "openhands_otel"]
    assert "Telemetry.on_response" in warning
    assert "Agent._execute_action_event" in warning


def test_a_fork_while_another_thread_subscribes_leaves_the_child_able_to(receiver: Receiver) -> None:
    from openhands_otel._internal.process import subscriptions

    held = subscriptions._settling
    with held:
        child = os.fork()
        if child == 0:
            # The parent's thread, which holds the lock, does not exist here.
            subscribe(print)()
            os._exit(0)
    deadline = time.monotonic() + 100
    status = (0, 0)
    while status == (0, 0) and time.monotonic() < deadline:
        status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    if status == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert status == (child, 0)
