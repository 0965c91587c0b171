"""Where OpenHands' own total is wrong, ours is right, says by how much they differ, and names the reason."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from openhands_otel.events import ConversationOpened
from openhands_otel.testing import capture

from .scenario import EXACT, Scenario, called, needs, said
from .test_children import agent_with_task_tool

REASON = "openhands.reconciliation.reason"


def difference(scenario: Scenario, conversation: Any) -> tuple[float, str]:
    """(our total less OpenHands' own, reasons) as exported for one conversation."""
    scenario.settle()
    found = [
        point
        for point in scenario.facts("openhands.conversation.unreconciled_cost")
        if point.attributes["gen_ai.conversation.id"] == str(conversation.id)
    ]
    assert len(found) == 1
    return found[0].value, str(found[0].attributes.get(REASON, ""))


def own_total(conversation: Any) -> float:
    return conversation.conversation_stats.get_combined_metrics().accumulated_cost


def test_totals_that_agree_need_no_reason(scenario: Scenario) -> None:
    conversation = scenario.conversation(scenario.llm("main"))
    scenario.run(conversation)
    assert difference(scenario, conversation) == (pytest.approx(0.0, abs=EXACT), "")


def test_sub_agents_are_in_the_parents_own_total(scenario: Scenario) -> None:
    agent = agent_with_task_tool(scenario, "reconciled-child")
    task = {"prompt": "do it", "subagent_type": "reconciled-child", "description": "a task"}
    scenario.script("main", [called("task", task), said()])
    conversation = scenario.conversation(agent)
    scenario.run(conversation)
    value, reasons = difference(scenario, conversation)
    assert value == pytest.approx(-scenario.bill("child").total, abs=EXACT)
    assert reasons == "subagents"
    assert own_total(conversation) == pytest.approx(scenario.cost_of(conversation) - value, abs=EXACT)


def test_two_conversations_with_one_llm_each_show_both(scenario: Scenario) -> None:
    llm = scenario.llm("main")
    first, second = scenario.conversation(llm), scenario.conversation(llm)
    scenario.run(first)
    scenario.run(second)
    value, reasons = difference(scenario, second)
    if value == 0:
        pytest.skip("this release of OpenHands gives each conversation a meter of its own")
    assert value == pytest.approx(-scenario.bill().total / 2, abs=EXACT)
    assert "shared_meter" in reasons


def test_a_title_with_an_llm_of_its_own_is_not_in_openhands_total(scenario: Scenario) -> None:
    conversation = scenario.conversation(scenario.llm("main"))
    scenario.run(conversation)
    conversation.generate_title(llm=scenario.llm("title", usage_id="title"))
    scenario.run(conversation, "go on")
    value, reasons = difference(scenario, conversation)
    assert value == pytest.approx(scenario.bill("title").total, abs=EXACT)
    assert reasons == "unregistered_llm"


def test_resume_then_ask_agent_doubles_openhands_total(scenario: Scenario) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.ask_agent")
    folder, identity = str(scenario.folder / "persisted"), uuid.uuid4()
    first = scenario.conversation(scenario.llm("main"), persistence_dir=folder, conversation_id=identity)
    scenario.run(first)
    first.close()
    second = scenario.conversation(scenario.llm("main"), persistence_dir=folder, conversation_id=identity)
    scenario.run(second, "and again")
    second.ask_agent("How far are you?")
    scenario.run(second, "and again")
    value, reasons = difference(scenario, second)
    if abs(value) < EXACT:
        pytest.skip("this release of OpenHands gets a resume and ask_agent right")
    assert value == pytest.approx(scenario.bill().total - own_total(second), abs=EXACT)
    assert "meter_twice" in reasons or "stale_meter" in reasons


def test_what_an_llm_spent_elsewhere_is_not_what_a_new_conversation_had_spent(scenario: Scenario) -> None:
    llm = scenario.llm("main")
    scenario.run(scenario.conversation(llm))
    scenario.conversation(llm)
    scenario.settle()
    assert scenario.receiver.points("openhands.conversation.restored_cost") == []


def test_what_was_spent_before_is_shown_apart(scenario: Scenario) -> None:
    folder, identity = str(scenario.folder / "persisted"), uuid.uuid4()
    first = scenario.conversation(scenario.llm("main"), persistence_dir=folder, conversation_id=identity)
    scenario.run(first)
    first.close()
    spent = scenario.bill().total
    with capture() as opening:
        second = scenario.conversation(scenario.llm("main"), persistence_dir=folder, conversation_id=identity)
    (event,) = opening.of(ConversationOpened)
    if event.restored_cost == 0:
        pytest.skip("this release of OpenHands forgets what a resumed conversation had spent")
    assert event.restored_cost == pytest.approx(spent, abs=EXACT)
    scenario.run(second, "and again")
    scenario.check()
    assert scenario.cost_of(identity) == pytest.approx(scenario.bill().total, abs=EXACT)
