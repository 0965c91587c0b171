"""Automations that the real Agent Canvas starts: their spend is what was charged, under the names that they have there.

Canvas' own service dispatches each into an environment of its own, from where it talks to the agent server.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from server.scripts import calling, playing, running
from viewer_process import Viewer

from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel.stats import Spend

from .agent_canvas import AgentCanvas
from .conftest import PATIENCE_S
from .test_real_canvas import EXACT, of, settled

pytestmark = pytest.mark.timeout(PATIENCE_S)

NAMES = {"nightly": "Nightly triage, 02:00", "weekly": "Weekly report"}
"""By the script that the model plays."""
ENDS = calling("finish", message="done", status="success", outcome_summary="done")
"""Its hook lets an automation end in no other way."""


def spend(viewer: Viewer, question: str) -> Spend:
    answer = viewer.http.get(f"/api/v1/spend?last=all&{question}").raise_for_status()
    return Spend.model_validate_json(answer.content)


def test_what_automations_spend_is_told_by_their_names(
    canvas: AgentCanvas, viewer: Viewer, provider: LLMServer, tmp_path: Path
) -> None:
    before = spend(viewer, "").total.accumulated_cost
    # Of different length, so that their costs differ.
    provider.script("nightly", playing(running("true"), ENDS))
    provider.script("weekly", playing(running("true"), running("true"), ENDS))
    ids = {script: canvas.automate(name, f"[[script:{script}]] look") for script, name in NAMES.items()}
    dispatched = {script: canvas.dispatch(automation) for script, automation in ids.items()}
    somebodys = canvas.start("[[script:default]] hello", tmp_path / "work")
    canvas.finish(somebodys)
    runs = {script: canvas.run_of(ids[script], run) for script, run in dispatched.items()}
    settled(viewer, provider)
    bill = {script: math.fsum(one.cost for one in provider.bill.entries if one.script == script) for script in NAMES}
    assert len(set(bill.values())) == len(NAMES)

    by_name = {group.keys["automationname"]: group for group in spend(viewer, "by=automationname").groups}
    by_id = {group.keys["automationid"]: group for group in spend(viewer, "by=automationid").groups}
    for script, name in NAMES.items():
        assert runs[script]["status"] == "COMPLETED", runs[script]
        one = of(viewer, runs[script]["conversation_id"])
        assert one is not None
        assert one.name is not None
        assert one.name.startswith(name)
        assert one.labels == {"automationname": name, "automationid": ids[script]}
        only = spend(viewer, f"where=automationname={name.split(',')[0]}*").total
        for told in (one, by_name[name], by_id[ids[script]], only):
            assert told.accumulated_cost == pytest.approx(bill[script], abs=EXACT), told
    others = spend(viewer, "by=automationname").total.accumulated_cost - math.fsum(bill.values()) - before
    own = of(viewer, somebodys)
    assert own is not None
    assert own.labels == {}
    assert own.accumulated_cost == pytest.approx(others, abs=EXACT)
