"""Agents and viewers of the stage before, with those of now: whoever is updated first, the money is right.

What was before is taken out of this repository's history; where that has been cut off, the tests are skipped.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import httpx
import pytest

from openhands_otel._internal.demo.llm_server import LLMServer

ROOT = Path(__file__).parents[2]
BEFORE = "bf2e346"
"""The end of the stage before."""
PROGRAM = """
import os, sys
from openhands.sdk import LLM, Agent, LocalConversation

llm = LLM(model="openai/gpt-4o-mini", api_key="key", base_url=sys.argv[1], usage_id="agent", num_retries=0)
conversation = LocalConversation(agent=Agent(llm=llm, tools=[]), workspace=os.getcwd(), visualizer=None)
for _ in range(2):
    conversation.send_message("Go on.")
    conversation.run()
conversation.close()
"""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of then, to be put first on PYTHONPATH."""
    archive = subprocess.run(["git", "archive", BEFORE, "src"], cwd=ROOT, capture_output=True)
    if archive.returncode:
        pytest.skip(f"this clone's history does not reach back to {BEFORE}")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as source:
        source.extractall(folder, filter="data")
    return folder / "src"


@pytest.mark.parametrize(("agent_is_new", "viewer_is_new"), [(True, False), (False, True)])
def test_whoever_is_updated_first_the_money_is_right(
    before: Path, tmp_path: Path, agent_is_new: bool, viewer_is_new: bool
) -> None:
    def environment(is_new: bool, **more: str) -> dict[str, str]:
        path = {} if is_new else {"PYTHONPATH": str(before)}
        return os.environ | {"XDG_STATE_HOME": str(tmp_path), "OPENHANDS_OTEL_LABELS": "team=payments"} | path | more

    command = [sys.executable, "-m", "openhands_otel"]
    view = [*command, "view", "--ready-json", "--database", str(tmp_path / "db"), "--port", "0", "--grpc-port", "0"]
    with (
        LLMServer() as server,
        subprocess.Popen(view, stdout=subprocess.PIPE, text=True, env=environment(viewer_is_new)) as viewer,
    ):
        try:
            assert viewer.stdout is not None
            url = json.loads(viewer.stdout.readline())["url"]
            program = [sys.executable, "-c", PROGRAM, server.base_url()]
            told = environment(agent_is_new, OTEL_EXPORTER_OTLP_ENDPOINT=url, OPENHANDS_OTEL_TRACES="off")
            subprocess.run([*command, "run", "--", *program], env=told, cwd=tmp_path, check=True, capture_output=True)
            state = httpx.get(f"{url}/api/v1/state").json()
            bill = server.provider.bill
            assert state["totals"]["accumulated_cost"] == pytest.approx(bill.total, abs=1e-12)
            assert state["totals"]["llm_calls"] == len(bill.entries)
            [conversation] = state["conversations"]
            assert conversation["accumulated_cost"] == pytest.approx(bill.total, abs=1e-12)
            assert conversation["llm_calls"] == len(bill.entries)
            assert conversation["accumulated_token_usage"]["prompt_tokens"] == bill.tokens.input
            assert sum(share["accumulated_cost"] for share in conversation["costs"]) == pytest.approx(bill.total)
            if viewer_is_new:
                for by in ("model", "conversation", "run", "conversation,model,provider,role"):
                    spend = httpx.get(f"{url}/api/v1/spend", params={"by": by}).json()
                    found = sum(group["accumulated_cost"] for group in spend["groups"])
                    assert found == spend["total"]["accumulated_cost"] == pytest.approx(bill.total, abs=1e-12)
        finally:
            viewer.terminate()
