"""Where OpenHands' own total is wrong, ours is right, says by how much they differ, and names the reason."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from openhands_otel.events import ConversationOpened, RunEnded

from .test_children import agent_with_task_tool
from .world import EXACT, World, called, needs, said

REASON = "openhands.reconciliation.reason"


def difference(world: World, conversation: Any) -> tuple[float, str]:
    """(our total less OpenHands' own, reasons) as exported for one conversation."""
    world.settle()
    found = [
        point
        for point in world.facts("openhands.conversation.unreconciled_cost")
        if point.attributes["gen_ai.conversation.id"] == str(conversation.id)
    ]
    assert len(found) == 1
    return found[0].value, str(found[0].attributes.get(REASON, ""))


def own_total(conversation: Any) -> float:
    return conversation.conversation_stats.get_combined_metrics().accumulated_cost


def test_totals_that_agree_need_no_reason(world: World) -> None:
    conversation = world.conversation(world.llm("main"))
    world.run(conversation)
    assert difference(world, conversation) == (pytest.approx(0.0, abs=EXACT), "")


def test_sub_agents_are_in_the_parents_own_total(world: World) -> None:
    agent = agent_with_task_tool(world, "reconciled-child")
    task = {"prompt": "do it", "subagent_type": "reconciled-child", "description": "a task"}
    world.script("main", [called("task", task), said()])
    conversation = world.conversation(agent)
    world.run(conversation)
    value, reasons = difference(world, conversation)
    assert value == pytest.approx(-world.bill("child").total, abs=EXACT)
    assert reasons == "subagents"
    assert own_total(conversation) == pytest.approx(world.cost_of(conversation) - value, abs=EXACT)


def test_two_conversations_with_one_llm_each_show_both(world: World) -> None:
    llm = world.llm("main")
    first, second = world.conversation(llm), world.conversation(llm)
    world.run(first)
    world.run(second)
    value, reasons = difference(world, second)
    if value == 0:
        pytest.skip("this release of OpenHands gives each conversation a meter of its own")
    assert value == pytest.approx(-world.bill().total / 2, abs=EXACT)
    assert "shared_meter" in reasons


def test_a_title_with_an_llm_of_its_own_is_not_in_openhands_total(world: World) -> None:
    conversation = world.conversation(world.llm("main"))
    world.run(conversation)
    conversation.generate_title(llm=world.llm("title", usage_id="title"))
    world.run(conversation, "go on")
    value, reasons = difference(world, conversation)
    assert value == pytest.approx(world.bill("title").total, abs=EXACT)
    assert reasons == "unregistered_llm"


def test_resume_then_ask_agent_doubles_openhands_total(world: World) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.ask_agent")
    folder, identity = str(world.folder / "persisted"), uuid.uuid4()
    first = world.conversation(world.llm("main"), persistence_dir=folder, conversation_id=identity)
    world.run(first)
    first.close()
    second = world.conversation(world.llm("main"), persistence_dir=folder, conversation_id=identity)
    world.run(second, "and again")
    second.ask_agent("How far are you?")
    world.run(second, "and again")
    value, reasons = difference(world, second)
    if abs(value) < EXACT:
        pytest.skip("this release of OpenHands gets a resume and ask_agent right")
    assert value == pytest.approx(world.bill().total - own_total(second), abs=EXACT)
    assert "meter_twice" in reasons or "stale_meter" in reasons


def test_what_an_llm_spent_elsewhere_is_not_what_a_new_conversation_had_spent(world: World) -> None:
    llm = world.llm("main")
    world.run(world.conversation(llm))
    world.conversation(llm)
    world.settle()
    assert world.receiver.points("openhands.conversation.restored_cost") == []


def test_what_was_spent_before_is_shown_apart(world: World) -> None:
    from openhands_otel import subscribe

    folder, identity = str(world.folder / "persisted"), uuid.uuid4()
    first = world.conversation(world.llm("main"), persistence_dir=folder, conversation_id=identity)
    world.run(first)
    first.close()
    spent = world.bill().total
    opened: list[Any] = []
    unsubscribe = subscribe(opened.append, kinds=(ConversationOpened, RunEnded))
    second = world.conversation(world.llm("main"), persistence_dir=folder, conversation_id=identity)
    unsubscribe()
    (event,) = opened
    if event.restored_cost == 0:
        pytest.skip("this release of OpenHands forgets what a resumed conversation had spent")
    assert event.restored_cost == pytest.approx(spent, abs=EXACT)
    world.run(second, "and again")
    world.check()
    assert world.cost_of(identity) == pytest.approx(world.bill().total, abs=EXACT)
