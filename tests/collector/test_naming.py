"""A conversation has a name that a person knows it by, and the labels of its processes and of its calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from viewer_process import running_viewer

from openhands_otel import semconv
from openhands_otel.semconv import LABEL_PREFIX
from otlp_sender import Sender

from .held import HeldStore

BEGAN = 1_764_253_920 * 10**9
"""2025-11-27, 14:32 in Greenwich."""


def prefixed(labels: dict[str, str]) -> dict[str, str]:
    return {f"{LABEL_PREFIX}{name}": value for name, value in labels.items()}


def process(instance: str = "p", labels: dict[str, str] | None = None, **more: Any) -> Sender:
    return Sender(instance, "agent.py", BEGAN, resource=prefixed(labels or {}), **more)


def spent(by: Sender, labels: dict[str, str] | None = None) -> Sender:
    named = {semconv.CONVERSATION_ID: "c", **prefixed(labels or {})}
    return by.add(semconv.CONVERSATION_COST, 0.5, named, at=BEGAN + 10**9)


@pytest.mark.parametrize(
    ("zone", "name"),
    [("UTC", "agent.py 14:32"), ("Asia/Kolkata", "agent.py 20:02"), ("America/New_York", "agent.py 09:32")],
)
def test_a_conversation_without_a_name_is_known_by_its_service_and_its_start(zone: str, name: str) -> None:
    with HeldStore() as held:
        held.store.conversations.zone = ZoneInfo(zone)
        held.take(spent(process(), {"instance": "a"}))
        assert held.conversation("c").name == name


def test_the_label_called_name_is_its_name() -> None:
    with HeldStore() as held:
        held.take(spent(process(labels={"name": "nightly"})))
        assert held.conversation("c").name == "nightly"
        held.take(spent(process(), {"name": "checkout-fix"}))
        assert held.conversation("c").name == "checkout-fix"


def test_labels_are_those_of_processes_and_over_them_those_of_calls(tmp_path: Path) -> None:
    database = tmp_path / "history.db"
    with HeldStore(database) as held:
        held.take(spent(process("one", {"team": "payments", "host": "a"}), {"instance": "1"}))
        held.take(spent(process("two", {"team": "payments", "host": "b"}), {"instance": "2", "team": "search"}))
        labels = held.conversation("c").labels
        assert labels == {"team": "search", "host": "b", "instance": "2"}
    with HeldStore(database) as held:
        assert held.conversation("c").labels == labels


def test_a_stranger_cannot_make_it_long() -> None:
    with HeldStore() as held:
        for number in range(100):
            held.take(spent(process(), {f"label{number}": "x" * 10_000}))
        assert len(held.conversation("c").labels) <= 32
        assert len(held.conversation("c").model_dump_json()) < 100_000


def test_the_viewers_zone_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_TIMEZONE", "Asia/Kolkata")
    with running_viewer() as viewer:
        viewer.send(spent(process()))
        (stats,) = viewer.state().conversations
        assert stats.name == "agent.py 20:02"


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ({"automationname": "nightly triage", "acpserver": "codex"}, "nightly triage 14:32"),
        ({"acpserver": "codex"}, "codex 14:32"),
        ({"automationname": "nightly triage", "name": "checkout-fix"}, "checkout-fix"),
    ],
)
def test_what_agent_canvas_starts_is_known_by_its_automation_or_its_acp_server(
    labels: dict[str, str], name: str
) -> None:
    with HeldStore() as held:
        held.store.conversations.zone = ZoneInfo("UTC")
        held.take(spent(process(), labels))
        assert held.conversation("c").name == name
