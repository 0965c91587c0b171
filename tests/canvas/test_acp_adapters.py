"""The real Claude Code and Codex, by their ACP adapters: what their providers charged is what the viewer says.

Each run has two turns. In the first one a tool runs, so that the turn has two model calls.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from viewer_process import Viewer, running_viewer, wait_for

from openhands_otel._internal.demo.answers import Answer, LLMRequest, Usage, call, say
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel.stats import ConversationStats

from .agent_canvas import ANSWER_S, Node, NotInstalled, install_adapter
from .anthropic_server import Block, anthropic_server
from .conftest import PATIENCE_S, with_us

pytestmark = pytest.mark.timeout(PATIENCE_S)

EXACT = 1e-9
RUN_S = 240
TURNS = 2
RUN = Path(__file__).parent / "acp_run.py"
CODEX_PRICES = {
    "gpt-5.2": (1.75, 0.175, 14.0),
    "gpt-5.5": (5.0, 0.5, 30.0),
    "gpt-6-astra": (10.0, 1.0, 50.0),
}
"""US dollars per million tokens: input, cached input, output."""
NO_SOCKET = {"features": {"responses_websockets": False, "responses_websockets_v2": False}}
"""The scripted provider has no WebSocket, and Codex tries for some seconds."""


@pytest.fixture
def viewer() -> Iterator[Viewer]:
    """One that has heard of nothing else."""
    with running_viewer() as viewer:
        yield viewer


def adapter(name: str) -> tuple[Node, list[str]]:
    try:
        node, script = install_adapter(name)
    except NotInstalled as error:
        pytest.skip(f"{name} cannot be installed here: {error}")
    return node, [str(node.node), str(script)]


def run(viewer: Viewer, folder: Path, model: str, name: str, variables: Mapping[str, str]) -> None:
    node, command = adapter(name)
    home = folder / "home"
    home.mkdir()
    kept = {key: value for key, value in os.environ.items() if key.startswith(("LANG", "LC_", "XDG_STATE_HOME"))}
    own = {
        "PATH": node.path,
        "HOME": str(home),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OPENHANDS_SUPPRESS_BANNER": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    done = subprocess.run(
        [*with_us(viewer), sys.executable, str(RUN), str(folder), model, *command],
        env={**kept, **own, **variables},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def settled(viewer: Viewer, bill: float) -> ConversationStats:
    """Its conversation, when all of the bill is there."""

    def equal() -> bool:
        return abs(viewer.state().totals.accumulated_cost - bill) <= EXACT

    wait_for(equal, f"a bill of {bill}", ANSWER_S)
    (conversation,) = viewer.state().conversations
    return conversation


def of_series(viewer: Viewer, label: str) -> set[str]:
    """The values that a label of the metrics has."""
    text = viewer.http.get("/metrics").raise_for_status().text
    lines = [line for line in text.splitlines() if f'{label}="' in line and not line.startswith("#")]
    return {line.partition(f'{label}="')[2].partition('"')[0] for line in lines}


def check_the_model_is(model: str, viewer: Viewer, conversation: ConversationStats) -> None:
    """On its card, in the series, in its spans."""
    assert conversation.model_name == model
    assert {share.model for share in conversation.costs} == {model}
    assert {each.model for each in conversation.calls_by_model} == {model}
    assert of_series(viewer, "gen_ai_request_model") == {model}
    path = f"/api/v1/conversations/{conversation.conversation_id}/calls"

    def runs() -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = viewer.http.get(path).raise_for_status().json()["calls"]
        return calls

    wait_for(lambda: len(runs()) == TURNS, "the spans of its runs", ANSWER_S)
    assert {each["model"] for each in runs()} == {model}
    assert math.fsum(each["cost"] for each in runs()) == pytest.approx(conversation.accumulated_cost, abs=EXACT)


@pytest.mark.parametrize(
    ("given", "sold", "shown"),
    [
        pytest.param("", "gpt-6-astra", "gpt-6-astra", id="its own"),
        pytest.param("gpt-5.2", "gpt-5.2", "gpt-5.2", id="one that OpenHands set, and estimates"),
        pytest.param("gpt-5.5/high", "gpt-5.5", "gpt-5.5/high", id="with an effort"),
    ],
)
def test_codex_costs_what_its_calls_cost(viewer: Viewer, tmp_path: Path, given: str, sold: str, shown: str) -> None:
    def play(request: LLMRequest) -> Answer:
        spent = Usage(input=1000 + request.number, cached=400, output=50 + request.number, reasoning=20)
        inputs: list[dict[str, Any]] = request.body["input"]
        asked = "[[turn:1]]" in json.dumps(inputs[-1])
        return call("exec_command", {"cmd": "echo hi"}, usage=spent) if asked else say("Done.", usage=spent)

    with LLMServer() as provider:
        provider.script("codex", play)
        variables = {
            "CODEX_HOME": str(tmp_path / "codex"),
            "OPENAI_API_KEY": "none",
            "OPENAI_BASE_URL": provider.base_url("codex"),
            "CODEX_CONFIG": json.dumps(NO_SOCKET),
        }
        (tmp_path / "codex").mkdir()
        run(viewer, tmp_path, given, "codex-acp", variables)
        entries = provider.bill.entries
    assert {entry.model for entry in entries} == {sold}
    assert len(entries) == 3
    full, cached, output = CODEX_PRICES[sold]
    used = [entry.usage for entry in entries]
    micros = [(each.input - each.cached) * full + each.cached * cached + each.output * output for each in used]
    conversation = settled(viewer, math.fsum(micros) * 1e-6)
    tokens = conversation.accumulated_token_usage
    assert tokens.prompt_tokens == sum(each.input for each in used)
    assert tokens.completion_tokens == sum(each.output for each in used)
    assert tokens.cache_read_tokens == sum(each.cached for each in used)
    assert tokens.reasoning_tokens == sum(each.reasoning for each in used)
    assert conversation.unpriced_calls == 0
    assert of_series(viewer, "openhands_cost_source") == {"acp_estimated"}
    check_the_model_is(shown, viewer, conversation)


@pytest.mark.parametrize(
    ("given", "model"),
    [pytest.param("", "claude-opus-5", id="its own"), pytest.param("sonnet", "claude-sonnet-5", id="one of its menu")],
)
def test_claude_code_costs_what_its_calls_cost(viewer: Viewer, tmp_path: Path, given: str, model: str) -> None:
    def play(body: dict[str, Any]) -> Block:
        said = json.dumps(body["messages"])
        if "[[turn:1]]" in said and "tool_result" not in said:
            return Block(tool="Bash", arguments={"command": "echo hi", "description": "say hi"})
        return Block("Done.")

    with anthropic_server(play) as provider:
        variables = {
            "ANTHROPIC_API_KEY": "none",
            "ANTHROPIC_BASE_URL": provider.url,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            # It refuses to do without asking what root may do, elsewhere.
            "IS_SANDBOX": "1",
        }
        run(viewer, tmp_path, given, "claude-agent-acp", variables)
        bill = list(provider.bill)
    assert {charge.model for charge in bill} == {model}
    assert len(bill) == 3
    conversation = settled(viewer, provider.total)
    tokens = conversation.accumulated_token_usage
    assert tokens.prompt_tokens == sum(charge.input + charge.read + charge.written for charge in bill)
    assert tokens.completion_tokens == sum(charge.output for charge in bill)
    assert tokens.cache_read_tokens == sum(charge.read for charge in bill)
    assert tokens.cache_write_tokens == sum(charge.written for charge in bill)
    assert conversation.unpriced_calls == 0
    check_the_model_is(model, viewer, conversation)
