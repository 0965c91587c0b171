"""The rules' text: one formula, names that exist, a runbook for each alert. promtool's part is in ``tests/stack``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.generator.queries import VARIABLES, spent
from openhands_otel.semconv import prometheus_label
from prometheus_names import COLLECTOR, KNOWN, metric_names

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules"
PROOFS = ROOT / "tests" / "stack" / "rules"
WINDOW = re.compile(r":(?:spent|made|failed)(\w+)$")


def rules(file: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / file).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


RECORDED = rules("recording.yml")
ALERTS = rules("alerts.yml")
RECORDS = {rule["record"] for rule in RECORDED}


def squeezed(expression: str) -> str:
    return re.sub(r"\s", "", expression)


@pytest.mark.parametrize("rule", [r for r in RECORDED if WINDOW.search(r["record"])], ids=lambda rule: rule["record"])
def test_what_is_recorded_over_a_window_is_the_formula_of_the_dashboards(rule: dict[str, Any]) -> None:
    window = WINDOW.search(rule["record"])
    level = re.match(r"sum by \(([\w, ]+)\) \(", rule["expr"])
    # Several where the newest GenAI names call it otherwise.
    series = list(dict.fromkeys(re.findall(r"\bmax_over_time\((\S+?(?:\{[^}]*\})?)\[", rule["expr"])))
    assert window
    assert level
    by = level.group(1).split(", ")
    assert squeezed(rule["expr"]) == squeezed(spent(series, window.group(1), by))


@pytest.mark.parametrize("rule", [r for r in RECORDED if WINDOW.search(r["record"])], ids=lambda rule: rule["record"])
def test_what_is_recorded_over_a_window_keeps_whose_it_is(rule: dict[str, Any]) -> None:
    """Else a dashboard that shows one team, namespace or environment would find nothing."""
    level = re.match(r"sum by \(([\w, ]+)\)", rule["expr"])
    assert level
    assert {"job", *VARIABLES.values()} <= set(level.group(1).split(", "))


def test_what_the_dashboards_select_by_stands_on_every_series_whichever_way_it_comes() -> None:
    """Over OTLP into Prometheus or Thanos, or scraped from the collector."""
    folder = ROOT / "deploy"
    prometheus = yaml.safe_load((folder / "prometheus" / "prometheus.yml").read_text())
    collector = yaml.safe_load((ROOT / "collector-config.yaml").read_text())
    fleet = re.findall(
        r"--receive.otlp-promote-resource-attributes=(\S+)", (folder / "fleet" / "compose.yaml").read_text()
    )
    promoted = prometheus["otlp"]["promote_resource_attributes"]
    scraped = collector["exporters"]["prometheus"]["resource_constant_labels"]["included"]
    assert set(promoted) == set(scraped) == set(fleet)
    assert set(VARIABLES.values()) <= {prometheus_label(attribute) for attribute in promoted}


def test_a_look_back_is_a_day_at_least() -> None:
    found = re.findall(r"last_over_time\([^[]*\[(\w+)\] offset", (RULES / "recording.yml").read_text())
    assert len(found) >= 8
    assert set(found) == {"1d"}


@pytest.mark.parametrize("rule", [*RECORDED, *ALERTS], ids=lambda rule: rule.get("record") or rule["alert"])
def test_each_name_in_a_rule_is_one_that_is_sent_or_recorded(rule: dict[str, Any]) -> None:
    used = metric_names(rule["expr"])
    # Prometheus' own, of what it scrapes.
    assert used or rule["expr"].startswith("up{")
    assert used <= KNOWN | COLLECTOR | RECORDS


def test_what_is_recorded_has_a_use() -> None:
    expressions = " ".join(rule["expr"] for rule in (*RECORDED, *ALERTS))
    assert {record for record in RECORDS if record not in expressions} == set()


def anchors(page: Path) -> set[str]:
    headings = [line.lstrip("# ") for line in page.read_text().splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_each_alert_has_a_severity_a_summary_and_a_section_in_the_runbook(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"info", "warning", "critical"}
    assert "{{ $" in alert["annotations"]["summary"]
    page, _, section = alert["annotations"]["runbook"].partition("#")
    assert section in anchors(ROOT / page)
    assert alert["alert"].lower() in section


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_each_alert_is_proven_to_fire_and_not_to_fire(alert: dict[str, Any]) -> None:
    proofs = [
        bool(step.get("exp_alerts"))
        for file in PROOFS.glob("*.yml")
        for test in yaml.safe_load(file.read_text())["tests"]
        for step in test.get("alert_rule_test", ())
        if step["alertname"] == alert["alert"]
    ]
    assert set(proofs) == {True, False}
