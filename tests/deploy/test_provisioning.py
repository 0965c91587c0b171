"""What Grafana finds when it starts: both servers, a way from a number to its trace and back, the dashboards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROVISIONING = ROOT / "deploy" / "grafana" / "provisioning"


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((PROVISIONING / name).read_text())


def test_numbers_lead_to_traces_and_traces_to_numbers() -> None:
    sources = {source["uid"]: source for source in read("datasources/stack.yml")["datasources"]}
    assert {uid: source["type"] for uid, source in sources.items()} == {"prometheus": "prometheus", "jaeger": "jaeger"}
    (exemplars,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert sources[exemplars["datasourceUid"]]["type"] == "jaeger"
    # As our exemplars name it in Prometheus (tests/stack/test_real_run.py).
    assert exemplars["name"] == "trace_id"
    assert sources[sources["jaeger"]["jsonData"]["tracesToMetrics"]["datasourceUid"]]["type"] == "prometheus"


def test_addresses_come_from_the_environment_that_compose_gives() -> None:
    environment = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]["environment"]
    for source in read("datasources/stack.yml")["datasources"]:
        assert source["url"].strip("${}") in environment


def test_the_dashboards_are_where_they_are_looked_for() -> None:
    (provider,) = read("dashboards/stack.yml")["providers"]
    volumes = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]["volumes"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in volumes
    assert list((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
