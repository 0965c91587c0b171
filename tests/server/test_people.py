"""Whose a conversation on a server is: what its client says of it, if the server's settings let that be told."""

from __future__ import annotations

from pathlib import Path

import pytest
from viewer_process import Viewer, wait_for

from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel.stats import Spend

from .agent_server import RemoteClient, agent_server, by_run
from .scripts import calling, playing

EXACT = 1e-9


def test_all_that_a_server_spends_on_somebodys_behalf_is_his(
    client: RemoteClient, viewer: Viewer, token_file: Path, llm_server: LLMServer, tmp_path: Path
) -> None:
    """A sub-agent in a tool's thread and a title in an executor among it."""
    if not (client.has(module="openhands.tools.task") and client.has_tags()):
        pytest.skip("this release of OpenHands has no sub-agents or no tags")
    task = {"prompt": "[[script:sub]] look around", "subagent_type": "general-purpose", "description": "a task"}
    llm_server.script("main", playing(calling("task", **task)))
    llm_server.script("sub", playing())
    launch = by_run("--endpoint", viewer.url, "--token-file", str(token_file), "--service-name", "labelled")
    variables = {"OPENHANDS_OTEL_SEND": "tags.team,user_id", "OPENHANDS_OTEL_LABELS": "region=north"}
    with agent_server(launch, tmp_path, **variables) as server:
        conversation = client.open(
            host=server.url,
            provider=llm_server.base_url(),
            tools=("task",),
            tags={"team": "payments", "owner": "somebody"},
            user_id="ada",
        )
        client.run(conversation=conversation, text="[[script:main]] hello")
        assert len({entry.script for entry in llm_server.bill.entries}) > 1

        wait_for(lambda: under(viewer, "user") == {"ada": pytest.approx(llm_server.bill.total)}, "the whole bill", 60)
        assert under(viewer, "team") == {"payments": pytest.approx(llm_server.bill.total, abs=EXACT)}
        assert under(viewer, "region") == {"north": pytest.approx(llm_server.bill.total, abs=EXACT)}
        assert "somebody" not in under(viewer, "owner")


def under(viewer: Viewer, name: str) -> dict[str, float]:
    """What was spent under each value of a label."""
    asked = {"by": name, "where": "service=labelled"}
    spend = Spend.model_validate_json(viewer.http.get("/api/v1/spend", params=asked).raise_for_status().content)
    return {group.keys[name]: group.accumulated_cost for group in spend.groups if group.accumulated_cost}
