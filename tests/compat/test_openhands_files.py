"""What real OpenHands leaves on disk, in every release, read without it: what its files say, each dollar once."""

from __future__ import annotations

import inspect
import json
import shutil
import time
import uuid
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from openhands_otel._internal.exact import ExactSum
from openhands_otel._internal.export.otlp_file.json_lines import encode_line
from openhands_otel._internal.openhands_files.reading import Reading, read
from openhands_otel._internal.report.sources import Sources
from openhands_otel._internal.spend.questions import SpendQuestion

from . import test_children, test_topologies
from .scenario import EXACT, Scenario, called, needs, said
from .test_children import agent_with_task_tool
from .test_topologies import condenser_for, thinking


def persisted(scenario: Scenario, llm_or_agent: Any, **options: Any) -> Any:
    folder = str(scenario.folder / "persisted")
    return scenario.conversation(llm_or_agent, persistence_dir=folder, **({"conversation_id": uuid.uuid4()} | options))


def reading(scenario: Scenario, **options: Any) -> Reading:
    return read([scenario.folder / "persisted"], **options)


def total(found: Reading, **keys: str) -> float:
    chosen = [row for row in found.rows if all(row.keys.get(name) == value for name, value in keys.items())]
    whole = ExactSum()
    for row in chosen:
        assert row.amount.read_cost.value == row.amount.cost.value
        whole.include(row.amount.cost)
    return whole.value


def by_hand(folder: Path) -> tuple[float, int, int]:
    """Dollars, prompt and completion tokens of the files' lists: what is there twice with one time or id, once."""
    costs: set[tuple[str, float, float]] = set()
    tokens: set[tuple[str, int, int]] = set()
    for path in folder.rglob("base_state.json"):
        for meter in json.loads(path.read_text())["stats"]["usage_to_metrics"].values():
            costs |= {(each["model"], each["cost"], each["timestamp"]) for each in meter["costs"]}
            tokens |= {
                (each["response_id"], each["prompt_tokens"], each["completion_tokens"])
                for each in meter["token_usages"]
            }
    return sum(cost for _, cost, _ in costs), sum(each[1] for each in tokens), sum(each[2] for each in tokens)


def check(scenario: Scenario, found: Reading) -> None:
    """All that the files say was read, nothing twice, and never more than was recorded."""
    cost, prompt, completion = by_hand(scenario.folder / "persisted")
    assert not found.skipped
    assert total(found) == pytest.approx(cost, abs=EXACT)
    assert sum(row.amount.prompt_tokens for row in found.rows) == prompt
    assert sum(row.amount.completion_tokens for row in found.rows) == completion
    assert total(found) <= sum(scenario.recorded) + EXACT
    assert sum(row.amount.calls for row in found.rows) <= len(scenario.bill().entries)


def check_all_of_it(scenario: Scenario, found: Reading) -> None:
    check(scenario, found)
    bill = scenario.bill()
    assert total(found) == pytest.approx(bill.total, abs=EXACT)
    assert sum(row.amount.prompt_tokens for row in found.rows) == bill.tokens.input
    assert sum(row.amount.cache_read_tokens for row in found.rows) == bill.tokens.cached
    assert sum(row.amount.calls for row in found.rows) == len(bill.entries)


def test_a_run_is_read_as_it_was(scenario: Scenario) -> None:
    began = time.time()
    scenario.script("main", [called("think", {"thought": "hm"}, prompt=700), said(cached=512)])
    conversation = persisted(scenario, scenario.llm("main", usage_id="writer"))
    scenario.run(conversation)
    conversation.close()
    found = reading(scenario)
    check_all_of_it(scenario, found)
    for row in found.rows:
        assert row.begin is not None
        assert row.begin <= time.time()
        assert row.end > began
        assert row.keys["model"] == "gpt-4o"
        assert row.keys["provider"] == "openai"
        assert row.keys["conversation"] == str(conversation.id)
        assert row.keys["usage_id"] in ("writer", "default")
        assert row.keys["agent"] == "Agent"
        assert row.keys["role"] == "agent"
    assert sum(row.amount.seconds.value for row in found.rows) > 0
    assert sum(row.amount.unpriced_calls for row in found.rows) == 0
    about = found.conversations[str(conversation.id)]
    assert about.parent_id is None
    assert about.first is not None
    assert began <= about.first <= (about.last or 0) <= time.time()


def test_two_meters_of_one_conversation(scenario: Scenario) -> None:
    scenario.script("main", thinking(8))
    agent = scenario.agent(
        scenario.llm("main"), condenser=condenser_for(scenario.llm("condenser", usage_id="condenser"))
    )
    conversation = persisted(scenario, agent)
    scenario.run(conversation)
    conversation.close()
    found = reading(scenario)
    check(scenario, found)
    assert total(found, role="condenser") == pytest.approx(scenario.bill("condenser").total, abs=EXACT)
    assert total(found, role="condenser") > 0


def test_a_restored_conversation(scenario: Scenario) -> None:
    identity = uuid.uuid4()
    for text in ("hello", "and again"):
        conversation = persisted(scenario, scenario.llm("main"), conversation_id=identity)
        scenario.run(conversation, text)
        conversation.close()
    found = reading(scenario)
    check(scenario, found)
    assert list(found.conversations) == [str(identity)]
    assert total(found) > 0


