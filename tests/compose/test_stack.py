"""docker-compose.yml in containers: closed, healthy, exact, and back by itself when something in it is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from stack.ledger import ended_as_wanted, entries, total
from stack.otlp_http import post, span, traces
from stack.prometheus_api import Prometheus, wait
from stack.test_real_run import SERVICE, provider, ran

from deploy.grafana.generator.queries import spent
from forked import Prepared
from openhands_otel import semconv
from openhands_otel._internal.demo.llm_server import LLMServer

from .conftest import Build
from .engine import Podman
from .project import Project
from .spending import spend

__all__ = ["provider", "ran"]
SERVICES = ("prometheus", "jaeger", "collector")
AGENTS, SERVERS = "openhands-otel", "openhands-otel_servers"
COST = semconv.COST.prometheus_name
PUBLISHED = {4317, 4318, 9090, 16686}
EXACT = 1e-9


@pytest.fixture(scope="module")
def stack(podman: Podman, build: Build, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    build(*SERVICES)
    project = Project(podman, "docker-compose.yml", tmp_path_factory.mktemp("stack"))
    project.up(*SERVICES)
    ready(project)
    yield project
    podman.end()


def ready(project: Project) -> None:
    """Until each server answers; the collector's answer is that it wants a token."""
    for url, status in (
        (f"{project.prometheus_url}/-/ready", 200),
        (f"{project.jaeger_url}/api/services", 200),
        (f"{project.otlp_url}/v1/traces", 401),
    ):
        code = wait(lambda url=url: httpx.request("POST" if "v1" in url else "GET", url).status_code, status.__eq__)
        assert code == status, url


def test_each_is_confined(stack: Project) -> None:
    for service in SERVICES:
        pid = stack.pid(service)
        with pytest.raises(OSError, match="Read-only file system"):
            Path(f"/proc/{pid}/root/written").touch()
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert stack.podman.inspect(stack.container(service))["HostConfig"]["Memory"] > 0


def test_prometheus_passes_its_own_health_check(stack: Project) -> None:
    # Where there is no systemd, Podman runs it only when it is told to.
    assert stack.podman.run("podman", "healthcheck", "run", stack.container("prometheus")).returncode == 0
    assert stack.from_network(SERVERS, "wget -q -O - http://collector:13133").returncode == 0


def test_four_targets_are_scraped_and_the_rules_are_loaded(stack: Project, prometheus: Prometheus) -> None:
    assert prometheus.wait_for("count(up == 1)", 4) == 4
    assert prometheus.ask("rules")["groups"]


def test_nothing_is_published_beyond_loopback(stack: Project) -> None:
    listening = {found.laddr for found in psutil.net_connections("tcp") if found.status == psutil.CONN_LISTEN}
    assert {address.port for address in listening} >= PUBLISHED
    own_dns = {address for address in listening if address.port == 53}
    assert {address.ip for address in listening - own_dns} == {"127.0.0.1"}


def test_without_the_token_nobody_gets_in(stack: Project) -> None:
    body = traces("sender", span("secret")).SerializeToString()
    headers = {"Content-Type": "application/x-protobuf"}
    assert httpx.post(f"{stack.otlp_url}/v1/traces", content=body, headers=headers).status_code == 401
    assert post(stack, traces("sender", span("secret")), token="wrong").status_code == 401
    assert post(stack, traces("sender", span("welcome"))).status_code == 200


def test_agents_in_containers_find_the_collector_and_nothing_else(stack: Project) -> None:
    collector = stack.from_network(
        AGENTS, "wget -O - http://collector:4318/v1/traces; wget -q -O - http://collector:8888/metrics"
    )
    assert "401 Unauthorized" in collector.stderr
    assert "otelcol_process_uptime" in collector.stdout
    for service, port in (("prometheus", 9090), ("jaeger", 16686)):
        address = stack.address(service, SERVERS)
        # Not by its name, not by its address, not by what is published on the machine.
        assert stack.from_network(AGENTS, f"nslookup {service}").returncode != 0
        gateway = address.rpartition(".")[0] + ".1"
        for host in (address, gateway):
            assert stack.from_network(AGENTS, f"timeout 3 wget -q -O - http://{host}:{port}/").returncode != 0
        # The same question from where it may be asked, so the question is a good one.
        asking = f"nslookup {service} && nc -w 3 {address} {port} </dev/null"
        assert stack.from_network(SERVERS, asking).returncode == 0


@pytest.mark.timeout(200)
def test_the_bill_of_a_real_run_is_what_prometheus_says(stack: Project, ran: LLMServer, prometheus: Prometheus) -> None:
    of_run = f'{COST}{{job="{SERVICE}"}}'
    assert prometheus.wait_for(spent(of_run, "10m"), ran.bill.total) == pytest.approx(ran.bill.total, rel=EXACT)


@pytest.mark.timeout(300)
def test_what_is_killed_comes_back_and_nothing_is_lost(
    stack: Project, prepared: Prepared, prometheus: Prometheus, tmp_path: Path
) -> None:
    lasting = [spend(prepared, stack, tmp_path, f"lasting-{number}", [0.3] * 40, number) for number in range(2)]
    os.kill(stack.pid("prometheus"), signal.SIGSTOP)
    # Comes and goes while nobody can keep its total but the collector's queue on disk.
    short = spend(prepared, stack, tmp_path, "short", [0.1] * 5, 7)
    ended_as_wanted(short, 0)
    for service in ("collector", "jaeger", "prometheus"):
        kill(stack, service)
    for child in lasting:
        ended_as_wanted(child, 0)
    ready(stack)
    spent_in_all = total([entry for child in (short, *lasting) for entry in entries(child)])
    of_these = f'{COST}{{job=~"short|lasting-."}}'
    assert prometheus.wait_for(spent(of_these, "10m"), spent_in_all) == pytest.approx(spent_in_all, rel=EXACT)


def kill(project: Project, service: str) -> None:
    """End its process as the kernel would when memory is short, and see the container come back with another one."""
    before = project.until_running(service)
    os.kill(before, signal.SIGKILL)
    project.until_running(service, other_than=before)
