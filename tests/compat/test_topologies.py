"""Every way in which OpenHands spends: the counters equal the provider's bill, and each part has its right share."""

from __future__ import annotations

import asyncio
import threading
import uuid
from typing import Any

import pytest

from openhands_otel._internal.demo.answers import Answer, Usage, refuse

from .world import COST, EXACT, World, called, needs, said


def test_one_conversation(world: World) -> None:
    world.script("main", [called("think", {"thought": "hm"}), said()])
    conversation = world.conversation(world.llm("main"))
    world.run(conversation)
    world.check()
    assert world.cost_of(conversation) == pytest.approx(world.bill().total, abs=EXACT)
    assert world.fleet(openhands__llm__role="agent", gen_ai__request__model="gpt-4o") == world.fleet()


def test_tokens_of_every_kind(world: World) -> None:
    # The provider names the price: litellm's releases price reasoning and cached tokens differently.
    world.script("main", [said(cached=512, reasoning=20, cost=0.0123)])
    world.run(world.conversation(world.llm("main")))
    world.check()


def test_two_conversations_with_llms_of_their_own(world: World) -> None:
    first = world.conversation(world.llm("first", usage_id="first"))
    second = world.conversation(world.llm("second", model="gpt-4o-mini", usage_id="second"))
    for each in (first, second, first):
        world.run(each)
    world.check()
    assert world.cost_of(first) == pytest.approx(world.bill("first").total, abs=EXACT)
    assert world.cost_of(second) == pytest.approx(world.bill("second").total, abs=EXACT)
    assert world.fleet(gen_ai__request__model="gpt-4o-mini") == pytest.approx(world.bill("second").total, abs=EXACT)


def test_two_conversations_that_share_one_llm(world: World) -> None:
    llm = world.llm("main")
    first, second = world.conversation(llm), world.conversation(llm)
    world.run(first)
    world.run(second)
    world.run(second)
    world.check()
    assert world.cost_of(first) == pytest.approx(world.bill().total / 3, abs=EXACT)
    assert world.cost_of(second) == pytest.approx(world.bill().total * 2 / 3, abs=EXACT)


def thinking(steps: int) -> Any:
    """A script that thinks ``steps`` different thoughts a run, then is done."""
    return lambda request: (
        called("think", {"thought": f"number {request.number}"}) if request.turn % (steps + 1) < steps else said()
    )


def condenser_for(llm: Any) -> Any:
    from openhands.sdk.context.condenser import LLMSummarizingCondenser

    return LLMSummarizingCondenser(llm=llm, max_size=10, keep_first=2)


def test_the_condenser_has_its_own_share(world: World) -> None:
    world.script("main", thinking(8))
    agent = world.agent(world.llm("main"), condenser=condenser_for(world.llm("condenser", usage_id="condenser")))
    conversation = world.conversation(agent)
    world.run(conversation)
    world.check()
    assert len(world.bill("condenser").entries) > 0
    share = world.fleet(openhands__llm__role="condenser")
    assert share == pytest.approx(world.bill("condenser").total, abs=EXACT)
    assert world.cost_of(conversation) == pytest.approx(world.bill().total, abs=EXACT)


def test_a_condenser_made_by_model_copy_is_not_counted_twice(world: World) -> None:
    world.script("main", thinking(8))
    llm = world.llm("main")
    agent = world.agent(llm, condenser=condenser_for(llm.model_copy(update={"usage_id": "condenser"})))
    conversation = world.conversation(agent)
    world.run(conversation)
    world.check()
    assert world.fleet(openhands__llm__role="condenser") > 0


