"""ACP agents, whose model calls happen in a program of their own: what they report is counted once, and right."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from openhands_otel import OpenHandsInstrumentor

from .scenario import EXACT, Scenario, needs

STUB = Path(__file__).parent / "acp_stub.py"
MODEL = "gpt-4o"


def turn(cost: float | None, prompt: int = 100, output: int = 10, cached: int = 40, currency: str = "USD") -> Any:
    """One scripted turn; ``cost`` is cumulative."""
    return {"cost": cost, "input": prompt, "output": output, "cached": cached, "currency": currency}


ESTIMATE = 100 * 2.5e-6 + 10 * 1e-5
"""What OpenHands estimates for a turn, by litellm's prices of the model: cached tokens left out."""


def acp_agent(scenario: Scenario, turns: list[Any], model: str | None = MODEL, session_model: str | None = None) -> Any:
    """``model`` is what OpenHands was told to set, ``session_model`` what the agent says that its session has."""
    agent = needs("openhands.sdk.agent.acp_agent", "ACPAgent")
    script = scenario.folder / "turns.json"
    script.write_text(json.dumps(turns))
    command = [sys.executable, str(STUB), str(script), *([] if session_model is None else [session_model])]
    options = {"acp_command": command, "acp_model": model}
    return agent(**{name: value for name, value in options.items() if name in agent.model_fields})


@pytest.mark.parametrize(
    ("cumulative", "spent"),
    [
        pytest.param([0.10, 0.25], 0.25, id="growing"),
        pytest.param([0.10, 0.10, 0.25], 0.25, id="stalled: a turn that cost nothing is not estimated"),
        pytest.param([0.10, 0.04, 0.06], 0.16, id="restarted: from zero again"),
    ],
)
def test_what_an_agent_reports(scenario: Scenario, cumulative: list[float], spent: float) -> None:
    conversation = scenario.conversation(acp_agent(scenario, [turn(cost) for cost in cumulative]))
    for number in range(len(cumulative)):
        scenario.run(conversation, f"turn {number}")
    scenario.settle()
    assert scenario.fleet(openhands__llm__role="acp") == pytest.approx(spent, abs=EXACT)
    assert scenario.fleet(openhands__cost__source="acp_reported") == pytest.approx(spent, abs=EXACT)
    assert scenario.cost_of(conversation) == pytest.approx(spent, abs=EXACT)
    turns = len(cumulative)
    assert scenario.fleet("gen_ai.client.inference.usage.input_tokens") == 140 * turns
    assert scenario.fleet("gen_ai.client.inference.usage.cache_read.input_tokens") == 40 * turns
    assert scenario.fleet("gen_ai.client.inference.usage.output_tokens") == 10 * turns


def test_an_agent_that_reports_no_cost_is_estimated(scenario: Scenario) -> None:
    conversation = scenario.conversation(acp_agent(scenario, [turn(None)]))
    scenario.run(conversation)
    scenario.settle()
    assert scenario.fleet(openhands__cost__source="acp_estimated") == pytest.approx(ESTIMATE, abs=EXACT)


def test_a_report_in_another_currency_is_no_dollars(scenario: Scenario) -> None:
    conversation = scenario.conversation(acp_agent(scenario, [turn(0.10, currency="EUR")]))
    scenario.run(conversation)
    scenario.settle()
    assert scenario.fleet() == 0
    assert scenario.fleet("openhands.llm.unpriced_calls") == 1


def test_a_session_that_goes_on_in_a_new_process_of_the_agent_is_not_counted_again(scenario: Scenario) -> None:
    agent = acp_agent(scenario, [turn(0.10), turn(0.25), turn(0.30)])
    folder, identity = str(scenario.folder / "persisted"), uuid.uuid4()
    first = scenario.conversation(agent, persistence_dir=folder, conversation_id=identity)
    scenario.run(first)
    scenario.run(first)
    first.close()
    again = type(agent).model_validate(agent.model_dump(context={"expose_secrets": True}))
    second = scenario.conversation(again, persistence_dir=folder, conversation_id=identity)
    scenario.run(second)
    resumed = getattr(second.agent, "_resumed_existing_session", None)
    if resumed is None:
        pytest.skip("this release of OpenHands starts a new ACP session when it resumes")
    assert resumed
    scenario.settle()
    assert scenario.fleet() == pytest.approx(0.30, abs=EXACT)


def test_ask_agent_of_an_acp_agent(scenario: Scenario) -> None:
    conversation = scenario.conversation(acp_agent(scenario, [turn(0.10), turn(0.02)]))
    scenario.run(conversation)
    conversation.ask_agent("how far?")
    scenario.settle()
    # OpenHands drops what the forked session reports, and estimates.
    assert scenario.cost_of(conversation) == pytest.approx(0.10 + ESTIMATE, abs=EXACT)
    assert scenario.cost_of(conversation, openhands__llm__role="ask_agent") == pytest.approx(ESTIMATE, abs=EXACT)


