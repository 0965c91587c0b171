"""``openhands-otel report`` on real runs of every release: of the time before us what their files say, and where we
come in the middle of a life, each dollar once."""

from __future__ import annotations

import json
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from openhands_otel._internal.cli import main
from openhands_otel.stats import Spend

from .scenario import EXACT, Scenario
from .test_openhands_files import by_hand, persisted
from .test_topologies import condenser_for, thinking

LONG_AGO_S = 3600
RELEASE = tuple(map(int, version("openhands-sdk").split(".")))
"""Before 1.10 a conversation that is opened again loses what its file said."""


def reported(capsys: pytest.CaptureFixture[str], by: str, *sources: str | Path) -> Spend:
    """What the command says of all time; its rows add up."""
    capsys.readouterr()
    assert main(["report", "--last", "all", "--by", by, "--json", *map(str, sources)]) == 0
    found = Spend.model_validate_json(capsys.readouterr().out)
    assert sum(group.accumulated_cost for group in found.groups) == pytest.approx(
        found.total.accumulated_cost, abs=EXACT
    )
    assert sum(group.llm_calls for group in found.groups) == found.total.llm_calls
    return found


def make_older(scenario: Scenario, *conversations: Any) -> None:
    """As if what was spent so far had been an hour ago: in the files, and in what is going to be saved."""
    for path in (scenario.folder / "persisted").rglob("base_state.json"):
        state = json.loads(path.read_text())
        for meter in state["stats"]["usage_to_metrics"].values():
            for cost in meter["costs"]:
                cost["timestamp"] -= LONG_AGO_S
        path.write_text(json.dumps(state))
    costs = {
        id(cost): cost
        for conversation in conversations
        for meter in conversation.conversation_stats.usage_to_metrics.values()
        for cost in meter.costs
    }
    for cost in costs.values():
        cost.timestamp -= LONG_AGO_S


@pytest.mark.parametrize("by", ["day,model", "conversation", "conversation,role,usage_id,agent", "hour,provider"])
def test_before_us_it_says_what_the_files_say(
    by: str, without_us: Scenario, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = without_us
    scenario.script("main", thinking(8))
    summarizer = scenario.llm("condenser", model="gpt-4o-mini", usage_id="condenser")
    condensed = persisted(scenario, scenario.agent(scenario.llm("main"), condenser=condenser_for(summarizer)))
    scenario.run(condensed)
    condensed.close()
    identity = uuid.uuid4()
    for text in ("hello", "and again"):
        again = persisted(scenario, scenario.llm("other"), conversation_id=identity)
        scenario.run(again, text)
        again.close()
    folder = scenario.folder / "persisted"
    cost, prompt, completion = by_hand(folder)
    found = reported(capsys, by, "--openhands", folder)
    assert found.total.accumulated_cost == pytest.approx(cost, abs=EXACT)
    assert found.total.accumulated_cost == found.total.read_cost > 0, "all of it is called a lower bound"
    assert found.total.accumulated_token_usage.prompt_tokens == prompt
    assert found.total.accumulated_token_usage.completion_tokens == completion
    assert found.total.accumulated_cost <= scenario.bill().total + EXACT
    assert found.total.llm_calls <= len(scenario.bill().entries)


@pytest.mark.parametrize("kept", [True, False], ids=["the same object", "opened again"])
def test_when_we_come_in_the_middle_it_says_the_bill(
    kept: bool, without_us: Scenario, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario, identity = without_us, uuid.uuid4()
    folder, ours = scenario.folder / "persisted", scenario.folder / "ours"

    def opened() -> Any:
        return persisted(scenario, scenario.llm("main"), conversation_id=identity)

    conversation = opened()
    for text in ("hello", "go on"):
        scenario.run(conversation, text)
    if not kept:
        conversation.close()
    make_older(scenario, *([conversation] if kept else []))
    before = scenario.bill().total
    assert reported(capsys, "model", "--openhands", folder).total.accumulated_cost == pytest.approx(before, abs=EXACT)

    monkeypatch.setenv("OPENHANDS_OTEL_FILE", str(ours))
    scenario.instrument()
    if not kept:
        conversation = opened()
    remembered, *_ = by_hand(folder)
    if RELEASE >= (1, 10):
        assert remembered == pytest.approx(before, abs=EXACT)
    for text in ("now you are seen", "and now"):
        scenario.run(conversation, text)
        scenario.settle()
        found = reported(capsys, "conversation", "--openhands", folder, "--files", ours)
        assert found.total.read_cost == pytest.approx(remembered, abs=EXACT)
        counted = found.total.accumulated_cost - found.total.read_cost
        assert counted == pytest.approx(scenario.bill().total - before, abs=EXACT)
        assert {group.keys["conversation"] for group in found.groups} == {str(identity)}
    conversation.close()
    scenario.settle()
    found = reported(capsys, "conversation,role", "--openhands", folder, "--files", ours)
    assert found.total.accumulated_cost == pytest.approx(scenario.bill().total - before + remembered, abs=EXACT)
    assert found.total.llm_calls == 2 * bool(remembered) + 2