@pytest.mark.parametrize("how", ["run", "arun"])
def test_a_condenser_that_the_application_wrote(world: World, how: str) -> None:
    needs("openhands.sdk.agent.agent", "prepare_llm_messages")
    from openhands.sdk import LLM, Message, TextContent
    from openhands.sdk.context.condenser.base import CondenserBase

    if how == "arun":
        needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.arun")

    class OwnCondenser(CondenserBase):
        llm: LLM

        def condense(self, view: Any, *args: Any, **kwargs: Any) -> Any:
            self.llm.completion([Message(role="user", content=[TextContent(text="Shorten this.")])])
            return view

    condenser = OwnCondenser(llm=world.llm("condenser", usage_id="summary"))
    conversation = world.conversation(world.agent(world.llm("main"), condenser=condenser))
    conversation.send_message("hello")
    if how == "arun":
        asyncio.run(conversation.arun())
    else:
        conversation.run()
    world.check()
    assert len(world.bill("condenser").entries) == 1
    share = world.cost_of(conversation, openhands__llm__role="condenser")
    assert share == pytest.approx(world.bill("condenser").total, abs=EXACT)
    share = world.cost_of(conversation, openhands__llm__role="agent")
    assert share == pytest.approx(world.bill("main").total, abs=EXACT)


def test_condense_on_request(world: World) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.condense")
    world.script("main", [called("think", {"thought": "x"}), called("think", {"thought": "y"}), said()])
    agent = world.agent(world.llm("main"), condenser=condenser_for(world.llm("condenser", usage_id="condenser")))
    conversation = world.conversation(agent)
    world.run(conversation)
    conversation.condense()
    world.check()
    share = world.cost_of(conversation, openhands__llm__role="condenser")
    assert share == pytest.approx(world.bill("condenser").total, abs=EXACT)
    assert share > 0


def test_ask_agent(world: World) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.ask_agent")
    conversation = world.conversation(world.llm("main"))
    world.run(conversation)
    before = world.bill().total
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(conversation.ask_agent("How far are you?")))
    thread.start()
    thread.join(100)
    world.check()
    assert answers == ["Done."]
    share = world.cost_of(conversation, openhands__llm__role="ask_agent")
    assert share == pytest.approx(world.bill().total - before, abs=EXACT)


@pytest.mark.parametrize("own_llm", [False, True])
def test_a_title(world: World, own_llm: bool) -> None:
    conversation = world.conversation(world.llm("main"))
    world.run(conversation)
    before = world.bill().total
    conversation.generate_title(**({"llm": world.llm("title", usage_id="title")} if own_llm else {}))
    world.check()
    share = world.cost_of(conversation, openhands__llm__role="title")
    assert share == pytest.approx(world.bill().total - before, abs=EXACT)
    assert share > 0


def test_resume_in_another_conversation_object_counts_only_what_is_new(world: World) -> None:
    folder = str(world.folder / "persisted")
    identity = uuid.uuid4()
    first = world.conversation(world.llm("main"), persistence_dir=folder, conversation_id=identity)
    world.run(first)
    first.close()
    second = world.conversation(world.llm("main"), persistence_dir=folder, conversation_id=identity)
    world.run(second, "and again")
    world.check()
    assert world.cost_of(identity) == pytest.approx(world.bill().total, abs=EXACT)


def test_resume_then_ask_agent(world: World) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.ask_agent")
    folder = str(world.folder / "persisted")
    identity = uuid.uuid4()
    first = world.conversation(world.llm("main"), persistence_dir=folder, conversation_id=identity)
    world.run(first)
    first.close()
    second = world.conversation(world.llm("main"), persistence_dir=folder, conversation_id=identity)
    world.run(second, "and again")
    second.ask_agent("How far are you?")
    world.check()


@pytest.mark.parametrize("reset_metrics", [False, True])
def test_a_fork_counts_only_its_own_spend(world: World, reset_metrics: bool) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.fork")
    source = world.conversation(world.llm("main"))
    world.run(source)
    spent = world.bill().total
    fork = source.fork(reset_metrics=reset_metrics)
    world.run(fork, "another way")
    world.check()
    assert world.cost_of(source) == pytest.approx(spent, abs=EXACT)
    assert world.cost_of(fork) == pytest.approx(world.bill().total - spent, abs=EXACT)
    restored = [point.value for point in world.facts("openhands.conversation.restored_cost")]
    assert restored == ([] if reset_metrics else [pytest.approx(spent, abs=EXACT)])
    assert world.fleet(openhands__llm__role="agent") == pytest.approx(world.fleet(), abs=EXACT)
    fork.close()


