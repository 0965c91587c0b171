"""Every way in which OpenHands spends: the counters equal the provider's bill, and each part has its right share."""

from __future__ import annotations

import asyncio
import threading
import uuid
from typing import Any

import pytest

from openhands_otel._internal.demo.answers import Answer, Usage, refuse

from .scenario import COST, EXACT, Scenario, called, needs, said


def test_one_conversation(scenario: Scenario) -> None:
    scenario.script("main", [called("think", {"thought": "hm"}), said()])
    conversation = scenario.conversation(scenario.llm("main"))
    scenario.run(conversation)
    scenario.check()
    assert scenario.cost_of(conversation) == pytest.approx(scenario.bill().total, abs=EXACT)
    assert scenario.fleet(openhands__llm__role="agent", gen_ai__request__model="gpt-4o") == scenario.fleet()


def test_tokens_of_every_kind(scenario: Scenario) -> None:
    # The provider names the price: litellm's releases price reasoning and cached tokens differently.
    scenario.script("main", [said(cached=512, reasoning=20, cost=0.0123)])
    scenario.run(scenario.conversation(scenario.llm("main")))
    scenario.check()


def test_two_conversations_with_llms_of_their_own(scenario: Scenario) -> None:
    first = scenario.conversation(scenario.llm("first", usage_id="first"))
    second = scenario.conversation(scenario.llm("second", model="gpt-4o-mini", usage_id="second"))
    for each in (first, second, first):
        scenario.run(each)
    scenario.check()
    assert scenario.cost_of(first) == pytest.approx(scenario.bill("first").total, abs=EXACT)
    assert scenario.cost_of(second) == pytest.approx(scenario.bill("second").total, abs=EXACT)
    assert scenario.fleet(gen_ai__request__model="gpt-4o-mini") == pytest.approx(
        scenario.bill("second").total, abs=EXACT
    )


def test_two_conversations_that_share_one_llm(scenario: Scenario) -> None:
    llm = scenario.llm("main")
    first, second = scenario.conversation(llm), scenario.conversation(llm)
    scenario.run(first)
    scenario.run(second)
    scenario.run(second)
    scenario.check()
    assert scenario.cost_of(first) == pytest.approx(scenario.bill().total / 3, abs=EXACT)
    assert scenario.cost_of(second) == pytest.approx(scenario.bill().total * 2 / 3, abs=EXACT)


def thinking(steps: int) -> Any:
    """A script that thinks ``steps`` different thoughts a run, then is done."""
    return lambda request: (
        called("think", {"thought": f"number {request.number}"}) if request.turn % (steps + 1) < steps else said()
    )


def condenser_for(llm: Any) -> Any:
    from openhands.sdk.context.condenser import LLMSummarizingCondenser

    return LLMSummarizingCondenser(llm=llm, max_size=10, keep_first=2)


def test_the_condenser_has_its_own_share(scenario: Scenario) -> None:
    scenario.script("main", thinking(8))
    agent = scenario.agent(
        scenario.llm("main"), condenser=condenser_for(scenario.llm("condenser", usage_id="condenser"))
    )
    conversation = scenario.conversation(agent)
    scenario.run(conversation)
    scenario.check()
    assert len(scenario.bill("condenser").entries) > 0
    share = scenario.fleet(openhands__llm__role="condenser")
    assert share == pytest.approx(scenario.bill("condenser").total, abs=EXACT)
    assert scenario.cost_of(conversation) == pytest.approx(scenario.bill().total, abs=EXACT)


def test_a_condenser_made_by_model_copy_is_not_counted_twice(scenario: Scenario) -> None:
    scenario.script("main", thinking(8))
    llm = scenario.llm("main")
    agent = scenario.agent(llm, condenser=condenser_for(llm.model_copy(update={"usage_id": "condenser"})))
    conversation = scenario.conversation(agent)
    scenario.run(conversation)
    scenario.check()
    assert scenario.fleet(openhands__llm__role="condenser") > 0


