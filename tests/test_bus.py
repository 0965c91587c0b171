"""Subscribers hear what they asked for, in order, and can do no harm."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from openhands_otel._internal.bus.background import QUEUE_SIZE
from openhands_otel._internal.bus.dispatch import Bus
from openhands_otel._internal.process import subscriptions
from openhands_otel.events import ConversationClosed, CostAdded, Event, LatencyRecorded, LLMCallStarted, Origin
from openhands_otel.semconv import CostSource
from stopwatch import Stopwatch


def cost(amount: float = 0.5, conversation: str | None = "c", usage_id: str | None = "agent") -> CostAdded:
    return CostAdded(1, Origin(conversation_id=conversation, usage_id=usage_id), amount, CostSource.PRICE_TABLE, amount)


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 100
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    assert condition()


@pytest.fixture
def bus() -> Bus:
    return Bus()


def test_subscribers_are_called_in_the_order_in_which_they_came(bus: Bus) -> None:
    heard: list[str] = []
    for name in "abc":
        bus.subscribe(lambda event, name=name: heard.append(name))
    bus.publish(cost())
    assert heard == ["a", "b", "c"]


def test_a_subscriber_that_raises_breaks_nobody(bus: Bus) -> None:
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("not the agent's business")

    bus.subscribe(broken)
    bus.subscribe(heard.append)
    bus.publish(cost())
    bus.publish(cost())
    assert len(heard) == 2


def test_what_is_not_an_error_but_an_end_passes(bus: Bus) -> None:
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    bus.subscribe(interrupt)
    with pytest.raises(KeyboardInterrupt):
        bus.publish(cost())


def test_unsubscribing_inside_a_callback(bus: Bus) -> None:
    heard: list[str] = []

    def once(event: Event) -> None:
        heard.append("once")
        leave_once()
        leave_later()

    leave_once = bus.subscribe(once)
    leave_later = bus.subscribe(lambda event: heard.append("later"))
    bus.publish(cost())
    bus.publish(cost())
    assert heard == ["once"]


def test_subscribing_inside_a_callback_hears_the_next_event(bus: Bus) -> None:
    heard: list[float] = []

    def recruit(event: Event) -> None:
        leave()
        bus.subscribe(lambda later: heard.append(later.amount))  # type: ignore[union-attr]

    leave = bus.subscribe(recruit)
    bus.publish(cost(1.0))
    bus.publish(cost(2.0))
    assert heard == [2.0]


def test_an_update_made_inside_a_callback_is_heard(bus: Bus) -> None:
    heard: list[float] = []

    def echo(event: Event) -> None:
        assert isinstance(event, CostAdded)
        heard.append(event.amount)
        if event.amount > 0.2:
            bus.publish(cost(event.amount / 2))

    bus.subscribe(echo)
    bus.publish(cost(1.0))
    assert heard == [1.0, 0.5, 0.25, 0.125]


def test_filters_by_conversation_usage_and_kind(bus: Bus) -> None:
    heard: dict[str, int] = {"conversation": 0, "usage": 0, "kinds": 0, "all": 0}

    def count(name: str) -> Callable[[Event], None]:
        def one(event: Event) -> None:
            heard[name] += 1

        return one

    bus.subscribe(count("conversation"), conversation="c")
    bus.subscribe(count("usage"), usage_id="condenser")
    bus.subscribe(count("kinds"), kinds=(LLMCallStarted, ConversationClosed))
    bus.subscribe(count("all"))
    bus.publish(cost())
    bus.publish(cost(conversation="other", usage_id="condenser"))
    bus.publish(LatencyRecorded(1, Origin(), 1.0, "r"))
    bus.publish(LLMCallStarted(1, Origin(conversation_id="c"), 1))
    bus.publish(ConversationClosed(1, "c"))
    assert heard == {"conversation": 1, "usage": 1, "kinds": 2, "all": 3}


def test_a_conversation_may_be_named_by_its_uuid_and_kinds_by_one_class_or_a_list(bus: Bus) -> None:
    conversation = uuid.uuid4()
    heard: list[str] = []
    bus.subscribe(lambda event: heard.append("conversation"), conversation=conversation)
    bus.subscribe(lambda event: heard.append("class"), kinds=CostAdded)
    bus.subscribe(lambda event: heard.append("list"), kinds=[CostAdded])
    bus.publish(cost(conversation=str(conversation)))
    bus.publish(LLMCallStarted(1, Origin(), 1))
    assert heard == ["conversation", "class", "list"]


@pytest.mark.parametrize("wrong", [{"callback": None}, {"kinds": ("CostAdded",)}, {"kinds": 5}])
def test_a_mistake_is_told_to_who_subscribes_and_leaves_nothing_behind(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        subscriptions.subscribe(**({"callback": print} | wrong))
    assert not subscriptions._listeners


def test_a_background_subscriber_holds_nobody_up(bus: Bus) -> None:
    heard: list[str] = []
    go_on = threading.Event()

    def slow(event: Event) -> None:
        go_on.wait(100)
        heard.append(threading.current_thread().name)

    bus.subscribe(slow, background=True)
    watch = Stopwatch()
    for _ in range(100):
        bus.publish(cost())
    assert watch.s() < 2
    assert not heard
    go_on.set()
    wait_until(lambda: len(heard) == 100)
    assert set(heard) == {"openhands-otel-subscribers"}


def test_what_a_background_subscriber_is_too_slow_for_is_dropped_and_counted(bus: Bus) -> None:
    heard: list[Event] = []
    go_on = threading.Event()

    def slow(event: Event) -> None:
        go_on.wait(100)
        heard.append(event)

    bus.subscribe(slow, background=True)
    for _ in range(QUEUE_SIZE + 500):
        bus.publish(cost())
    assert 499 <= bus.dropped <= 500
    go_on.set()
    wait_until(lambda: len(heard) == QUEUE_SIZE + 500 - bus.dropped)


def test_events_of_dying_objects_run_no_callback_where_they_die(bus: Bus) -> None:
    threads: list[str] = []
    bus.subscribe(lambda event: threads.append(threading.current_thread().name), kinds=(ConversationClosed,))
    bus.publish_from_finalizer(ConversationClosed(1, "c"))
    wait_until(lambda: threads)
    assert threads == ["openhands-otel-subscribers"]


def test_a_sink_hears_everything_until_it_is_removed(bus: Bus) -> None:
    heard: list[Event] = []
    remove = bus.add_sink(heard.append)
    bus.publish(LLMCallStarted(1, Origin(), 1))
    bus.publish(cost())
    remove()
    bus.publish(cost())
    assert len(heard) == 2
