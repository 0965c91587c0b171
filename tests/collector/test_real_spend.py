"""What a real run spent, asked for in every way: each adds up to the provider's bill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from viewer_process import Viewer, running_viewer

from forked import Prepared
from openhands_otel._internal.cli import main
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel._internal.report.sources import Sources
from openhands_otel._internal.spend.questions import SpendQuestion
from openhands_otel.stats import Spend, SpendGroup

PROGRAM = """
import os, sys
from openhands.sdk import LLM, Agent, LocalConversation, Message, TextContent
from openhands_otel import labels

def llm(usage, model):
    return LLM(model=model, api_key="key", base_url=sys.argv[1], usage_id=usage, num_retries=0)

for name in ("first", "second"):
    with labels(instance=name):
        agent = Agent(llm=llm("agent", "openai/gpt-4o-mini"), tools=[])
        conversation = LocalConversation(agent=agent, workspace=os.getcwd(), visualizer=None)
        for _ in range(2):
            conversation.send_message("Go on.")
            conversation.run()
        conversation.close()
llm("direct", "openai/gpt-4o").completion([Message(role="user", content=[TextContent(text="Say done.")])])
"""

NOBODYS = ("no conversation", "no run", "none")


@pytest.fixture(scope="module")
def bill() -> dict[str, float]:
    return {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="module")
def viewer(folder: Path, bill: dict[str, float], prepared: Prepared) -> Iterator[Viewer]:
    """It has a run, as under ``openhands-otel run``. The import of OpenHands is shared: no start is looked at."""
    with LLMServer() as server, running_viewer(database=folder / "history.sqlite3") as viewer:
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": viewer.url, "OPENHANDS_OTEL_LABELS": "team=payments"}
        told["OPENHANDS_OTEL_FILE"] = str(folder / "files")
        run = prepared.run(PROGRAM, folder, arguments=[f"{server.url}/v1"], **told)
        assert run.wait() == 0, run.err
        bill["total"] = server.provider.bill.total
        yield viewer


@pytest.fixture(scope="module")
def other(viewer: Viewer, folder: Path) -> Iterator[Viewer]:
    """A viewer that has it from files, after the event."""
    with running_viewer() as other:
        assert main(["import", str(folder / "files"), "--endpoint", other.url]) == 0
        yield other


def spend(viewer: Viewer, by: str) -> Spend:
    return Spend.model_validate_json(viewer.http.get("/api/v1/spend", params={"by": by}).raise_for_status().content)


def nonzero(viewer: Viewer, by: str) -> list[SpendGroup]:
    return [group for group in spend(viewer, by).groups if group.llm_calls]


WAYS = [
    *("", "day", "hour,model", "conversation", "run", "instance", "team", "provider,role,agent", "service"),
    *("usage_id,model", "cost_source", "conversation,run,model,provider,role,agent,usage_id", "nobody's label"),
]


@pytest.mark.parametrize("by", WAYS)
def test_a_viewer_that_has_it_from_files_says_the_same(viewer: Viewer, other: Viewer, folder: Path, by: str) -> None:
    live, imported = (sorted(map(rounded, spend(each, by).groups), key=str) for each in (viewer, other))
    assert imported == live
    assert rounded(spend(other, by).total) == rounded(spend(viewer, by).total)
    if by:
        read = Sources(files=[folder / "files"]).answer(SpendQuestion(tuple(by.split(",")), ZoneInfo("UTC")))
        assert sorted((rounded(group) for group in read.groups), key=str) == live


def rounded(group: SpendGroup) -> dict[str, object]:
    """All that is told of it; sums of floats as far as they are exact."""
    return {name: round(value, 9) if isinstance(value, float) else value for name, value in group.model_dump().items()}


@pytest.mark.parametrize("by", WAYS)
def test_every_way_of_asking_adds_up_to_thebill(viewer: Viewer, bill: dict[str, float], by: str) -> None:
    found = spend(viewer, by)
    assert found.total.accumulated_cost == pytest.approx(bill["total"], abs=1e-12)
    assert found.total.llm_calls == 5
    if by:
        assert sum(group.accumulated_cost for group in found.groups) == pytest.approx(bill["total"], abs=1e-12)
        assert sum(group.llm_calls for group in found.groups) == 5
        assert sum(group.cache_savings for group in found.groups) == pytest.approx(found.total.cache_savings, abs=1e-12)
    assert found.total.cache_savings > 0


def test_each_run_is_one_with_its_own_calls_even_where_they_follow_at_once(viewer: Viewer) -> None:
    runs = nonzero(viewer, "run")
    assert sorted(group.keys["run"].partition("#")[2] for group in runs) == ["", "1", "1", "2", "2"]
    assert [group.llm_calls for group in runs] == [1] * 5
    assert sorted(str(group.outcome) for group in runs) == ["None", *["finished"] * 4]


@pytest.mark.parametrize("by", ["conversation", "run", "instance", "conversation,model"])
def test_nothing_is_left_over_where_all_has_a_name(viewer: Viewer, by: str) -> None:
    [rest] = [group for group in spend(viewer, by).groups if group.keys[by.split(",", maxsplit=1)[0]] in NOBODYS]
    assert (rest.llm_calls, rest.cache_savings) == (1, 0.0)


def test_labels_conversations_and_calls_of_none_are_told_apart(viewer: Viewer) -> None:
    assert {group.keys["instance"]: group.llm_calls for group in nonzero(viewer, "instance")} == {
        "first": 2,
        "second": 2,
        "none": 1,
    }
    assert [(group.keys["team"], group.llm_calls) for group in nonzero(viewer, "team")] == [("payments", 5)]
    assert sorted(group.llm_calls for group in nonzero(viewer, "conversation")) == [1, 2, 2]
    assert {group.keys["model"]: group.llm_calls for group in nonzero(viewer, "model")} == {
        "gpt-4o-mini": 4,
        "gpt-4o": 1,
    }
