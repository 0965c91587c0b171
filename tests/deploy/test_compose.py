"""docker-compose.yml: valid, closed, and the servers and configuration of the native stack that is tested."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.environment import make
from deploy.native import stack, variables
from deploy.native.ports import Ports
from deploy.native.programs import PROGRAMS

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
IMAGES = {
    "collector": "otel/opentelemetry-collector-contrib:{}",
    "prometheus": "prom/prometheus:v{}",
    "jaeger": "jaegertracing/jaeger:{}",
}
Service = dict[str, Any]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text())


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Service]:
    return compose["services"]


def validate(file: Path) -> subprocess.CompletedProcess[str]:
    checker = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec"]
    return subprocess.run([*checker, str(file)], capture_output=True, text=True, timeout=100, check=False)


def mounts(service: Service) -> dict[str, str]:
    """What is mounted from this repository: its path there, and in the container."""
    found = (volume.split(":")[:2] for volume in service["volumes"] if isinstance(volume, str))
    return {source: target for source, target in found if source.startswith(".")}


def test_it_is_valid_by_the_compose_specification(tmp_path: Path) -> None:
    done = validate(FILE)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(FILE.read_text().replace("mem_limit:", "memory_limit:"))
    assert validate(wrong).returncode != 0


def test_each_mounted_file_is_there_and_cannot_be_written(services: dict[str, Service]) -> None:
    for service in services.values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        for volume in service["volumes"]:
            if isinstance(volume, dict):
                assert volume["read_only"]
            elif volume.startswith("."):
                assert (ROOT / volume.split(":")[0]).exists(), volume
                assert volume.endswith(":ro")


def test_each_volume_is_named(compose: dict[str, Any], services: dict[str, Service]) -> None:
    used = {volume.split(":")[0] for service in services.values() for volume in service["volumes"] if ":" in volume}
    assert {name for name in used if not name.startswith(".")} == set(compose["volumes"])


def test_each_program_is_of_the_release_that_is_tested_natively(services: dict[str, Service]) -> None:
    for name, image in IMAGES.items():
        assert services[name]["image"] == image.format(PROGRAMS[name].release)
    for service in services.values():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])


def test_each_configuration_is_the_one_that_the_native_stack_runs(services: dict[str, Service]) -> None:
    """``Stack`` reads these files where they are, or through a link, so there is nothing else to compare."""
    native = {
        "collector": {stack.COLLECTOR_CONFIG},
        "collector-remote": {stack.COLLECTOR_CONFIG, stack.TLS_CONFIG},
        "prometheus": {stack.PROMETHEUS_FOLDER / "prometheus.yml", stack.PROMETHEUS_FOLDER / "rules"},
        "jaeger": {stack.JAEGER_CONFIG},
    }
    for name, files in native.items():
        mounted = {(ROOT / source).resolve() for source in mounts(services[name])}
        # Whom Prometheus scrapes are addresses, which differ.
        assert mounted - {stack.PROMETHEUS_FOLDER / "targets"} == files
        given = [word.partition("=")[2] for word in services[name]["command"] if word.startswith("--config")]
        assert set(given) <= set(mounts(services[name]).values())


def test_prometheus_has_the_flags_of_the_native_one(services: dict[str, Service]) -> None:
    places = ("--config.file=", "--storage.tsdb.path=", "--web.listen-address=")
    given = [flag for flag in services["prometheus"]["command"] if not flag.startswith(places)]
    assert sorted(given) == sorted(stack.PROMETHEUS_FLAGS)


def test_the_environment_has_each_variable_that_the_native_one_has(
    tmp_path: Path, services: dict[str, Service]
) -> None:
    native = {"collector": variables.of_collector(tmp_path, Ports()), "jaeger": variables.of_jaeger(tmp_path, Ports())}
    # The token of a container comes as a variable, and in there each server has the customary port to itself.
    for name, given in native.items():
        missing = set(given) - set(services[name]["environment"])
        assert missing <= {"OTLP_TOKEN_FILE", "TELEMETRY_PORT"}


@pytest.mark.parametrize("name", ["collector-config.yaml", "deploy/jaeger/jaeger.yaml", "deploy/collector/tls.yaml"])
def test_each_variable_of_a_configuration_has_a_default_or_a_value(name: str, services: dict[str, Service]) -> None:
    service = services["jaeger" if "jaeger" in name else "collector-remote"]
    asked = re.findall(r"\$\{env:(\w+)\}", (ROOT / name).read_text())
    assert set(asked) <= set(service["environment"])


def test_scrape_targets_are_the_same_programs(services: dict[str, Service]) -> None:
    targets = yaml.safe_load((stack.PROMETHEUS_FOLDER / "targets" / "compose.yml").read_text())
    assert {group["labels"]["program"] for group in targets} == {
        "collector",
        "prometheus",
        "jaeger",
        "jaeger-span-metrics",
    }
    for group in targets:
        for target in group["targets"]:
            assert target.split(":")[0] in {*services, "localhost"}


def test_nothing_is_published_beyond_loopback_unless_asked_for(services: dict[str, Service]) -> None:
    for service in services.values():
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:") or service["profiles"] == ["remote"]


def test_agents_in_containers_reach_the_collector_alone(compose: dict[str, Any], services: dict[str, Service]) -> None:
    assert compose["networks"]["agents"]["name"] == "openhands-otel"
    near = {name for name, service in services.items() if "agents" in service["networks"]}
    assert near == {"collector", "collector-remote"}


def test_there_is_no_default_for_a_secret(services: dict[str, Service]) -> None:
    for name in ("OTLP_TOKEN", "GRAFANA_PASSWORD"):
        uses = re.findall(rf"\$\{{?{name}(.*)", FILE.read_text())
        assert uses
        assert all(use.startswith(":?") for use in uses)
    assert services["grafana"]["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"


def test_the_remote_profile_wants_token_and_certificate(services: dict[str, Service]) -> None:
    remote = services["collector-remote"]
    assert remote["environment"]["OTLP_TOKEN"].startswith("${OTLP_TOKEN:?")
    # A folder that isn't there is not made; without the files in it, the collector ends (tests/stack/test_access.py).
    (certificates,) = (volume for volume in remote["volumes"] if isinstance(volume, dict))
    assert certificates["bind"] == {"create_host_path": False}
    assert "--config=/etc/otelcol/tls.yaml" in remote["command"]


def test_token_and_password_are_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    assert make(file)
    first = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = dict(line.split("=") for line in first.splitlines())
    assert set(found) == {"OTLP_TOKEN", "GRAFANA_PASSWORD"}
    assert all(len(secret) == 64 for secret in found.values())
    assert len(set(found.values())) == 2
    assert not make(file)
    assert file.read_text() == first
