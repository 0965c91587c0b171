"""Real runs in the viewer: OpenHands' SDK against the scripted provider, as under `openhands-otel run`.

The import of OpenHands is shared: what is told of a run is looked at, not how instrumentation gets into a program.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from viewer_process import running_viewer, wait_for

from forked import Prepared
from openhands_otel._internal.demo.answers import call, say
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel.client import StatsClient, StatsError
from openhands_otel.stats import Timeline

PROGRAMS = Path(__file__).parent / "programs"
PROGRAM = (PROGRAMS / "delegating_agent.py").read_text()
LOSING = (PROGRAMS / "losing_agent.py").read_text()
SECRET = "the-thing-that-was-asked"


def shape(timeline: Timeline) -> list[str]:
    return [f"{'  ' * row.depth}{row.name}{' ...' if row.state == 'running' else ''}" for row in timeline.rows]


@pytest.mark.parametrize("capture", [False, True])
def test_a_run_with_a_sub_agent_is_told_while_it_works_and_adds_up_in_the_end(
    prepared: Prepared, tmp_path: Path, capture: bool
) -> None:
    """What runs stands there before any span of it has come; in the end calls add up to the provider's bill."""
    task = {"prompt": SECRET, "subagent_type": "helper", "description": "a task"}
    with (
        LLMServer() as server,
        running_viewer(database=tmp_path / "history.sqlite3") as viewer,
        StatsClient(viewer.url) as client,
    ):
        server.provider.script("boss", [call("task", task), say("Done.")])
        server.provider.script("child", [say("I am the child.", delay=4.0)])
        content = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY"} if capture else {}
        process = prepared.run(PROGRAM, tmp_path, "--endpoint", viewer.url, arguments=[server.url], **content)
        boss = process.first_line()

        def below() -> Timeline | None:
            try:
                found = client.timeline(boss)
            except StatsError:
                return None
            names = shape(found)
            return found if "      chat ..." in names and "  chat gpt-4o-mini" in names else None

        running = wait_for(below, "a sub-agent's call under way")
        assert shape(running) == [
            "invoke_agent Agent ...",
            "  chat gpt-4o-mini",
            "  execute_tool task ...",
            "    invoke_agent helper ...",
            "      chat ...",
        ]
        assert process.wait() == 0, process.err
        ended = client.timeline(boss)
        assert shape(ended) == [
            "invoke_agent Agent",
            "  chat gpt-4o-mini",
            "  execute_tool task",
            "    invoke_agent helper",
            "      chat gpt-4o-mini",
            "  chat gpt-4o-mini",
        ]
        helper = next(row.conversation_id for row in ended.rows if row.depth == 3)
        assert helper is not None
        told = {name: client.calls(name) for name in (boss, helper)}
        assert {name: (calls.count, calls.rest_cost) for name, calls in told.items()} == {
            boss: (2, 0.0),
            helper: (1, 0.0),
        }
        assert sum(calls.calls_cost for calls in told.values()) == pytest.approx(server.provider.bill.total, abs=1e-12)
        [dearest] = client.calls(boss, sort="-cost", limit=1).calls
        assert dearest.cost == max(each.cost or 0.0 for each in told[boss].calls)
        assert (dearest.model, dearest.role, dearest.has_content) == ("gpt-4o-mini", "agent", capture)
        query = {"trace": dearest.trace_id, "span": told[boss].calls[-1].span_id}
        said = viewer.http.get("/api/v1/span", params=query).raise_for_status().text
        assert (SECRET in said) == capture


def test_what_no_span_tells_of_is_the_rest(prepared: Prepared, tmp_path: Path) -> None:
    """Kind: runs whose spans were sampled away."""
    with (
        LLMServer() as server,
        running_viewer(database=tmp_path / "history.sqlite3") as viewer,
        StatsClient(viewer.url) as client,
    ):
        server.provider.script("boss", [say("Done.")])
        process = prepared.run(
            PROGRAM, tmp_path, "--endpoint", viewer.url, arguments=[server.url], OTEL_TRACES_SAMPLER="always_off"
        )
        assert process.wait() == 0, process.err
        calls = client.calls(process.first_line())
        assert (calls.count, calls.calls_cost) == (0, 0.0)
        assert calls.rest_cost == calls.accumulated_cost == pytest.approx(server.provider.bill.total)
        assert client.timeline(process.first_line()).rows == ()


def test_a_call_that_lost_its_tokens_is_marked(prepared: Prepared, tmp_path: Path) -> None:
    """Kind: an OpenHands and a litellm that fail together between the cost and the tokens of an answer."""
    with (
        LLMServer() as server,
        running_viewer(database=tmp_path / "history.sqlite3") as viewer,
        StatsClient(viewer.url) as client,
    ):
        process = prepared.run(LOSING, tmp_path, "--endpoint", viewer.url, arguments=[server.url])
        assert process.wait() == 0, process.err
        calls = client.calls(process.first_line())
        assert calls.calls_cost == calls.accumulated_cost == pytest.approx(server.provider.bill.total)
        assert [(call.cost_without_tokens, call.tokens.prompt_tokens) for call in calls.calls] == [(True, 0)]
