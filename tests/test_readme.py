"""What the README and docs/ say is so: tables agree with the code, snippets run, commands and links exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic_settings import BaseSettings
from telemetry.pipes import call, origin, pipeline, put
from viewer_process import Viewer, running_viewer, wait_for

from openhands_otel import OpenHandsInstrumentor, events, semconv, subscribe
from openhands_otel._internal import guard
from openhands_otel._internal.cli import main
from openhands_otel._internal.content import TitleAllowed
from openhands_otel._internal.demo.answers import Answer, say
from openhands_otel._internal.demo.answers import call as call_tool
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel._internal.export.otlp_config import read_otlp_config
from openhands_otel.semconv import (
    BudgetScope,
    CostSource,
    Metric,
    Reason,
    Role,
    RunOutcome,
    Status,
    TokenType,
    ToolOutcome,
)
from openhands_otel.settings import Settings, ViewerSettings
from otlp_receiver import Point, http_receiver

if TYPE_CHECKING:
    from openhands.sdk import LocalConversation

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCS = {path.stem: path for path in (ROOT / "docs").glob("*.md")}
PAGES = [README, ROOT / "CONTRIBUTING.md", *DOCS.values()]
SNIPPET = re.compile(r"<!-- snippet: (\w+) -->\n```python\n(.*?)```", re.DOTALL)
SNIPPETS = {name: code for page in PAGES for name, code in SNIPPET.findall(page.read_text())}
METRICS = {metric.name: metric for metric in vars(semconv).values() if isinstance(metric, Metric)}
IMAGE_LIMIT = 300_000


def section(page: Path, heading: str) -> str:
    """What stands under a heading of the second level."""
    return page.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """Rows of all tables, cell by cell, whose first cell is code."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def rows_of(text: str, first: set[str]) -> dict[str, list[str]]:
    """The rows whose first cell names one of ``first``, the rest of their cells by that name."""
    return {name: cells[1:] for cells in rows(text) for name in names(cells[0]) if name in first}


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize("kind", [Settings, ViewerSettings])
def test_each_setting_is_documented_with_its_default_and_meaning(kind: type[BaseSettings]) -> None:
    prefix = kind.model_config.get("env_prefix", "")
    expected = {
        f"{prefix}{name.upper()}": [shown(field.default), str(field.description)]
        for name, field in kind.model_fields.items()
    }
    others = "OPENHANDS_OTEL_VIEWER_" if kind is Settings else "-"
    found = {
        names(cells[0])[0]: cells[1:]
        for cells in rows(section(DOCS["configuration"], "Settings"))
        if names(cells[0])[0].startswith(prefix) and not names(cells[0])[0].startswith(others)
    }
    assert found == expected


def shown(default: Any) -> str:
    if default is None or default in ({}, (), frozenset()):
        return "none"
    if isinstance(default, frozenset):
        return f"`{','.join(sorted(default))}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


class Asked(dict[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self, **variables: str) -> None:
        super().__init__(variables)
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


def test_the_otel_variables_that_are_read_are_those_that_are_documented() -> None:
    read: set[str] = set()
    for protocol in ("http/protobuf", "grpc"):
        environment = Asked(OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
        read_otlp_config(environment)
        read |= environment.names
    destination = DOCS["configuration"].read_text().partition("## Where metrics go")[2]
    table = destination.partition("What is not about the destination")[0]
    documented = {name for line in table.splitlines() if line.startswith("| `") for name in names(line.split("|")[1])}
    assert documented == read


# ---------------------------------------------------------------- metrics


def everything_that_can_happen() -> Iterator[events.Event | TitleAllowed]:
    """One process in which each metric has a reason to be sent."""
    agent = origin("c", agent="Agent", fallback=True, usage_id="agent", parent_id="p")
    yield events.ConversationOpened(time.time_ns(), "c", "p", "Agent", "1.58.0", 0.5, 2.0)
    yield TitleAllowed(time.time_ns(), "c", "a title")
    yield events.RunStarted(time.time_ns(), "c", trace_id="0" * 32)
    yield from call(agent)
    yield events.TokensUsed(time.time_ns(), agent, 10, 5, 4, 3, 2, 128_000, "r")
    yield events.ResponseRecorded(time.time_ns(), agent, False, 0.01)
    yield events.CallRetried(time.time_ns(), agent)
    yield events.FirstChunk(time.time_ns(), agent, 0.5)
    yield events.LLMCallEnded(time.time_ns(), agent, 2, "LLMTimeoutError", 1.5)
    yield events.Condensed(time.time_ns(), "c", "Agent")
    yield events.ToolEnded(time.time_ns(), "c", "terminal", 2, "ValueError", ToolOutcome.EXCEPTION, 0.5, "Agent")
    stuck = Status.STUCK, events.OwnTotal(9.0), RunOutcome.STUCK, "SomeError", 2.5, "Agent"
    yield events.RunEnded(time.time_ns(), "c", *stuck)
    yield events.ToolStarted(time.time_ns(), "c", "terminal", 1)


@pytest.fixture(scope="module")
def sent() -> Iterator[list[Point]]:
    """What a real pipeline sends of all that."""
    with pytest.MonkeyPatch.context() as patch, http_receiver() as receiver:
        patch.setattr(guard, "_errors", {"Some.hook": 1})
        with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}, budgets={"day": 20}) as pipe:
            put(pipe, *everything_that_can_happen())
            assert pipe.flush(50)
        yield receiver.points()


