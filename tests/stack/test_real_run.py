"""A real agent with a sub-agent under ``openhands-otel run``: the bill in Prometheus, the run's tree in Jaeger."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.grafana.generator.queries import spent
from deploy.native.stack import Stack
from openhands_otel import semconv
from openhands_otel._internal.demo.answers import Answer, ToolCall, Usage
from openhands_otel._internal.demo.llm_server import LLMServer

from .jaeger_api import Jaeger, Span
from .prometheus_api import Prometheus, wait

HERE = Path(__file__).parent
SERVICE = "lead-and-worker"
WINDOW = "10m"


def counter(metric: semconv.Metric) -> str:
    return metric.prometheus_name


@pytest.fixture
def provider(llm_server: LLMServer) -> LLMServer:
    """Plays a lead who has the work done, and the worker who does it."""
    task = {"prompt": "do it", "subagent_type": "worker", "description": "the work"}
    call = ToolCall(name="task", arguments=task)
    llm_server.script(
        "lead",
        [
            Answer(tool_calls=(call,), usage=Usage(input=1200, output=80, cached=400, reasoning=16)),
            Answer(text="All done.", usage=Usage(input=1500, output=40, cached=1200)),
        ],
    )
    llm_server.script("worker", [Answer(text="Done.", usage=Usage(input=900, output=30))])
    return llm_server


@pytest.fixture
def ran(stack: Stack, provider: LLMServer, tmp_path: Path) -> LLMServer:
    """The agent has run and ended well; the provider knows what it cost."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    command = [str(Path(sys.executable).with_name("openhands-otel")), "run", "--endpoint", stack.otlp_url]
    command += ["--token-file", str(stack.token_file), "--service-name", SERVICE, "--"]
    command += [sys.executable, str(HERE / "agent.py"), provider.base_url("{script}"), str(workspace)]
    environment = {**os.environ, "OPENHANDS_OTEL_TRACES": "own"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(provider.bill.entries) == 3
    return provider


@pytest.mark.timeout(240)
def test_a_real_run_is_its_bill_in_prometheus_and_a_tree_in_jaeger(
    stack: Stack, ran: LLMServer, prometheus: Prometheus, jaeger: Jaeger
) -> None:
    bill = ran.bill
    cost = counter(semconv.COST)
    assert prometheus.wait_for(spent(cost, WINDOW), bill.total) == pytest.approx(bill.total, rel=1e-9)
    for metric, tokens in (
        (semconv.INPUT_TOKENS, bill.tokens.input),
        (semconv.OUTPUT_TOKENS, bill.tokens.output),
        (semconv.CACHE_READ_TOKENS, bill.tokens.cached),
        (semconv.REASONING_TOKENS, bill.tokens.reasoning),
    ):
        assert prometheus.wait_for(spent(counter(metric), WINDOW), tokens) == tokens
    of_worker = sum(entry.cost or 0 for entry in bill.entries if entry.script == "worker")
    by_role = f'{cost}{{openhands_llm_role="subagent"}}'
    assert prometheus.value(spent(by_role, WINDOW)) == pytest.approx(of_worker, rel=1e-9)

    spans = wait(lambda: jaeger.spans(SERVICE), lambda found: len(found) == 6)
    assert len({found.trace_id for found in spans}) == 1
    assert tree(spans, None) == [
        {
            "invoke_agent": [
                {"chat gpt-4o": []},
                {"chat gpt-4o": []},
                {"execute_tool task": [{"invoke_agent": [{"chat gpt-4o": []}]}]},
            ]
        }
    ]
    costs = [float(found.tags["gen_ai.usage.cost"]) for found in spans if "gen_ai.usage.cost" in found.tags]
    assert sum(costs) == pytest.approx(bill.total, rel=1e-9)

    exemplars = prometheus.ask("query_exemplars", query=f"{cost}", start=0, end=4e9)
    named = {exemplar["labels"]["trace_id"] for series in exemplars for exemplar in series["exemplars"]}
    assert named == {spans[0].trace_id}
    assert jaeger.trace(named.pop())

    # Jaeger's Monitor tab: what its span metrics say, through Prometheus.
    assert wait(lambda: jaeger.calls(SERVICE), bool)


def tree(spans: list[Span], parent: str | None) -> list[object]:
    """Names under names, sorted; an agent's name is left out."""
    found = [{_short(span.name): tree(spans, span.span_id)} for span in spans if span.parent_id == parent]
    return sorted(found, key=str)


def _short(name: str) -> str:
    return "invoke_agent" if name.startswith("invoke_agent") else name
