"""``openhands-otel doctor`` through a real collector into a real Prometheus."""

from __future__ import annotations

import json

import pytest

from deploy.native.stack import Stack
from openhands_otel import semconv
from openhands_otel._internal.cli import main

from .prometheus_api import Prometheus


def test_the_probe_is_read_back_behind_a_collector_and_no_total_knows_it(
    stack: Stack, prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", stack.otlp_url)
    monkeypatch.setenv("OPENHANDS_OTEL_TOKEN_FILE", str(stack.token_file))
    assert main(["doctor", "--json", "--prometheus", stack.prometheus_url]) == 0
    found = json.loads(capsys.readouterr().out)["findings"]
    levels = {each["check"]: each["level"] for each in found}
    assert levels["probe"] == levels["read back"] == levels["clocks"] == "ok"
    assert prometheus.samples(semconv.COST.prometheus_name) == {}