def test_switch_llm(world: World) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.switch_llm")
    conversation = world.conversation(world.llm("main"))
    world.run(conversation)
    conversation.switch_llm(world.llm("other", model="gpt-4o-mini", usage_id="other"))
    world.run(conversation, "go on")
    world.check()
    assert world.fleet(gen_ai__request__model="gpt-4o") == pytest.approx(world.bill("main").total, abs=EXACT)
    assert world.fleet(gen_ai__request__model="gpt-4o-mini") == pytest.approx(world.bill("other").total, abs=EXACT)
    assert world.bill("other").total > 0


def test_switch_llm_then_its_rebuilt_condenser(world: World) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.switch_llm")
    world.script("other", thinking(8))
    llm = world.llm("main")
    agent = world.agent(llm, condenser=condenser_for(llm.model_copy(update={"usage_id": "condenser"})))
    conversation = world.conversation(agent)
    world.run(conversation)
    conversation.switch_llm(world.llm("other", model="gpt-4o-mini", usage_id="other"))
    world.run(conversation, "go on")
    world.check()
    assert world.fleet(openhands__llm__role="condenser") > 0
    assert world.cost_of(conversation) == pytest.approx(world.bill().total, abs=EXACT)


def test_a_billed_answer_without_choices_is_counted_and_retried(world: World) -> None:
    empty = Answer(empty=True, usage=Usage(input=500, output=1))
    world.script("main", [empty, empty, said()])
    conversation = world.conversation(world.llm("main", num_retries=4))
    world.run(conversation)
    world.check_what_the_sdk_saw(conversation)


def test_refused_requests_cost_nothing(world: World) -> None:
    world.script("main", [refuse(429), refuse(500), said()])
    conversation = world.conversation(world.llm("main", num_retries=4))
    world.run(conversation)
    world.check()


def fallback(world: World, conversation_of: Any) -> Any:
    """An agent whose LLM always fails and falls back to a profile."""
    strategy = needs("openhands.sdk.llm.fallback_strategy", "FallbackStrategy")
    store = needs("openhands.sdk.llm.llm_profile_store", "LLMProfileStore")
    profiles = world.folder / "profiles"
    profiles.mkdir(exist_ok=True)
    store(profiles).save("spare", world.llm("spare", model="gpt-4o-mini", usage_id="spare"), include_secrets=True)
    world.script("main", lambda request: refuse(503))
    primary = world.llm(
        "main", fallback_strategy=strategy(fallback_llms=["spare"], profile_store_dir=str(profiles)), num_retries=1
    )
    return conversation_of(primary)


def test_a_fallback_llm(world: World) -> None:
    conversation = fallback(world, world.conversation)
    world.run(conversation)
    world.check()
    assert world.bill("spare").total > 0
    share = world.fleet(openhands__llm__fallback=True, openhands__llm__role="agent")
    assert share == pytest.approx(world.bill("spare").total, abs=EXACT)
    assert world.cost_of(conversation) == pytest.approx(world.bill().total, abs=EXACT)


def test_a_fallback_llm_of_an_async_run(world: World) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.arun")
    conversation = fallback(world, world.conversation)
    conversation.send_message("hello")
    asyncio.run(conversation.arun())
    world.check()
    assert world.bill("spare").total > 0
    share = world.fleet(openhands__llm__fallback=True, openhands__llm__role="agent")
    assert share == pytest.approx(world.bill("spare").total, abs=EXACT)
    assert world.cost_of(conversation) == pytest.approx(world.bill().total, abs=EXACT)


def test_a_fallback_that_is_billed_and_fails(world: World) -> None:
    conversation = fallback(world, world.conversation)
    world.script("spare", lambda request: Answer(empty=True, usage=Usage(input=500, output=1)))
    with pytest.raises(Exception):  # noqa: B017, PT011
        world.run(conversation)
    world.check_what_the_sdk_saw(conversation)


