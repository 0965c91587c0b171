"""LLM classes of the user's own: whatever method they override, and however, their calls are seen as any other's."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from openhands_otel import OpenHandsInstrumentor, subscribe
from openhands_otel._internal.demo.answers import refuse
from openhands_otel.events import CostAdded, LLMCallEnded, LLMCallStarted
from openhands_otel.semconv import UNKNOWN

from .scenario import EXACT, Scenario, needs, said

CALLS = 4


def llm_class() -> Any:
    from openhands.sdk import LLM

    return LLM


def own(name: str) -> Callable[..., Any]:
    """A method that does all that OpenHands' does, and never calls it: a copy of it, as it is without us."""
    found = getattr(llm_class(), name, None)
    if found is None:
        pytest.skip(f"this release of OpenHands has no LLM.{name}")
    copied = inspect.unwrap(found)
    if inspect.iscoroutinefunction(copied):

        async def own_async(self: Any, *args: Any, **kwargs: Any) -> Any:
            return await copied(self, *args, **kwargs)

        return own_async

    def own_plain(self: Any, *args: Any, **kwargs: Any) -> Any:
        return copied(self, *args, **kwargs)

    return own_plain


def without_super(name: str) -> Any:
    return type("WithoutSuper", (llm_class(),), {name: own(name), "__module__": __name__})


def with_super(name: str) -> Any:
    class WithSuper(llm_class()):  # type: ignore[misc]
        pass

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(WithSuper, self), name)(*args, **kwargs)

    return type("Below", (WithSuper,), {name: method, "__module__": __name__})


def by_mixin(name: str) -> Any:
    mixin = type("Mixin", (), {name: own(name)})
    return type("Mixed", (mixin, llm_class()), {"__module__": __name__})


def inherited(name: str) -> Any:
    return type("Inherits", (without_super(name),), {"__module__": __name__})


def on_two_levels(name: str) -> Any:
    upper = without_super(name)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(lower, self), name)(*args, **kwargs)

    lower = type("Lower", (upper,), {name: method, "__module__": __name__})
    return lower


def decorated(name: str) -> Any:
    method = own(name)

    @functools.wraps(method)
    def logged(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self, *args, **kwargs)

    return type("Decorated", (llm_class(),), {name: logged, "__module__": __name__})


def put_on_the_class(name: str) -> Any:
    changed = type("Changed", (llm_class(),), {"__module__": __name__})
    setattr(changed, name, own(name))
    return changed


def put_on_the_object(name: str) -> Any:
    method = own(name)

    class Configured(llm_class()):  # type: ignore[misc]
        def model_post_init(self, context: Any) -> None:
            super().model_post_init(context)
            object.__setattr__(self, name, functools.partial(method, self))

    return Configured


KINDS = [
    without_super,
    with_super,
    by_mixin,
    inherited,
    on_two_levels,
    decorated,
    put_on_the_class,
    put_on_the_object,
]


def ask(llm: Any, name: str) -> Any:
    from openhands.sdk import Message, TextContent

    question = [Message(role="user", content=[TextContent(text="What is it?")])]
    result = getattr(llm, name)(question)
    if inspect.isawaitable(result):

        async def wait() -> Any:
            return await result

        return asyncio.run(wait())
    return result


@pytest.mark.parametrize("name", ["completion", "responses", "acompletion", "aresponses", "generate", "agenerate"])
def test_a_method_of_a_subclasss_own_is_a_call_like_any_other(scenario: Scenario, name: str) -> None:
    """Kind: a hook on a method that need not be called. Each way to come to one, made before us and after us."""
    needs("openhands.sdk.llm.llm", f"LLM.{name}")
    OpenHandsInstrumentor().uninstrument()
    before = [(kind.__name__, kind(name)) for kind in KINDS]
    OpenHandsInstrumentor().instrument()
    classes = before + [(f"{kind.__name__}, later", kind(name)) for kind in KINDS]
    events: list[Any] = []
    unsubscribe = subscribe(events.append, kinds=(LLMCallStarted, LLMCallEnded, CostAdded))
    try:
        for number, (kind, each) in enumerate(classes):
            script = f"own{number}"
            scenario.script(script, lambda request: said())
            llm = each(**{**scenario.llm(script).model_dump(), "api_key": "x", "usage_id": script})
            events.clear()
            for _ in range(CALLS):
                ask(llm, name)
            started = [event for event in events if isinstance(event, LLMCallStarted)]
            ended = [event for event in events if isinstance(event, LLMCallEnded)]
            costs = [event for event in events if isinstance(event, CostAdded)]
            assert (len(started), len(ended), len(costs)) == (CALLS, CALLS, CALLS), kind
            assert {(event.origin.model, event.origin.provider) for event in events} == {("gpt-4o", "openai")}, kind
            assert [event.call for event in costs] == [event.call for event in started], kind
            assert all(event.error is None and event.seconds for event in ended), kind
            assert sum(event.amount for event in costs) == pytest.approx(scenario.bill(script).total, abs=EXACT)
    finally:
        unsubscribe()


