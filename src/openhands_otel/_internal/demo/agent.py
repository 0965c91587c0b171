"""The demo's agent: a real OpenHands conversation in a process of its own, started under ``opentelemetry-instrument``.

It knows nothing of the viewer. Into a file it writes, one JSON object a line, each cost at the moment OpenHands adds
it, and last what OpenHands itself says it has spent, for the comparison at the end of the demo.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from openhands_otel._internal.demo.scenario import (
    AGENT_MODEL,
    AGENT_SCRIPT,
    CONDENSER_MAX_EVENTS,
    CONDENSER_MODEL,
    CONDENSER_SCRIPT,
    TASK,
)
from openhands_otel.events import CostAdded, Event

if TYPE_CHECKING:
    from openhands.sdk import LLM, Agent, LocalConversation

API_KEY = "demo"


def main() -> int:
    """Do the demo's task; the exit code says whether the agent finished it."""
    parser = argparse.ArgumentParser(prog="python -m openhands_otel._internal.demo.agent", description=__doc__)
    parser.add_argument("--provider", required=True, help="address of the scripted LLM server")
    parser.add_argument("--workspace", required=True, help="directory that the agent works in")
    parser.add_argument("--report", required=True, type=Path, help="file for costs and totals")
    options = parser.parse_args()
    with options.report.open("w", buffering=1) as report:
        return _work(options.provider, options.workspace, report)


def _work(provider: str, workspace: str, report: TextIO) -> int:
    from openhands.sdk import LocalConversation

    from openhands_otel import subscribe

    def on_event(event: Event) -> None:
        if isinstance(event, CostAdded):
            _write(report, {"at": event.at, "amount": event.amount})

    unsubscribe = subscribe(on_event)
    conversation = LocalConversation(agent=_agent(provider), workspace=workspace, visualizer=None)
    try:
        conversation.send_message(TASK)
        conversation.run()
        _write(report, _own_totals(conversation))
        return 0 if conversation.state.execution_status.value == "finished" else 1
    finally:
        conversation.close()
        unsubscribe()


def _agent(provider: str) -> Agent:
    from openhands.sdk import Agent, LLMSummarizingCondenser, Tool
    from openhands.tools.file_editor import FileEditorTool
    from openhands.tools.terminal import TerminalTool

    # A tmux server would outlive the demo.
    shell = Tool(name=TerminalTool.name, params={"terminal_type": "subprocess"})
    condenser_llm = _llm(provider, CONDENSER_SCRIPT, CONDENSER_MODEL, "condenser")
    return Agent(
        llm=_llm(provider, AGENT_SCRIPT, AGENT_MODEL, "agent"),
        tools=[shell, Tool(name=FileEditorTool.name)],
        condenser=LLMSummarizingCondenser(llm=condenser_llm, max_size=CONDENSER_MAX_EVENTS, keep_first=2),
    )


def _llm(provider: str, script: str, model: str, usage_id: str) -> LLM:
    from openhands.sdk import LLM

    return LLM(
        model=f"openai/{model}", base_url=f"{provider}/s/{script}/v1", api_key=API_KEY, usage_id=usage_id, num_retries=1
    )


def _own_totals(conversation: LocalConversation) -> dict[str, Any]:
    spent = conversation.conversation_stats.get_combined_metrics()
    tokens = spent.accumulated_token_usage
    return {
        "conversation_id": str(conversation.id),
        "cost": spent.accumulated_cost,
        "calls": len(spent.response_latencies),
        "input": tokens.prompt_tokens if tokens else 0,
        "cached": tokens.cache_read_tokens if tokens else 0,
        "output": tokens.completion_tokens if tokens else 0,
        "reasoning": tokens.reasoning_tokens if tokens else 0,
    }


def _write(report: TextIO, line: dict[str, Any]) -> None:
    report.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    sys.exit(main())
