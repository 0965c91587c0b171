"""OpenHands' own Laminar tracing stays off where only an OTLP endpoint would start it, in any release of OpenHands."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from openhands_otel._internal.capture.laminar import ENDPOINT_VARIABLES, LAMINAR_MODULE, Laminar

ATTACH = "from openhands_otel._internal.capture.laminar import Laminar as Switch; Switch().attach()"
APPLICATIONS_OWN = """
from lmnr import Laminar
Laminar.initialize(project_api_key="key", base_url="http://127.0.0.1", http_port=9, grpc_port=9)
"""
REPORT = """
import json, os, sys
import openhands.sdk
from openhands.sdk.agent import agent
from openhands.sdk.conversation import base
from openhands.sdk.observability import laminar
runs = "lmnr" in sys.modules and sys.modules["lmnr"].Laminar.is_initialized()
answers = [module.should_enable_observability() for module in (laminar, agent, base)]
print(json.dumps([answers, runs]), flush=True)
os._exit(0)
"""
"""Leaves at once: a Laminar that runs would try to deliver to nobody for a while."""
LATE = """
import logging
import openhands.sdk
logging.getLogger("openhands_otel").addHandler(logging.FileHandler("our.log"))
from openhands_otel._internal.capture.laminar import Laminar as Switch
switch = Switch()
switch.attach()
switch.attach()
"""
LATE_CASE = "an endpoint, and we come late"
CASES = {
    LATE_CASE: (LATE, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, ""),
    "an endpoint without us": ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, ""),
    "an endpoint": (ATTACH, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, ""),
    "an endpoint in .env": (ATTACH, {}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://127.0.0.1:9\n"),
    "the application's own Laminar": (f"{ATTACH}\n{APPLICATIONS_OWN}", {"OTEL_ENDPOINT": "http://127.0.0.1:9"}, ""),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """([what each module answers], whether Laminar runs) for each case, or what was said when it broke down."""
    running: dict[str, subprocess.Popen[str]] = {}
    homes: dict[str, Path] = {}
    try:
        for name, (start, variables, dotenv) in CASES.items():
            home = homes[name] = tmp_path_factory.mktemp("laminar")
            (home / ".env").write_text(dotenv)
            running[name] = subprocess.Popen(
                [sys.executable, "-c", f"{start}\n{REPORT}"],
                cwd=home,
                env={**os.environ, **variables},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        outcomes: dict[str, Any] = {}
        for name, process in running.items():
            out, errors = process.communicate(timeout=500)
            outcomes[name] = errors if process.returncode else json.loads(out.splitlines()[-1])
        outcomes["log of the late one"] = log.read_text() if (log := homes[LATE_CASE] / "our.log").exists() else ""
        yield outcomes
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def starts(outcome: Any) -> bool:
    """Laminar of old releases breaks down with an OpenTelemetry of today, and the import of OpenHands with it."""
    broke_down = isinstance(outcome, str) and "maybe_init_laminar" in outcome and "/lmnr/" in outcome
    return broke_down or outcome == [[True, True, True], True]


def test_an_endpoint_would_start_it(outcomes: dict[str, Any]) -> None:
    assert starts(outcomes["an endpoint without us"])


@pytest.mark.parametrize("case", ["an endpoint", "an endpoint in .env"])
def test_with_us_an_endpoint_does_not_start_it(outcomes: dict[str, Any], case: str) -> None:
    assert outcomes[case] == [[False, False, False], False]


def test_one_that_runs_before_we_come_is_said_once(outcomes: dict[str, Any]) -> None:
    if isinstance(outcomes[LATE_CASE], str):
        assert starts(outcomes[LATE_CASE])
        pytest.skip("Laminar of this release of OpenHands breaks down with an OpenTelemetry of today")
    assert outcomes[LATE_CASE][1], "it goes on"
    assert outcomes["log of the late one"].count("Laminar tracing runs already") == 1


def test_one_that_the_application_started_goes_on(outcomes: dict[str, Any]) -> None:
    assert starts(outcomes["the application's own Laminar"])


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    from openhands.sdk.observability import laminar

    if hasattr(laminar, "_observability_enabled"):
        monkeypatch.setattr(laminar, "_observability_enabled", False)
    for name in (*ENDPOINT_VARIABLES, "LMNR_PROJECT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return laminar


def test_a_project_key_is_a_wish_for_laminar(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    switch = Laminar()
    switch.attach()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        assert not module.should_enable_observability()
        monkeypatch.setenv("LMNR_PROJECT_API_KEY", "key")
        assert module.should_enable_observability()
    finally:
        switch.detach()


@pytest.mark.parametrize("endpoint", sorted(ENDPOINT_VARIABLES))
def test_detaching_puts_the_identical_object_back(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    before = (vars(module)["get_env"], module.should_enable_observability)
    monkeypatch.setenv(endpoint, "http://127.0.0.1:9")
    for _ in range(3):
        switch = Laminar()
        switch.attach()
        switch.attach()
        assert not module.should_enable_observability()
        switch.detach()
        switch.detach()

    assert vars(module)["get_env"] is before[0]
    assert module.should_enable_observability is before[1]
    assert module.should_enable_observability()


def test_it_is_said_once_and_only_where_it_makes_a_difference(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "openhands_otel")
    switch = Laminar()
    switch.attach()
    try:
        module.should_enable_observability()
        assert caplog.messages == []
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        module.should_enable_observability()
        module.should_enable_observability()
    finally:
        switch.detach()

    assert [(record.levelname, "LMNR_PROJECT_API_KEY" in record.message) for record in caplog.records] == [
        ("INFO", True)
    ]


def test_the_rest_of_the_environment_is_read_as_before(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMNR_BASE_URL", "http://127.0.0.1")
    switch = Laminar()
    switch.attach()
    try:
        assert vars(module)["get_env"]("LMNR_BASE_URL") == "http://127.0.0.1"
        assert vars(module)["get_env"]("NOT_SET_ANYWHERE") is None
    finally:
        switch.detach()
    assert module.__name__ == LAMINAR_MODULE


@pytest.mark.parametrize(("traces", "seen"), [("auto", None), ("laminar", "http://127.0.0.1:9")])
def test_the_setting_leaves_an_endpoint_to_laminar(
    traces: str, seen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openhands.sdk.observability import laminar

    from openhands_otel import OpenHandsInstrumentor

    monkeypatch.setenv("OPENHANDS_OTEL_TRACES", traces)
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    OpenHandsInstrumentor().instrument()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        assert laminar.get_env("OTEL_EXPORTER_OTLP_ENDPOINT") == seen
    finally:
        OpenHandsInstrumentor().uninstrument()
