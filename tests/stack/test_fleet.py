"""The fleet: a receiver and a gateway may be lost in mid-load and never come back, and totals are exact."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deploy.grafana.generator.queries import spent
from deploy.native.fleet import Fleet
from deploy.native.server import Server
from forked import Child, Prepared
from openhands_otel.client import PROMETHEUS, StatsClient

from . import sending
from .ledger import Entry, ended_as_wanted, entries, program, total
from .prometheus_api import Prometheus, wait

COST = "openhands_llm_cost_USD_total"
EXACT = 1e-9
LASTING, SHORT = 4, 8


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(tmp_path / "fleet") as fleet:
        yield fleet


def start(prepared: Prepared, fleet: Fleet, folder: Path, name: str, pauses: list[float], seed: int) -> Child:
    return sending.start(prepared, fleet, program(pauses, seed), folder / name)


def kill_at_work(fleet: Fleet, server: Server, counter: str) -> None:
    """End a server for good while it has something to do."""

    def done() -> float:
        text = httpx.get(fleet.metrics_url(server)).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(counter))

    before = done()
    assert wait(done, lambda now: now > before) > before
    server.kill()


@pytest.mark.timeout(300)
def test_a_receiver_and_a_gateway_lost_for_good_in_mid_load_cost_nothing(
    fleet: Fleet, prepared: Prepared, tmp_path: Path
) -> None:
    began = time.time()
    lasting = [start(prepared, fleet, tmp_path, f"lasting-{n}", [0.3] * 40, n) for n in range(LASTING)]
    short = [start(prepared, fleet, tmp_path, f"short-{n}", [0.2] * 8, 10 + n) for n in range(SHORT // 2)]
    kill_at_work(fleet, fleet.receivers[1], "prometheus_tsdb_head_samples_appended_total")
    short += [start(prepared, fleet, tmp_path, f"later-{n}", [0.2] * 8, 20 + n) for n in range(SHORT // 2)]
    kill_at_work(fleet, fleet.gateways[0], "otelcol_receiver_accepted_metric_points_total")
    for child in (*lasting, *short):
        ended_as_wanted(child, 0)
    ledger: list[Entry] = [entry for child in (*lasting, *short) for entry in entries(child)]
    assert len(ledger) == LASTING * 40 + SHORT * 8

    query = Prometheus(fleet.query_url)
    window = f"{round(time.time() - began) + 60}s"
    arrived = query.wait_for(spent(COST, window), total(ledger))
    increase = query.value(f"sum(increase({COST}[{window}]))")
    print(f"ledger ${total(ledger):.6f}, formula ${arrived:.6f}, sum(increase()) ${increase:.6f}")
    assert arrived == pytest.approx(total(ledger), rel=EXACT)
    with StatsClient(f"{PROMETHEUS}{fleet.query_url}") as client:
        assert client.totals().totals.accumulated_cost == pytest.approx(total(ledger), rel=EXACT)
        groups = client.spend(["hour", "service", "model"], since=began - 60).groups
        assert sum(group.accumulated_cost for group in groups) == pytest.approx(total(ledger), rel=EXACT)
    assert not fleet.receivers[1].running
    assert not fleet.gateways[0].running
    # The rules are evaluated here, too.
    recorded = query.wait_for("sum(openhands:llm_cost_USD:spent1h)", total(ledger))
    assert recorded == pytest.approx(total(ledger), rel=EXACT)


def test_without_the_token_the_one_address_lets_nobody_in(fleet: Fleet) -> None:
    answer = httpx.post(f"{fleet.otlp_url}/v1/metrics", json={"resourceMetrics": []})
    assert answer.status_code == 401