def test_nothing_can_be_told_from_a_class_that_is_hooked(scenario: Scenario) -> None:
    """Identity, nature, signature; and all of it is as it was when we are gone."""
    llm = llm_class()
    OpenHandsInstrumentor().uninstrument()
    assert "__init_subclass__" not in vars(llm)
    method, mixed = own("completion"), by_mixin("completion")
    mine = type("Mine", (llm,), {"completion": method, "__module__": __name__})
    plain = type("Plain", (llm,), {"__module__": __name__})
    OpenHandsInstrumentor().instrument()
    later = type("Later", (llm,), {"completion": method, "__module__": __name__})
    assert mine.completion is mine.completion is not llm.completion
    assert plain.completion is llm.completion
    for each in (mine, later, mixed):
        assert inspect.signature(each.completion) == inspect.signature(method)
        assert not inspect.iscoroutinefunction(each.completion)
        assert each.completion.__name__ == method.__name__
    if hasattr(llm, "acompletion"):
        assert inspect.iscoroutinefunction(without_super("acompletion").acompletion)
    OpenHandsInstrumentor().uninstrument()
    assert mine.completion is method
    assert later.completion is method
    assert "completion" not in vars(mixed)
    assert "__init_subclass__" not in vars(llm)


def test_a_call_that_fails_in_a_method_put_there_later_is_a_call(scenario: Scenario) -> None:
    scenario.script("main", lambda request: refuse(401))
    changed = put_on_the_class("completion")
    llm = changed(**{**scenario.llm("main").model_dump(), "api_key": "x"})
    events: list[Any] = []
    unsubscribe = subscribe(events.append, kinds=(LLMCallStarted, LLMCallEnded))
    try:
        with pytest.raises(Exception):  # noqa: B017, PT011
            ask(llm, "completion")
    finally:
        unsubscribe()
    started, ended = events
    assert (started.call, started.origin.provider) == (ended.call, "openai")
    assert "Auth" in str(ended.error)


@pytest.mark.parametrize("kind", [without_super, put_on_the_class])
def test_in_a_conversation_its_calls_are_the_conversations(scenario: Scenario, kind: Callable[[str], Any]) -> None:
    scenario.script("main", lambda request: said())
    mine = kind("completion")
    llm = mine(**{**scenario.llm("main").model_dump(), "api_key": "x", "usage_id": "mine"})
    conversation = scenario.conversation(scenario.agent(llm))
    for _ in range(CALLS):
        scenario.run(conversation)
    scenario.check()
    assert scenario.cost_of(conversation, openhands__llm__role="agent") == pytest.approx(
        scenario.bill().total, abs=EXACT
    )
    known = {"gen_ai__request__model": "gpt-4o", "gen_ai__provider__name": "openai"}
    assert scenario.fleet("openhands.llm.calls", **known) == len(scenario.server.bill.entries)
    assert scenario.fleet("openhands.llm.cost", gen_ai__provider__name=UNKNOWN) == 0


def test_a_router_and_a_test_llm_work_as_before(scenario: Scenario) -> None:
    """A router's call is the routed LLM's; one that plays a script is a call that costs nothing."""
    router = needs("openhands.sdk.llm.router.base", "RouterLLM")

    class Cheapest(router):  # type: ignore[misc]
        def select_llm(self, messages: Any) -> str:
            return "cheap"

    scenario.script("cheap", lambda request: said())
    inner = scenario.llm("cheap", model="gpt-4o-mini", usage_id="cheap")
    llm = Cheapest(model="router", usage_id="router", llms_for_routing={"cheap": inner})
    events: list[Any] = []
    unsubscribe = subscribe(events.append, kinds=(LLMCallStarted, LLMCallEnded))
    try:
        ask(llm, "completion")
        assert [event.origin.model for event in events] == ["gpt-4o-mini", "gpt-4o-mini"]
        events.clear()
        test_llm = needs("openhands.sdk.testing", "TestLLM")
        from openhands.sdk import Message, TextContent

        answer = Message(role="assistant", content=[TextContent(text="Played.")])
        assert ask(test_llm.from_messages([answer]), "completion").message.content[0].text == "Played."
        assert [type(event) for event in events] == [LLMCallStarted, LLMCallEnded]
    finally:
        unsubscribe()