def test_one_meter_under_two_usage_ids(scenario: Scenario) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.ask_agent")
    identity = uuid.uuid4()
    for text in ("hello", "and again"):
        conversation = persisted(scenario, scenario.llm("main"), conversation_id=identity)
        scenario.run(conversation, text)
        conversation.ask_agent("How far are you?")
        scenario.run(conversation, "go on")
        conversation.close()
    found = reading(scenario)
    check(scenario, found)


def test_conversations_that_share_an_llm(scenario: Scenario) -> None:
    llm = scenario.llm("main")
    first, second = persisted(scenario, llm), persisted(scenario, llm)
    for conversation in (first, second, first, second):
        scenario.run(conversation)
    check_all_of_it(scenario, reading(scenario))


def test_a_fork_holds_what_its_parent_spent(scenario: Scenario) -> None:
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.fork")
    source = persisted(scenario, scenario.llm("main"))
    scenario.run(source)
    spent = scenario.bill().total
    forks = [source.fork(reset_metrics=False) for _ in range(2)]
    for fork in forks:
        scenario.run(fork, "another way")
        fork.close()
    scenario.run(source, "and I go mine")
    source.close()
    found = reading(scenario)
    check_all_of_it(scenario, found)
    each = (scenario.bill().total - spent) / 3
    assert total(found, conversation=str(source.id)) == pytest.approx(spent + each, abs=EXACT)
    assert [total(found, conversation=str(fork.id)) for fork in forks] == [pytest.approx(each, abs=EXACT)] * 2


def test_a_fork_of_what_we_counted_is_not_read_again(scenario: Scenario) -> None:
    """Its parent's calls stand in its file, and they are counted under the parent; whether its file is there or not."""
    needs("openhands.sdk.conversation.impl.local_conversation", "LocalConversation.fork")
    source = persisted(scenario, scenario.llm("main"))
    began = time.time()
    scenario.run(source)
    presence = {str(source.id): [(began - 60, time.time() - 60)]}
    for meter in source.conversation_stats.usage_to_metrics.values():
        for cost in meter.costs:
            cost.timestamp -= 60
    source.state._save_base_state(source.state._fs)
    spent = scenario.bill().total
    fork = source.fork(reset_metrics=False)
    scenario.run(fork, "another way")
    fork.close()
    source.close()
    assert total(reading(scenario, presence=presence)) == pytest.approx(scenario.bill().total - spent, abs=EXACT)
    shutil.rmtree(source.state.persistence_dir)
    assert total(reading(scenario, presence=presence)) == pytest.approx(scenario.bill().total - spent, abs=EXACT)


def test_a_sub_agents_spend_stands_twice_and_counts_once(scenario: Scenario) -> None:
    name = "filed-child"
    agent = agent_with_task_tool(scenario, name, condensed=True)
    task = {"prompt": "do it", "subagent_type": name, "description": "a task"}
    scenario.script("main", [called("task", task), said()])
    scenario.script("child", thinking(8))
    conversation = persisted(scenario, agent)
    scenario.run(conversation)
    conversation.close()
    found = reading(scenario)
    check_all_of_it(scenario, found)
    parent = str(conversation.id)
    children = [about for about in found.conversations.values() if about.parent_id == parent]
    assert len(children) == 1
    theirs = scenario.bill("child", "summary")
    assert total(found, conversation=children[0].id) == pytest.approx(theirs.total, abs=EXACT)
    assert total(found, role="condenser") == pytest.approx(scenario.bill("summary").total, abs=EXACT)
    assert total(found, role="subagent") == pytest.approx(scenario.bill("child").total, abs=EXACT)
    for folder in (scenario.folder / "persisted").rglob("subagents"):
        shutil.rmtree(folder)
    check_all_of_it(scenario, reading(scenario))


def test_what_we_counted_is_left_out(scenario: Scenario) -> None:
    identity = uuid.uuid4()
    conversation = persisted(scenario, scenario.llm("main"), conversation_id=identity)
    scenario.run(conversation)
    conversation.close()
    before = total(reading(scenario))
    assert before == pytest.approx(scenario.bill().total, abs=EXACT)
    everything = {str(identity): [(0.0, time.time())]}
    assert reading(scenario, presence=everything).rows == []
    elsewhere = {str(uuid.uuid4()): [(0.0, time.time())], str(identity): [(0.0, 1.0)]}
    assert total(reading(scenario, presence=elsewhere)) == before


WAYS = {
    name.removeprefix("test_"): way
    for module in (test_topologies, test_children)
    for name, way in vars(module).items()
    if name.startswith("test_") and [*inspect.signature(way).parameters] == ["scenario"]
}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_never_more_than_was_spent(way: str, scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every way in which OpenHands spends; nor where we were there, and are asked beside the files."""
    folder, conversation = scenario.folder / "persisted", scenario.conversation
    monkeypatch.setattr(
        scenario, "conversation", lambda whose, **more: conversation(whose, **({"persistence_dir": str(folder)} | more))
    )
    WAYS[way](scenario)
    if folder.exists():
        check(scenario, reading(scenario))
        told = scenario.folder / "told.jsonl"
        told.write_bytes(b"".join(map(encode_line, scenario.receiver.requests)))
        both = Sources(files=[told], folders=[folder]).answer(SpendQuestion(("conversation",), ZoneInfo("UTC"))).total
        assert both.accumulated_cost == pytest.approx(scenario.fleet(), abs=EXACT)
        assert both.accumulated_cost <= sum(scenario.recorded) + EXACT
        assert both.read_cost == 0, "none of it is a lower bound"
