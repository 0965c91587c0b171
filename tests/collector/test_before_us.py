"""A real conversation of which we saw half: what its files say and what we told add up to the provider's bill."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from viewer_process import Viewer, running_viewer

from openhands_otel import OpenHandsInstrumentor
from openhands_otel._internal.cli import main
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel.stats import Spend

if TYPE_CHECKING:
    from openhands.sdk import LocalConversation

HOUR_S = 3600


@pytest.fixture
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        yield viewer


def total(viewer: Viewer) -> float:
    response = viewer.http.get("/api/v1/spend").raise_for_status()
    return Spend.model_validate_json(response.content).total.accumulated_cost


def reported(viewer: Viewer, folder: Path, capsys: pytest.CaptureFixture[str]) -> float:
    capsys.readouterr()
    assert main(["report", "--viewer", viewer.url, "--openhands", str(folder), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["total"]["accumulated_cost"]


def import_(viewer: Viewer, folder: Path) -> None:
    assert main(["import", "--openhands", str(folder), "--endpoint", viewer.url]) == 0


def run(conversation: LocalConversation, text: str) -> None:
    conversation.send_message(text)
    conversation.run()


def make_older(folder: Path) -> None:
    """As if it had been an hour ago."""
    for path in folder.rglob("base_state.json"):
        state = json.loads(path.read_text())
        for meter in state["stats"]["usage_to_metrics"].values():
            for cost in meter["costs"]:
                cost["timestamp"] -= HOUR_S
        path.write_text(json.dumps(state))
    for path in folder.rglob("*.json"):
        when = path.stat().st_mtime - HOUR_S
        os.utime(path, (when, when))


@pytest.mark.parametrize("imported", ["never", "before", "while it runs", "after", "always"])
def test_half_of_a_life_without_us(
    imported: str,
    viewer: Viewer,
    llm_server: LLMServer,
    make_llm: Callable[..., Any],
    make_agent: Callable[..., Any],
    make_conversation: Callable[..., LocalConversation],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, identity = tmp_path / "persisted", uuid.uuid4()

    def opened(name: uuid.UUID = identity) -> LocalConversation:
        return make_conversation(make_agent(make_llm(), tools=False), persistence_dir=str(folder), conversation_id=name)

    def bill() -> Any:
        return pytest.approx(llm_server.bill.total, abs=1e-9)

    first = opened()
    run(first, "hello")
    fork = first.fork(reset_metrics=False)
    run(fork, "another way")
    for each in (first, fork):
        each.close()
    make_older(folder)
    if imported in ("before", "always"):
        import_(viewer, folder)
        assert total(viewer) == bill()
    assert reported(viewer, folder, capsys) == bill()

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{viewer.url}/v1/metrics")
    instrumentor = OpenHandsInstrumentor()
    instrumentor.instrument()
    try:
        again = opened()
        run(again, "and again")
        assert instrumentor.flush(50)
        if imported in ("while it runs", "always"):
            import_(viewer, folder)
        assert reported(viewer, folder, capsys) == bill()
        second = again.fork(reset_metrics=False)
        run(second, "a third way")
        run(again, "go on")
        for each in (again, second):
            each.close()
        assert instrumentor.flush(50)
    finally:
        instrumentor.uninstrument()
    if imported in ("after", "always"):
        import_(viewer, folder)
    assert reported(viewer, folder, capsys) == bill()
    if imported != "never":
        assert total(viewer) <= llm_server.bill.total + 1e-9
    if imported in ("after", "always"):
        assert total(viewer) == bill()
