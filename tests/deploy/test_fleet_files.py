"""deploy/fleet/compose.yaml: valid, closed, and the servers, flags and files of the native fleet that is tested."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.native import fleet
from deploy.native.programs import PROGRAMS

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy" / "fleet" / "compose.yaml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["services"]
IMAGES = {
    "balancer": ("caddy", "caddy:{}"),
    "receivers": ("caddy", "caddy:{}"),
    "gateway-0": ("collector", "otel/opentelemetry-collector-contrib:{}"),
    "gateway-1": ("collector", "otel/opentelemetry-collector-contrib:{}"),
    "receive-0": ("thanos", "quay.io/thanos/thanos:v{}"),
    "receive-1": ("thanos", "quay.io/thanos/thanos:v{}"),
    "receive-2": ("thanos", "quay.io/thanos/thanos:v{}"),
    "query": ("thanos", "quay.io/thanos/thanos:v{}"),
    "rule": ("thanos", "quay.io/thanos/thanos:v{}"),
    "scraper": ("prometheus", "prom/prometheus:v{}"),
    "jaeger": ("jaeger", "jaegertracing/jaeger:{}"),
}


def test_it_is_valid_by_the_compose_specification() -> None:
    checker = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*checker, str(FILE)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", IMAGES)
def test_each_program_is_of_the_release_that_is_tested_natively(name: str) -> None:
    program, image = IMAGES[name]
    assert SERVICES[name]["image"] == image.format(PROGRAMS[program].release)


def test_nothing_is_published_beyond_loopback() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(published) == 5
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_where_no_token_is_asked_for_agents_find_nobody() -> None:
    open_to_all = [name for name, service in SERVICES.items() if "RECEIVE_BIND" in (service.get("environment") or {})]
    assert open_to_all == ["receivers"]
    assert SERVICES["receivers"]["networks"] == ["servers"]
    binds = [line.split()[1] for line in (ROOT / "deploy/fleet/Caddyfile").read_text().splitlines() if "bind" in line]
    assert binds == ["{$OTLP_BIND:127.0.0.1}"] * 2 + ["{$RECEIVE_BIND:127.0.0.1}"]


def test_each_mounted_file_is_there_and_cannot_be_written() -> None:
    mounted = [v for service in SERVICES.values() for v in service["volumes"] if v.startswith(".")]
    assert len(mounted) > 8
    for volume in mounted:
        assert (ROOT / volume.split(":")[0]).exists(), volume
        assert volume.endswith(":ro")


def test_receivers_and_the_ruler_have_the_flags_of_the_native_ones() -> None:
    for number in range(3):
        (command,) = SERVICES[f"receive-{number}"]["command"]
        assert set(fleet.RECEIVE_FLAGS) <= set(command.split())
        assert SERVICES[f"receive-{number}"]["hostname"] in command
    assert set(fleet.RULE_FLAGS) <= set(SERVICES["rule"]["command"])
    query = SERVICES["query"]["command"]
    assert {f"--query.replica-label={label}" for label in (fleet.REPLICA, fleet.RULE_REPLICA)} <= set(query)