def kind_of(point: Point) -> str:
    if point.buckets:
        return "histogram"
    if point.temporality and not point.monotonic:
        return "updowncounter"
    return "counter" if point.monotonic else "gauge"


def test_the_list_of_metrics_has_each_that_is_sent_and_no_other(sent: list[Point]) -> None:
    documented = rows_of(section(DOCS["metrics"], "Names"), set(METRICS))
    # Sent to a viewer alone, which asks for it: see telemetry/test_lives.py.
    beat = semconv.BEAT_INTERVAL
    assert documented.pop(beat.name) == [beat.kind, f"`{beat.unit}`", beat.description]
    expected = {point.metric: [kind_of(point), f"`{point.unit}`", METRICS[point.metric].description] for point in sent}
    assert documented == expected


def test_the_attributes_that_are_sent_are_those_that_are_documented(sent: list[Point]) -> None:
    fleet, conversations = section(DOCS["metrics"], "Attributes").partition("Of the conversation series")[::2]
    for text, scope, everywhere in (
        (fleet, semconv.SCOPE_FLEET, set[str]()),
        (conversations, semconv.SCOPE_CONVERSATIONS, {semconv.CONVERSATION_ID}),
    ):
        carriers: dict[str, set[str]] = defaultdict(set)
        for point in sent:
            if point.scope == scope:
                for name in point.attributes.keys() - everywhere:
                    carriers[name].add(point.metric)
        groups = {
            "calls": {
                point.metric
                for point in sent
                if semconv.PROVIDER_NAME in point.attributes and point.scope == semconv.SCOPE_FLEET
            },
            "tools": {semconv.TOOL_DURATION.name},
            "runs": {
                point.metric
                for point in sent
                if semconv.RUN_OUTCOME in point.attributes and point.scope == semconv.SCOPE_FLEET
            },
            "agents": {semconv.CONDENSATIONS.name, semconv.STUCK_RUNS.name},
        }
        documented: dict[str, set[str]] = defaultdict(set)
        for line in text.splitlines():
            if line.startswith("| `"):
                attribute, carrier, *_ = [cell.strip() for cell in line.strip("|").split("|")]
                documented[names(attribute)[0]] |= set(names(carrier))
                for group in re.sub("`[^`]*`", "", carrier).replace(",", " ").split():
                    documented[names(attribute)[0]] |= groups[group]
        assert documented == carriers


NEWEST = "Today's GenAI names, the newest, or both"


@pytest.fixture(scope="module")
def sent_by_newest_names() -> Iterator[list[Point]]:
    """What a real pipeline sends by the newest names of all that can happen."""
    with http_receiver() as receiver:
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, semconv.STABILITY_OPT_IN: semconv.NEWEST_GENAI}
        whose = origin("c", agent="Agent", server=("host", 443))
        response = events.ResponseMetadata("r", "gpt-4o-2026")
        with pipeline(environ) as pipe:
            put(pipe, *everything_that_can_happen())
            put(pipe, events.FirstChunk(time.time_ns(), whose, 0.5, 9, "gpt-4o-2026"))
            put(pipe, events.TokensUsed(time.time_ns(), whose, 10, 5, 4, 3, 2, 9, "r", 9, "gpt-4o-2026"))
            put(pipe, events.LLMCallEnded(time.time_ns(), whose, 9, "E", 1.5, response, (0.1, 0.2)))
            assert pipe.flush(50)
        yield receiver.points()


