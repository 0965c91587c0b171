"""deploy/fleet/compose.yaml in containers: the bill through balancer, gateways and Thanos, with one of each killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from stack.ledger import ended_as_wanted, entries, total
from stack.otlp_http import post, span, traces
from stack.prometheus_api import Prometheus, wait

from deploy.grafana.generator.queries import spent
from forked import Prepared
from openhands_otel import semconv

from .conftest import Build
from .engine import Podman
from .project import Project
from .spending import spend

AGENTS, SERVERS = "openhands-otel", "openhands-otel-fleet_servers"
COST = semconv.COST.prometheus_name
EXACT = 1e-9


@pytest.fixture(scope="module")
def fleet(podman: Podman, build: Build, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    build("collector", "prometheus", "jaeger", "thanos", "caddy")
    project = Project(podman, "deploy/fleet/compose.yaml", tmp_path_factory.mktemp("fleet"))
    project.up(*project.services)
    assert wait(lambda: httpx.get(f"{project.prometheus_url}/-/ready").status_code, lambda code: code == 200) == 200
    yield project
    podman.end()


def test_each_container_runs(fleet: Project) -> None:
    for service in fleet.services:
        fleet.until_running(service)
        assert fleet.podman.inspect(fleet.container(service))["RestartCount"] == 0, service


def test_agents_in_containers_find_the_balancer_and_nothing_else(fleet: Project) -> None:
    assert "401" in fleet.from_network(AGENTS, "wget -O - http://balancer:4318/v1/traces").stderr
    for service, port in (("receivers", 19291), ("query", 10902), ("gateway-0", 4318), ("receive-0", 19291)):
        address = fleet.address(service, SERVERS)
        assert fleet.from_network(AGENTS, f"nslookup {service}").returncode != 0
        assert fleet.from_network(AGENTS, f"timeout 3 nc -w 2 {address} {port} </dev/null").returncode != 0
        assert fleet.from_network(SERVERS, f"timeout 3 nc -w 2 {address} {port} </dev/null").returncode == 0
    # The balancer is on both networks; what asks for no token listens there on its own loopback only.
    assert fleet.from_network(AGENTS, "timeout 3 nc -w 2 balancer 19291 </dev/null").returncode != 0


@pytest.mark.timeout(300)
def test_the_bill_is_what_thanos_says_though_one_of_each_was_killed(
    fleet: Project, prepared: Prepared, prometheus: Prometheus, tmp_path: Path
) -> None:
    assert wait(lambda: post(fleet, traces("sender", span("x"))).status_code, lambda code: code == 200) == 200
    children = [spend(prepared, fleet, tmp_path, f"agent-{number}", [0.3] * 20, number) for number in range(3)]
    for service in ("gateway-0", "receive-1", "receivers", "balancer"):
        before = fleet.until_running(service)
        os.kill(before, signal.SIGKILL)
        fleet.until_running(service, other_than=before)
    for child in children:
        ended_as_wanted(child, 0)
    spent_in_all = total([entry for child in children for entry in entries(child)])
    of_these = f'{COST}{{job=~"agent-."}}'
    assert prometheus.wait_for(spent(of_these, "10m"), spent_in_all) == pytest.approx(spent_in_all, rel=EXACT)