@pytest.mark.parametrize("how", ["run", "arun"])
def test_a_condenser_that_the_application_wrote(scenario: Scenario, how: str) -> None:
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

    condenser = OwnCondenser(llm=scenario.llm("condenser", usage_id="summary"))
    conversation = scenario.conversation(scenario.agent(scenario.llm("main"), condenser=condenser))
    conversation.send_message("hello")
    if how == "arun":
        asyncio.run(conversation.arun())
    else:
        conversation.run()
    scenario.check()
    assert len(scenario.bill("condenser").entries) == 1
    share = scenario.cost_of(conversation, openhands__llm__role="condenser")
    assert share == pytest.approx(scenario.bill("condenser").total, abs=EXACT)
    share = scenario.cost_of(conversation, openhands__llm__role="agent")
    assert share == pytest.approx(scenario.bill("main").total, abs=EXACT)


def test_condense_on_request(scenario: Scenario) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.condense")
    scenario.script("main", [called("think", {"thought": "x"}), called("think", {"thought": "y"}), said()])
    agent = scenario.agent(
        scenario.llm("main"), condenser=condenser_for(scenario.llm("condenser", usage_id="condenser"))
    )
    conversation = scenario.conversation(agent)
    scenario.run(conversation)
    conversation.condense()
    scenario.check()
    share = scenario.cost_of(conversation, openhands__llm__role="condenser")
    assert share == pytest.approx(scenario.bill("condenser").total, abs=EXACT)
    assert share > 0


def test_ask_agent(scenario: Scenario) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.ask_agent")
    conversation = scenario.conversation(scenario.llm("main"))
    scenario.run(conversation)
    before = scenario.bill().total
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(conversation.ask_agent("How far are you?")))
    thread.start()
    thread.join(100)
    scenario.check()
    assert answers == ["Done."]
    share = scenario.cost_of(conversation, openhands__llm__role="ask_agent")
    assert share == pytest.approx(scenario.bill().total - before, abs=EXACT)


@pytest.mark.parametrize("own_llm", [False, True])
def test_a_title(scenario: Scenario, own_llm: bool) -> None:
    conversation = scenario.conversation(scenario.llm("main"))
    scenario.run(conversation)
    before = scenario.bill().total
    conversation.generate_title(**({"llm": scenario.llm("title", usage_id="title")} if own_llm else {}))
    scenario.check()
    share = scenario.cost_of(conversation, openhands__llm__role="title")
    assert share == pytest.approx(scenario.bill().total - before, abs=EXACT)
    assert share > 0


def test_resume_in_another_conversation_object_counts_only_what_is_new(scenario: Scenario) -> None:
    folder = str(scenario.folder / "persisted")
    identity = uuid.uuid4()
    first = scenario.conversation(scenario.llm("main"), persistence_dir=folder, conversation_id=identity)
    scenario.run(first)
    first.close()
    second = scenario.conversation(scenario.llm("main"), persistence_dir=folder, conversation_id=identity)
    scenario.run(second, "and again")
    scenario.check()
    assert scenario.cost_of(identity) == pytest.approx(scenario.bill().total, abs=EXACT)


def test_resume_then_ask_agent(scenario: Scenario) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.ask_agent")
    folder = str(scenario.folder / "persisted")
    identity = uuid.uuid4()
    first = scenario.conversation(scenario.llm("main"), persistence_dir=folder, conversation_id=identity)
    scenario.run(first)
    first.close()
    second = scenario.conversation(scenario.llm("main"), persistence_dir=folder, conversation_id=identity)
    scenario.run(second, "and again")
    second.ask_agent("How far are you?")
    scenario.check()


@pytest.mark.parametrize("reset_metrics", [False, True])
def test_a_fork_counts_only_its_own_spend(scenario: Scenario, reset_metrics: bool) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.fork")
    source = scenario.conversation(scenario.llm("main"))
    scenario.run(source)
    spent = scenario.bill().total
    fork = source.fork(reset_metrics=reset_metrics)
    scenario.run(fork, "another way")
    scenario.check()
    assert scenario.cost_of(source) == pytest.approx(spent, abs=EXACT)
    assert scenario.cost_of(fork) == pytest.approx(scenario.bill().total - spent, abs=EXACT)
    restored = [point.value for point in scenario.facts("openhands.conversation.restored_cost")]
    assert restored == ([] if reset_metrics else [pytest.approx(spent, abs=EXACT)])
    assert scenario.fleet(openhands__llm__role="agent") == pytest.approx(scenario.fleet(), abs=EXACT)
    fork.close()