def test_the_newest_names_are_those_that_are_sent_instead(sent: list[Point], sent_by_newest_names: list[Point]) -> None:
    today, newest = ({point.metric for point in points} for points in (sent, sent_by_newest_names))
    documented = [cells for cells in rows(section(DOCS["metrics"], NEWEST)) if len(cells) == 5]
    assert {name for cells in documented for name in names(cells[1])} == {m.name for m in semconv.TODAY_ONLY}
    assert newest.isdisjoint(metric.name for metric in semconv.TODAY_ONLY)
    described = {names(cells[0])[0]: cells[2:] for cells in documented}
    added = {point.metric: point for point in sent_by_newest_names if point.metric not in today}
    assert described == {
        name: [kind_of(point), f"`{point.unit}`", METRICS[name].description] for name, point in added.items()
    }


def test_the_attributes_of_the_newest_names_are_those_that_are_documented(
    sent: list[Point], sent_by_newest_names: list[Point]
) -> None:
    counters = {metric.name for metric in semconv.TOKEN_COUNTERS.values()}
    histograms = {metric.name for metric in semconv.NEWEST_ONLY}
    known = {name for point in sent for name in point.attributes} - {semconv.ERROR_TYPE}
    carriers: dict[str, set[str]] = defaultdict(set)
    for point in sent_by_newest_names:
        if point.metric in counters | histograms:
            for name in point.attributes.keys() - known:
                carriers[name].add(point.metric)
    groups = {"all": counters | histograms, "the counters": counters}
    documented = {
        name: groups.get(cells[1]) or set(names(cells[1]))
        for cells in rows(section(DOCS["metrics"], NEWEST))
        if len(cells) == 3
        for name in names(cells[0])
    }
    assert documented == carriers


@pytest.mark.parametrize(
    ("attribute", "values"),
    [
        (semconv.LLM_ROLE, Role),
        (semconv.COST_SOURCE, CostSource),
        (semconv.CONVERSATION_STATUS, Status),
        (semconv.TOKEN_TYPE, TokenType),
        (semconv.BUDGET_SCOPE, BudgetScope),
        (semconv.TOOL_OUTCOME, ToolOutcome),
        (semconv.RUN_OUTCOME, RunOutcome),
    ],
)
def test_the_values_of_an_attribute_are_all_named(attribute: str, values: Any) -> None:
    said = [
        set(names(cells[-1]))
        for cells in rows(section(DOCS["metrics"], "Attributes"))
        if names(cells[0]) == [attribute]
    ]
    assert {value.value for value in values} in said


def test_each_reason_for_a_difference_is_explained() -> None:
    assert set(rows_of(DOCS["accounting"].read_text(), {reason.value for reason in Reason})) == {
        each.value for each in Reason
    }


def test_names_in_prometheus_are_those_that_come_out_there() -> None:
    made = {metric.prometheus_name for metric in METRICS.values()}
    text = DOCS["metrics"].read_text().partition("## In Prometheus")[2]
    used = set(re.findall(r"\b(?:openhands|gen_ai_client)_\w+", text))
    assert used
    assert used <= made


# ---------------------------------------------------------------- commands, links


def shell_lines() -> list[str]:
    """Indented lines that run something of ours."""
    lines = [line.strip() for page in PAGES for line in page.read_text().splitlines() if line.startswith("    ")]
    return [line.partition("#")[0].strip() for line in lines if line.startswith(("make ", "openhands-otel "))]


def test_each_make_target_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    said = {line.split()[1] for line in shell_lines() if line.startswith("make ")}
    said |= {target for page in PAGES for target in re.findall(r"`make ([\w-]+)", page.read_text())}
    assert {"demo", "test", "check"} <= said <= targets


