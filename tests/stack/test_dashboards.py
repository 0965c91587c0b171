"""The dashboards before a real run: each expression is valid and has something to show, and the money is the bill."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards import EXPRESSIONS, Expression
from deploy.native.build import binary
from deploy.native.stack import PROMETHEUS_FOLDER, Stack
from openhands_otel import semconv
from openhands_otel._internal.demo.llm_server import LLMServer

from .prometheus_api import Prometheus, wait
from .working import agent_at_work

RANGE_S = 600
STEP_S = 5
EXACT = 1e-9
CONVERSATIONS, PRICED = 6, 4
"""Main, its sub-agent, streamed, asking; the one without a price and the refused one cost nothing."""
BUDGETS = "day=20,team=100,experiment=500"


@pytest.fixture
def rules_every_second(stack: Stack) -> None:
    """The rules as they are, evaluated often enough that nobody waits for the next minute."""
    rules = stack.data / "etc" / "prometheus" / "rules"
    rules.unlink()
    rules.mkdir()
    for file in (PROMETHEUS_FOLDER / "rules").glob("*.yml"):
        (rules / file.name).write_text(re.sub(r"(?m)^(\s+interval:) .*$", r"\1 1s", file.read_text()))
    os.kill(stack.prometheus.pid, signal.SIGHUP)


@pytest.fixture(params=["", semconv.NEWEST_GENAI, semconv.BOTH_GENAI], ids=["today", "newest", "both"])
def provider_of_agent(
    stack: Stack,
    rules_every_second: None,
    prometheus: Prometheus,
    llm_server: LLMServer,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[LLMServer]:
    """Of a real agent that has done all there is to show and waits for its last answer, under each switch of names."""

    def waits() -> bool:
        return prometheus.value(WAITING) == 1

    variables = {"OPENHANDS_OTEL_BUDGETS": BUDGETS, semconv.STABILITY_OPT_IN: request.param}
    with agent_at_work(stack, llm_server, tmp_path, waits, **variables):
        yield llm_server


WAITING = """
count(openhands_conversation_activity_seconds{openhands_conversation_activity="llm"}
  and on (gen_ai_conversation_id) openhands_conversation_unreconciled_cost_USD
  and on (instance) openhands_llm_unpriced_calls_total > 0
  and on (instance) gen_ai_execute_tool_duration_seconds_count{error_type="RuntimeError"})
"""
"""The main conversation is in its second run, and the others have been."""


def test_each_expression_is_valid_promql(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": each.over(RANGE_S)} for number, each in enumerate(EXPRESSIONS)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        [binary("promtool"), "check", "rules", file], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def shown(prometheus: Prometheus, expression: Expression) -> list[Any]:
    """As Grafana would ask, values that are no number left out."""
    now = time.time()
    if expression.instant:
        found = prometheus.ask("query", query=expression.over(RANGE_S), time=now)["result"]
        return [series for series in found if series["value"][1] != "NaN"]
    span = {"start": now - RANGE_S, "end": now, "step": STEP_S}
    found = prometheus.ask("query_range", query=expression.over(RANGE_S), **span)["result"]
    return [series for series in found if any(value != "NaN" for _, value in series["values"])]


@pytest.mark.timeout(300)
def test_every_panel_has_something_to_show_and_the_money_is_the_bill(
    provider_of_agent: LLMServer, prometheus: Prometheus
) -> None:
    empty = list(EXPRESSIONS)

    def missing() -> list[Expression]:
        empty[:] = [expression for expression in empty if not shown(prometheus, expression)]
        return empty

    assert [str(expression) for expression in wait(missing, lambda left: not left)] == []

    bill = provider_of_agent.bill
    priced = sum(entry.cost for entry in bill.entries if entry.script != "unpriced")

    def figure(panel: str, reference: str = "A") -> float:
        (expression,) = (each for each in EXPRESSIONS if each.panel == panel and each.reference == reference)
        return sum(float(series["value"][1]) for series in shown(prometheus, expression))

    assert figure("Spent") == pytest.approx(priced, rel=EXACT)
    for panel in ("By model", "By role", "By agent", "By service"):
        assert figure(panel) == pytest.approx(priced, rel=EXACT)
    assert figure("Unpriced calls") == 1
    assert figure("Sub-agents") == 0
    assert figure("Running") == 1
    costs = [float(row["value"][1]) for row in shown(prometheus, _column("cost"))]
    assert len(costs) == PRICED
    assert sum(costs) == pytest.approx(priced, rel=EXACT)

    def traces_shown() -> list[str]:
        return [row["metric"]["openhands_conversation_trace_id"] for row in shown(prometheus, _column("trace_id"))]

    # What took the place of a trace is seen at the next step of the expression's own.
    traces = wait(traces_shown, lambda found: len(found) == len(set(found)))
    assert len(traces) == len(set(traces)) == CONVERSATIONS
    states = [row["metric"]["openhands_conversation_status"] for row in shown(prometheus, _column("status_ratio"))]
    assert sorted(states) in (
        sorted(["error", "finished", "finished", "finished", "running", child]) for child in ("finished", "closed")
    )
    used = {row["metric"]["openhands_budget_scope"] for row in shown(prometheus, _panel("Budgets used"))}
    assert used == {"day", "team", "experiment"}


def _column(word: str) -> Expression:
    return next(each for each in EXPRESSIONS if each.panel == "Conversations" and f"_{word}" in each.text)


def _panel(title: str) -> Expression:
    return next(each for each in EXPRESSIONS if each.panel == title)