def test_switch_llm(scenario: Scenario) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.switch_llm")
    conversation = scenario.conversation(scenario.llm("main"))
    scenario.run(conversation)
    conversation.switch_llm(scenario.llm("other", model="gpt-4o-mini", usage_id="other"))
    scenario.run(conversation, "go on")
    scenario.check()
    assert scenario.fleet(gen_ai__request__model="gpt-4o") == pytest.approx(scenario.bill("main").total, abs=EXACT)
    assert scenario.fleet(gen_ai__request__model="gpt-4o-mini") == pytest.approx(
        scenario.bill("other").total, abs=EXACT
    )
    assert scenario.bill("other").total > 0


def test_switch_llm_then_its_rebuilt_condenser(scenario: Scenario) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.switch_llm")
    scenario.script("other", thinking(8))
    llm = scenario.llm("main")
    agent = scenario.agent(llm, condenser=condenser_for(llm.model_copy(update={"usage_id": "condenser"})))
    conversation = scenario.conversation(agent)
    scenario.run(conversation)
    conversation.switch_llm(scenario.llm("other", model="gpt-4o-mini", usage_id="other"))
    scenario.run(conversation, "go on")
    scenario.check()
    assert scenario.fleet(openhands__llm__role="condenser") > 0
    assert scenario.cost_of(conversation) == pytest.approx(scenario.bill().total, abs=EXACT)


def test_a_billed_answer_without_choices_is_counted_and_retried(scenario: Scenario) -> None:
    empty = Answer(empty=True, usage=Usage(input=500, output=1))
    scenario.script("main", [empty, empty, said()])
    conversation = scenario.conversation(scenario.llm("main", num_retries=4))
    scenario.run(conversation)
    scenario.check_what_the_sdk_saw(conversation)


def test_refused_requests_cost_nothing(scenario: Scenario) -> None:
    scenario.script("main", [refuse(429), refuse(500), said()])
    conversation = scenario.conversation(scenario.llm("main", num_retries=4))
    scenario.run(conversation)
    scenario.check()


def fallback(scenario: Scenario, conversation_of: Any) -> Any:
    """An agent whose LLM always fails and falls back to a profile."""
    strategy = needs("openhands.sdk.llm.fallback_strategy", "FallbackStrategy")
    store = needs("openhands.sdk.llm.llm_profile_store", "LLMProfileStore")
    profiles = scenario.folder / "profiles"
    profiles.mkdir(exist_ok=True)
    store(profiles).save("spare", scenario.llm("spare", model="gpt-4o-mini", usage_id="spare"), include_secrets=True)
    scenario.script("main", lambda request: refuse(503))
    primary = scenario.llm(
        "main", fallback_strategy=strategy(fallback_llms=["spare"], profile_store_dir=str(profiles)), num_retries=1
    )
    return conversation_of(primary)


def test_a_fallback_llm(scenario: Scenario) -> None:
    conversation = fallback(scenario, scenario.conversation)
    scenario.run(conversation)
    scenario.check()
    assert scenario.bill("spare").total > 0
    share = scenario.fleet(openhands__llm__fallback=True, openhands__llm__role="agent")
    assert share == pytest.approx(scenario.bill("spare").total, abs=EXACT)
    assert scenario.cost_of(conversation) == pytest.approx(scenario.bill().total, abs=EXACT)


def test_a_fallback_llm_of_an_async_run(scenario: Scenario) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.arun")
    conversation = fallback(scenario, scenario.conversation)
    conversation.send_message("hello")
    asyncio.run(conversation.arun())
    scenario.check()
    assert scenario.bill("spare").total > 0
    share = scenario.fleet(openhands__llm__fallback=True, openhands__llm__role="agent")
    assert share == pytest.approx(scenario.bill("spare").total, abs=EXACT)
    assert scenario.cost_of(conversation) == pytest.approx(scenario.bill().total, abs=EXACT)


def test_a_fallback_that_is_billed_and_fails(scenario: Scenario) -> None:
    conversation = fallback(scenario, scenario.conversation)
    scenario.script("spare", lambda request: Answer(empty=True, usage=Usage(input=500, output=1)))
    with pytest.raises(Exception):  # noqa: B017, PT011
        scenario.run(conversation)
    scenario.check_what_the_sdk_saw(conversation)