def test_an_async_run(world: World) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.arun")
    world.script("main", thinking(1))
    conversations = [world.conversation(world.llm("main", usage_id=f"llm-{n}")) for n in range(3)]

    async def all_at_once() -> None:
        for each in conversations:
            each.send_message("hello")
        await asyncio.gather(*(each.arun() for each in conversations))

    asyncio.run(all_at_once())
    world.check()
    for each in conversations:
        own = world.server.bill.of_session(str(each.id)).total
        assert own > 0
        assert world.cost_of(each) == pytest.approx(own, abs=EXACT)


def test_streaming(world: World) -> None:
    llm = world.llm("main", stream=True)
    if "stream" not in type(llm).model_fields:
        pytest.skip("this release of OpenHands does not stream")
    chunks: list[Any] = []
    conversation = world.conversation(llm, token_callbacks=[chunks.append])
    world.run(conversation)
    assert chunks
    world.check_what_the_sdk_saw(conversation)


def test_the_responses_api(world: World) -> None:
    from openhands.sdk import Message, TextContent

    llm = world.llm("main")
    message = Message(role="user", content=[TextContent(text="hello")])
    llm.responses([message])
    world.check()
    assert world.fleet(openhands__llm__role="other") == world.fleet()


def test_calls_of_no_conversation_are_counted_as_such(world: World) -> None:
    from openhands.sdk import Message, TextContent

    bystander = world.conversation(world.llm("bystander"))
    world.run(bystander)
    world.llm("profile").completion([Message(role="user", content=[TextContent(text="ping")])])
    world.check()
    assert world.fleet(openhands__llm__role="other") == pytest.approx(world.bill("profile").total, abs=EXACT)
    assert world.cost_of(bystander) == pytest.approx(world.bill("bystander").total, abs=EXACT)


def test_two_threads_on_one_llm(world: World) -> None:
    llm = world.llm("main")
    conversations = [world.conversation(llm) for _ in range(4)]
    threads = [threading.Thread(target=world.run, args=(each,)) for each in conversations for _ in range(1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    world.check()
    for each in conversations:
        assert world.cost_of(each) == pytest.approx(world.bill().total / 4, abs=EXACT)


def test_custom_prices_and_the_providers_own(world: World) -> None:
    custom = world.conversation(
        world.llm("custom", usage_id="custom", input_cost_per_token=0.01, output_cost_per_token=0.02)
    )
    named = world.conversation(world.llm("named", usage_id="named"))
    world.script("named", lambda request: said(cost=1.25))
    world.run(custom)
    world.run(named)
    world.settle()
    assert world.fleet(openhands__cost__source="custom") == pytest.approx(1000 * 0.01 + 50 * 0.02, abs=EXACT)
    assert world.fleet(openhands__cost__source="provider") == pytest.approx(1.25, abs=EXACT)


def test_a_call_without_a_price_shows_as_unpriced(world: World) -> None:
    conversation = world.conversation(world.llm("main", model="no-such-model-1"))
    with pytest.warns(UserWarning, match="Cost calculation failed"):
        world.run(conversation)
    world.settle()
    assert world.receiver.streams(COST) == {}
    assert world.fleet("openhands.llm.unpriced_calls", gen_ai__request__model="no-such-model-1") == 1
    assert world.fleet("gen_ai.client.inference.usage.input_tokens") == 1000


def test_what_a_cache_saves(world: World) -> None:
    import litellm

    world.script("main", lambda request: said(cached=800))
    world.run(world.conversation(world.llm("main")))
    world.settle()
    prices = litellm.model_cost["gpt-4o"]
    saved = 800 * (prices["input_cost_per_token"] - prices["cache_read_input_token_cost"])
    assert world.fleet("openhands.llm.cache_savings") == pytest.approx(saved, abs=EXACT)