@pytest.mark.parametrize(
    ("cumulative", "spent", "reported"),
    [
        pytest.param([0.5, None, 0.9], 0.9, 0.9 - ESTIMATE, id="missing in between"),
        pytest.param([None, 0.9, 1.2], 1.2, 1.2 - ESTIMATE, id="late, then growing"),
        pytest.param([None, 0.0001, None], 0.0001 + ESTIMATE, 0.0, id="and carried against an estimate, too"),
    ],
)
def test_an_estimate_stands_in_until_the_report_comes(
    scenario: Scenario, cumulative: list[float | None], spent: float, reported: float
) -> None:
    """Kind: two sources that say the same dollar, added up. The total is the larger of the report and of what was said
    before it, and what OpenHands says too much has a reason."""
    conversation = scenario.conversation(acp_agent(scenario, [turn(cost) for cost in cumulative]))
    for number in range(len(cumulative)):
        scenario.run(conversation, f"turn {number}")
    scenario.settle()
    assert scenario.fleet() == pytest.approx(spent, abs=EXACT)
    assert scenario.fleet(openhands__cost__source="acp_reported") == pytest.approx(reported, abs=EXACT)
    assert scenario.cost_of(conversation) == pytest.approx(spent, abs=EXACT)
    own = conversation.conversation_stats.get_combined_metrics().accumulated_cost
    (difference,) = scenario.facts("openhands.conversation.unreconciled_cost")
    assert difference.value == pytest.approx(spent - own, abs=EXACT)
    reason = str(difference.attributes.get("openhands.reconciliation.reason", ""))
    assert reason == ("" if abs(spent - own) < EXACT else "acp_report")


def test_a_report_in_dollars_covers_the_turns_before_it_whatever_they_said(scenario: Scenario) -> None:
    script = [turn(0.5), turn(0.55, currency="EUR"), turn(None), turn(0.9)]
    conversation = scenario.conversation(acp_agent(scenario, script))
    for number in range(len(script)):
        scenario.run(conversation, f"turn {number}")
    scenario.settle()
    assert scenario.fleet() == pytest.approx(0.9, abs=EXACT)
    assert scenario.fleet("openhands.llm.unpriced_calls") == 1


@pytest.mark.parametrize(
    ("before", "after", "spent"),
    [
        pytest.param([None, 0.9], [1.2], 0.3, id="OpenHands' own total is too high"),
        pytest.param([0.5, 0.9], [0.2, 0.3], 0.3, id="from zero again"),
    ],
)
def test_a_session_resumed_elsewhere_goes_on_where_it_stopped(
    scenario: Scenario, before: list[float | None], after: list[float | None], spent: float
) -> None:
    """Kind: OpenHands' total, which is wrong, taken for the truth. Nothing is remembered here of the first part."""
    agent = acp_agent(scenario, [turn(cost) for cost in (*before, *after)])
    folder, identity = str(scenario.folder / "persisted"), uuid.uuid4()
    first = scenario.conversation(agent, persistence_dir=folder, conversation_id=identity)
    for number in range(len(before)):
        scenario.run(first, f"turn {number}")
    first.close()
    scenario.settle()
    said = scenario.fleet()
    OpenHandsInstrumentor().uninstrument()
    OpenHandsInstrumentor().instrument()
    again = type(agent).model_validate(agent.model_dump(context={"expose_secrets": True}))
    second = scenario.conversation(again, persistence_dir=folder, conversation_id=identity)
    for number in range(len(after)):
        scenario.run(second, f"later turn {number}")
    if not getattr(second.agent, "_resumed_existing_session", False):
        pytest.skip("this release of OpenHands starts a new ACP session when it resumes")
    scenario.settle()
    assert scenario.fleet() - said == pytest.approx(spent, abs=EXACT)


FULL_ESTIMATE = ESTIMATE + 40 * 1.25e-6
"""By the same prices with the cached tokens, which cost half."""


@pytest.mark.parametrize("name", [MODEL, f"{MODEL}/high", f"{MODEL}[high]", MODEL.upper()])
def test_an_agent_that_names_its_model_and_no_cost_is_priced_by_that(scenario: Scenario, name: str) -> None:
    """Kind: an agent (Codex) that reports tokens and no cost, under a model that OpenHands did not set."""
    needs("openhands.sdk.agent.acp_agent", "ACPAgent.current_model_id")
    conversation = scenario.conversation(acp_agent(scenario, [turn(None), turn(None)], None, name))
    if getattr(conversation.agent, "current_model_id", None) is None:
        scenario.run(conversation)
        if conversation.agent.current_model_id is None:
            pytest.skip("this release of OpenHands does not read a session's options")
    else:
        scenario.run(conversation)
    scenario.run(conversation, "again")
    scenario.settle()
    assert scenario.fleet(openhands__cost__source="acp_estimated") == pytest.approx(2 * FULL_ESTIMATE, abs=EXACT)
    assert scenario.fleet(gen_ai__request__model=name) == pytest.approx(2 * FULL_ESTIMATE, abs=EXACT)
    assert scenario.fleet() == pytest.approx(2 * FULL_ESTIMATE, abs=EXACT)
    assert scenario.fleet("openhands.llm.unpriced_calls") == 0
    (difference,) = scenario.facts("openhands.conversation.unreconciled_cost")
    assert difference.attributes["openhands.reconciliation.reason"] == "acp_unpriced"


def test_a_report_covers_what_was_estimated_by_the_sessions_model(scenario: Scenario) -> None:
    needs("openhands.sdk.agent.acp_agent", "ACPAgent.current_model_id")
    conversation = scenario.conversation(acp_agent(scenario, [turn(None), turn(0.5)], None, MODEL))
    scenario.run(conversation)
    scenario.run(conversation, "again")
    scenario.settle()
    assert scenario.fleet() == pytest.approx(0.5, abs=EXACT)


def test_a_model_that_nobody_prices_or_names_is_unpriced_and_never_openhands_own(scenario: Scenario) -> None:
    needs("openhands.sdk.agent.acp_agent", "ACPAgent.current_model_id")
    agent = acp_agent(scenario, [turn(None)], None)
    agent.llm.model = "gpt-4o"
    scenario.run(scenario.conversation(agent))
    scenario.settle()
    assert scenario.fleet() == 0
    assert scenario.fleet("openhands.llm.unpriced_calls") == 1
    assert scenario.fleet("gen_ai.client.inference.usage.input_tokens", gen_ai__request__model="unknown") == 140