def test_an_async_run(scenario: Scenario) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.arun")
    scenario.script("main", thinking(1))
    conversations = [scenario.conversation(scenario.llm("main", usage_id=f"llm-{n}")) for n in range(3)]

    async def all_at_once() -> None:
        for each in conversations:
            each.send_message("hello")
        await asyncio.gather(*(each.arun() for each in conversations))

    asyncio.run(all_at_once())
    scenario.check()
    for each in conversations:
        own = scenario.server.bill.of_session(str(each.id)).total
        assert own > 0
        assert scenario.cost_of(each) == pytest.approx(own, abs=EXACT)


def test_streaming(scenario: Scenario) -> None:
    llm = scenario.llm("main", stream=True)
    if "stream" not in type(llm).model_fields:
        pytest.skip("this release of OpenHands does not stream")
    chunks: list[Any] = []
    conversation = scenario.conversation(llm, token_callbacks=[chunks.append])
    scenario.run(conversation)
    assert chunks
    scenario.check_what_the_sdk_saw(conversation)


def test_the_responses_api(scenario: Scenario) -> None:
    from openhands.sdk import Message, TextContent

    llm = scenario.llm("main")
    message = Message(role="user", content=[TextContent(text="hello")])
    llm.responses([message])
    scenario.check()
    assert scenario.fleet(openhands__llm__role="other") == scenario.fleet()


def test_calls_of_no_conversation_are_counted_as_such(scenario: Scenario) -> None:
    from openhands.sdk import Message, TextContent

    bystander = scenario.conversation(scenario.llm("bystander"))
    scenario.run(bystander)
    scenario.llm("profile").completion([Message(role="user", content=[TextContent(text="ping")])])
    scenario.check()
    assert scenario.fleet(openhands__llm__role="other") == pytest.approx(scenario.bill("profile").total, abs=EXACT)
    assert scenario.cost_of(bystander) == pytest.approx(scenario.bill("bystander").total, abs=EXACT)


def test_two_threads_on_one_llm(scenario: Scenario) -> None:
    llm = scenario.llm("main")
    conversations = [scenario.conversation(llm) for _ in range(4)]
    threads = [threading.Thread(target=scenario.run, args=(each,)) for each in conversations for _ in range(1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    scenario.check()
    for each in conversations:
        assert scenario.cost_of(each) == pytest.approx(scenario.bill().total / 4, abs=EXACT)


def test_custom_prices_and_the_providers_own(scenario: Scenario) -> None:
    custom = scenario.conversation(
        scenario.llm("custom", usage_id="custom", input_cost_per_token=0.01, output_cost_per_token=0.02)
    )
    named = scenario.conversation(scenario.llm("named", usage_id="named"))
    scenario.script("named", lambda request: said(cost=1.25))
    scenario.run(custom)
    scenario.run(named)
    scenario.settle()
    assert scenario.fleet(openhands__cost__source="custom") == pytest.approx(1000 * 0.01 + 50 * 0.02, abs=EXACT)
    assert scenario.fleet(openhands__cost__source="provider") == pytest.approx(1.25, abs=EXACT)


def test_a_call_without_a_price_shows_as_unpriced(scenario: Scenario) -> None:
    conversation = scenario.conversation(scenario.llm("main", model="no-such-model-1"))
    with pytest.warns(UserWarning, match="Cost calculation failed"):
        scenario.run(conversation)
    scenario.settle()
    assert scenario.receiver.streams(COST) == {}
    assert scenario.fleet("openhands.llm.unpriced_calls", gen_ai__request__model="no-such-model-1") == 1
    assert scenario.fleet("gen_ai.client.inference.usage.input_tokens") == 1000


def test_what_a_cache_saves(scenario: Scenario) -> None:
    import litellm

    scenario.script("main", lambda request: said(cached=800))
    scenario.run(scenario.conversation(scenario.llm("main")))
    scenario.settle()
    prices = litellm.model_cost["gpt-4o"]
    saved = 800 * (prices["input_cost_per_token"] - prices["cache_read_input_token_cost"])
    assert scenario.fleet("openhands.llm.cache_savings") == pytest.approx(saved, abs=EXACT)
