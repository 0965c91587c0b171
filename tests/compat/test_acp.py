"""ACP agents, whose model calls happen in a program of their own: what they report is counted once, and right."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from .world import EXACT, World, needs

STUB = Path(__file__).parent / "acp_stub.py"
MODEL = "gpt-4o"


def turn(cost: float | None, prompt: int = 100, output: int = 10, cached: int = 40, currency: str = "USD") -> Any:
    """One scripted turn; ``cost`` is cumulative."""
    return {"cost": cost, "input": prompt, "output": output, "cached": cached, "currency": currency}


def estimate() -> float:
    """What OpenHands estimates for a turn: cached tokens left out."""
    import litellm

    price = litellm.model_cost[MODEL]
    return 100 * price["input_cost_per_token"] + 10 * price["output_cost_per_token"]


def acp_agent(world: World, turns: list[Any]) -> Any:
    agent = needs("openhands.sdk.agent.acp_agent", "ACPAgent")
    script = world.folder / "turns.json"
    script.write_text(json.dumps(turns))
    options = {"acp_command": [sys.executable, str(STUB), str(script)], "acp_model": MODEL}
    return agent(**{name: value for name, value in options.items() if name in agent.model_fields})


@pytest.mark.parametrize(
    ("cumulative", "spent"),
    [
        pytest.param([0.10, 0.25], 0.25, id="growing"),
        pytest.param([0.10, 0.10, 0.25], 0.25, id="stalled: a turn that cost nothing is not estimated"),
        pytest.param([0.10, 0.04, 0.06], 0.16, id="restarted: from zero again"),
    ],
)
def test_what_an_agent_reports(world: World, cumulative: list[float], spent: float) -> None:
    conversation = world.conversation(acp_agent(world, [turn(cost) for cost in cumulative]))
    for number in range(len(cumulative)):
        world.run(conversation, f"turn {number}")
    world.settle()
    assert world.fleet(openhands__llm__role="acp") == pytest.approx(spent, abs=EXACT)
    assert world.fleet(openhands__cost__source="acp_reported") == pytest.approx(spent, abs=EXACT)
    assert world.cost_of(conversation) == pytest.approx(spent, abs=EXACT)
    turns = len(cumulative)
    assert world.fleet("gen_ai.client.inference.usage.input_tokens") == 140 * turns
    assert world.fleet("gen_ai.client.inference.usage.cache_read.input_tokens") == 40 * turns
    assert world.fleet("gen_ai.client.inference.usage.output_tokens") == 10 * turns


def test_an_agent_that_reports_no_cost_is_estimated(world: World) -> None:
    conversation = world.conversation(acp_agent(world, [turn(None)]))
    world.run(conversation)
    world.settle()
    assert world.fleet(openhands__cost__source="acp_estimated") == pytest.approx(estimate(), abs=EXACT)


def test_a_report_in_another_currency_is_no_dollars(world: World) -> None:
    conversation = world.conversation(acp_agent(world, [turn(0.10, currency="EUR")]))
    world.run(conversation)
    world.settle()
    assert world.fleet() == 0
    assert world.fleet("openhands.llm.unpriced_calls") == 1


def test_a_session_that_goes_on_in_a_new_process_of_the_agent_is_not_counted_again(world: World) -> None:
    agent = acp_agent(world, [turn(0.10), turn(0.25), turn(0.30)])
    folder, identity = str(world.folder / "persisted"), uuid.uuid4()
    first = world.conversation(agent, persistence_dir=folder, conversation_id=identity)
    world.run(first)
    world.run(first)
    first.close()
    again = type(agent).model_validate(agent.model_dump(context={"expose_secrets": True}))
    second = world.conversation(again, persistence_dir=folder, conversation_id=identity)
    world.run(second)
    resumed = getattr(second.agent, "_resumed_existing_session", None)
    if resumed is None:
        pytest.skip("this release of OpenHands starts a new ACP session when it resumes")
    assert resumed
    world.settle()
    assert world.fleet() == pytest.approx(0.30, abs=EXACT)


def test_ask_agent_of_an_acp_agent(world: World) -> None:
    conversation = world.conversation(acp_agent(world, [turn(0.10), turn(0.02)]))
    world.run(conversation)
    conversation.ask_agent("how far?")
    world.settle()
    # OpenHands drops what the forked session reports, and estimates.
    assert world.cost_of(conversation) == pytest.approx(0.10 + estimate(), abs=EXACT)
    assert world.cost_of(conversation, openhands__llm__role="ask_agent") == pytest.approx(estimate(), abs=EXACT)