def test_each_command_has_the_options_that_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    shown_lines = [line for line in shell_lines() if line.startswith("openhands-otel ")]
    assert len(shown_lines) > 5
    for line in shown_lines:
        _, command, *words = line.partition(" -- ")[0].split()
        with pytest.raises(SystemExit):
            # Some have actions with options of their own.
            main([command, *[word for word in words[:1] if not word.startswith("-")], "--help"])
        assert set(re.findall(r"--[\w-]+", " ".join(words))) <= set(re.findall(r"--[\w-]+", capsys.readouterr().out))


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    targets = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r"(?:src|srcset)=\"([^\"]+)\"", text)
    for target in targets:
        if target.startswith("http"):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if fragment:
            assert fragment in {anchor(line.lstrip("# ")) for line in file.read_text().splitlines() if line[:1] == "#"}
        if file.suffix == ".png":
            assert file.stat().st_size < IMAGE_LIMIT


# ---------------------------------------------------------------- snippets


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        yield viewer


@pytest.fixture
def environment(
    viewer: Viewer, llm_server: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Mapping[str, str]]:
    """A reader's machine: a model that answers, a viewer, a directory of one's own."""
    variables = {
        "OPENAI_API_KEY": "no-key-needed",
        "OPENAI_BASE_URL": llm_server.base_url(None),
        # The general one might start Laminar: OpenHands is imported in this process already.
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{viewer.url}/v1/metrics",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    yield variables
    instrumentor = OpenHandsInstrumentor()
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


def run_snippet(name: str, viewer: Viewer | None = None, **given: object) -> dict[str, Any]:
    """Run one as it stands, but for the viewer's address, where what it takes for granted is ``given``."""
    code = SNIPPETS[name]
    if viewer is not None:
        assert "http://127.0.0.1:4318" in code
        code = code.replace("http://127.0.0.1:4318", viewer.url)
    namespace: dict[str, Any] = {"__name__": "__main__", **given}
    exec(compile(code, f"<snippet {name}>", "exec"), namespace)
    return namespace


def test_each_python_snippet_is_one_that_is_run_here() -> None:
    fences = sum(page.read_text().count("```python") for page in PAGES)
    assert fences == len(SNIPPETS)
    here = Path(__file__).read_text()
    assert all(f'"{name}"' in here for name in SNIPPETS)


@pytest.mark.parametrize(
    "command",
    [["openhands-otel", "run", "--", "python", "agent.py"], ["opentelemetry-instrument", "python", "agent.py"]],
    ids=lambda command: command[0],
)
def test_the_agent_under_each_command_shows_up_in_the_viewer(
    command: list[str],
    environment: Mapping[str, str],
    viewer: Viewer,
    llm_server: LLMServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert any(line.startswith(" ".join(command)) for line in map(str.strip, README.read_text().splitlines()))
    (tmp_path / "agent.py").write_text(SNIPPETS["agent"])
    before = viewer.state().totals.accumulated_cost
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    quiet = {"OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", "PATH": path}
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
    # The distribution in the development environment would choose gRPC, for the other port.
    done = subprocess.run(
        command,
        env=os.environ
        | quiet
        | {"OTEL_EXPORTER_OTLP_ENDPOINT": viewer.url, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert llm_server.bill.total > 0
    assert viewer.state().totals.accumulated_cost == pytest.approx(before + llm_server.bill.total, abs=1e-9)


def test_instrumenting_in_code_tells_what_the_provider_billed(
    environment: Mapping[str, str], viewer: Viewer, llm_server: LLMServer, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace = run_snippet("instrument")
    assert namespace["stats"].accumulated_cost == pytest.approx(llm_server.bill.total, abs=1e-9)
    assert f"${llm_server.bill.total:.6f} for 1 calls" in capsys.readouterr().out
    conversation_id = str(namespace["conversation"].id)
    held = next(each for each in viewer.state().conversations if each.conversation_id == conversation_id)
    assert held.accumulated_cost == pytest.approx(llm_server.bill.total, abs=1e-9)
    assert held.closed
    told = ("costs", "calls_by_model", "usage_to_metrics", "accumulated_token_usage", "model_name", "provider_name")
    assert [getattr(namespace["stats"], name) for name in told] == [getattr(held, name) for name in told]


def test_what_is_spent_inside_of_labels_is_told_with_them(environment: Mapping[str, str]) -> None:
    seen: list[events.CostAdded] = []
    unsubscribe = subscribe(seen.append, kinds=events.CostAdded)
    try:
        run_snippet("labels")["conversation"].close()
    finally:
        unsubscribe()
    assert {event.origin.labels for event in seen} == {(("attempt", "2"), ("instance", "astropy-1"))}


def test_a_test_is_held_to_what_it_may_spend(
    llm_server: LLMServer,
    make_llm: Callable[..., Any],
    make_agent: Callable[..., Any],
    make_conversation: Callable[..., LocalConversation],
    capsys: pytest.CaptureFixture[str],
) -> None:
    namespace = run_snippet("testing", conversation=make_conversation(make_agent(make_llm(), tools=False)))
    assert namespace["spent"].cost == pytest.approx(llm_server.bill.total, abs=1e-9)
    assert str(llm_server.bill.tokens.input) in capsys.readouterr().out


def test_a_subscriber_is_told_of_each_cost(
    llm_server: LLMServer,
    make_llm: Callable[..., Any],
    make_agent: Callable[..., Any],
    make_conversation: Callable[..., LocalConversation],
    capsys: pytest.CaptureFixture[str],
) -> None:
    namespace = run_snippet("subscribe")
    try:
        conversation = make_conversation(make_agent(make_llm(), tools=False))
        conversation.send_message("hello")
        conversation.run()
    finally:
        namespace["unsubscribe"]()
    said = capsys.readouterr().out
    assert f"agent gpt-4o: ${llm_server.bill.total:.6f}" in said
    assert "run ended: finished" in said


def test_a_conversation_is_paused_at_a_sum(
    llm_server: LLMServer,
    make_llm: Callable[..., Any],
    make_agent: Callable[..., Any],
    make_conversation: Callable[..., LocalConversation],
) -> None:
    def answer(request: Any) -> Answer:
        return call_tool("terminal", {"command": "sleep 0.2"}, cost=0.25) if request.turn < 30 else say("done")

    llm_server.script("loop", answer)
    conversation = make_conversation(make_agent(make_llm("loop")))
    conversation.send_message("go on")
    unsubscribe = run_snippet("pause")["pause_at"](conversation, 0.8)
    try:
        conversation.run()
    finally:
        unsubscribe()
    assert conversation.state.execution_status == "paused"
    assert 4 <= len(llm_server.bill.entries) <= 6


def test_the_stats_client_follows_a_conversation_to_its_end(
    environment: Mapping[str, str], viewer: Viewer, llm_server: LLMServer, capsys: pytest.CaptureFixture[str]
) -> None:
    reading = threading.Thread(target=run_snippet, args=("stats", viewer), daemon=True)
    reading.start()
    wait_for(lambda: viewer.state().receiver.viewers > 0, "the snippet's connection")
    run_snippet("instrument")
    reading.join(100)
    assert not reading.is_alive()
    assert str(llm_server.bill.total) in capsys.readouterr().out


def test_a_guest_adds_its_metrics_to_the_applications_provider(
    environment: Mapping[str, str],
    viewer: Viewer,
    llm_server: LLMServer,
    make_llm: Callable[..., Any],
    make_agent: Callable[..., Any],
    make_conversation: Callable[..., LocalConversation],
) -> None:
    before = viewer.state().totals.accumulated_cost
    provider = run_snippet("guest")["provider"]
    conversation = make_conversation(make_agent(make_llm(), tools=False))
    conversation.send_message("hello")
    conversation.run()
    assert viewer.state().totals.accumulated_cost == before
    provider.shutdown()
    assert viewer.state().totals.accumulated_cost == pytest.approx(before + llm_server.bill.total, abs=1e-9)


def test_each_page_stands_in_the_index() -> None:
    index = DOCS["README"].read_text()
    assert set(re.findall(r"\]\(([\w-]+)\.md\)", index)) == DOCS.keys() - {"README"}


def test_each_file_that_a_change_is_to_open_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text.partition("## I want to change")[2].partition("\n## ")[0]
    package = ROOT / "src" / "openhands_otel"
    for name in names(table):
        places = [ROOT / name, package / name, package / "_internal" / name]
        assert name.startswith(("openhands-otel ", "/", "make ")) or any(map(Path.exists, places)), name
