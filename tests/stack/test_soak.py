"""A soak: agents that spend by every way to a viewer, while that is killed and clocks are set: $0.00 off at the end.

``TEST_SOAK_S`` says how long (``make soak``: ten minutes). Agents of all kinds are there from beginning to end: over
HTTP, over gRPC, with delta temporality, through the real collector, with a clock that somebody sets back and forth.
Others are born and end all the time, also while the viewer is away. Each writes a cost down before it spends it.
Beside them somebody sends spans, again until they are acknowledged: each is kept once.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from span_sender import SpanSender
from viewer_process import PROTOBUF, Viewer, start_viewer

import faketime
from deploy.native.build import binary
from deploy.native.ports import HOST, free_ports
from deploy.native.server import Server
from openhands_otel.client import StatsClient
from openhands_otel.stats import Breakdown

HERE = Path(__file__).parent
SECONDS = float(os.environ.get("TEST_SOAK_S", "40"))
KILLS = 3
SETTLE_S = 60
KEPT = ("PATH", "HOME")
STEPS = ("+0", "+400", "-200", "+86400", "-1900")
"""Seconds by which the clock of the agents with a faked one is off, one after the other."""

AGENT = """
import os, select, sys, time
sys.path[:0] = os.environ["TEST_PATHS"].split(os.pathsep)
import spending
from openhands.sdk.llm.utils.metrics import Metrics

instrumentor = spending.instrument()
metrics = {model: Metrics(model_name=model) for model in ("gpt-4o", "gpt-5")}
seed, pause, until = int(sys.argv[1]), float(sys.argv[2]), time.monotonic() + float(sys.argv[3])
print("ready", flush=True)
at = 0
while time.monotonic() < until and not os.path.exists(sys.argv[5]):
    at += 1
    cost = round(0.001 + (seed * 7919 + at * 104729) % 9973 / 1e6, 9)
    with open(sys.argv[4], "a") as ledger:
        ledger.write(f"{cost!r}\\n")
    with spending.inside(spending.Scope(conversation_id=f"c-{seed}"), None):
        meter = metrics[("gpt-4o", "gpt-5")[at % 2]]
        meter.add_cost(cost)
        meter.add_token_usage(100, 10, 0, 0, 128_000, "r")
        meter.add_response_latency(0.1, "r")
    select.select([], [], [], pause)
"""


@dataclass
class Soak:
    """One viewer, one collector in front of it, and whoever spends."""

    directory: Path
    viewer: Viewer
    collector_url: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list[subprocess.Popen[bytes]])
    clock: Path | None = None

    @property
    def bill(self) -> dict[str, list[float]]:
        """What was written down, by kind of agent."""
        written: dict[str, list[float]] = defaultdict(list)
        for ledger in self.directory.glob("*.ledger"):
            written[ledger.name.partition("-")[0]] += [float(line) for line in ledger.read_text().splitlines()]
        return written

    def shown(self) -> dict[str, float]:
        """What the viewer says, by kind of agent."""
        found = Breakdown.model_validate_json(self.viewer.http.get("/api/v1/totals").content)
        return {share.name.removeprefix("soak-"): share.accumulated_cost for share in found.by_service}

    def environment(self, kind: str) -> dict[str, str]:
        endpoint = {"grpc": f"http://{self.viewer.grpc}", "collector": self.collector_url}.get(kind, self.viewer.url)
        environ = {name: os.environ[name] for name in KEPT if name in os.environ} | {
            "OTEL_SERVICE_NAME": f"soak-{kind}",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": endpoint + ("" if kind == "grpc" else "/v1/metrics"),
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc" if kind == "grpc" else "http/protobuf",
            "OPENHANDS_OTEL_TRACES": "off",
            "XDG_STATE_HOME": str(self.directory / "state"),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "TEST_PATHS": os.pathsep.join((str(HERE.parent / "telemetry"), str(HERE.parent))),
        }
        if kind == "delta":
            environ["OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"] = "delta"
        if kind == "clock" and faketime.LIBRARY is not None and self.clock is not None:
            environ |= {
                "LD_PRELOAD": str(faketime.LIBRARY),
                "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_DONT_RESET": "1",
            }
        return environ

    def start(self, kind: str, seed: int, pause_s: float, seconds: float) -> subprocess.Popen[bytes]:
        """An agent that spends for so long, once it has imported OpenHands."""
        ledger = self.directory / f"{kind}-{seed}.ledger"
        command = [sys.executable, "-c", AGENT, str(seed), str(pause_s), str(seconds), str(ledger)]
        command.append(str(self.directory / "stop"))
        with (self.directory / f"{kind}-{seed}.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=self.environment(kind), stdout=subprocess.PIPE, stderr=log, cwd=self.directory
            )
        self.processes.append(process)
        return process

    def restart_viewer(self, away_s: float) -> None:
        """SIGKILL, and a new one on the same ports after a while."""
        port, grpc_port = self.viewer.url.rpartition(":")[2], self.viewer.grpc.rpartition(":")[2]
        self.viewer.http.close()
        self.viewer.process.kill()
        self.viewer.process.wait()
        time.sleep(away_s)
        self.viewer = start_viewer(
            database=self.directory / "history.sqlite3", port=int(port), grpc_port=int(grpc_port)
        )

    def set_clock(self, offset: str) -> None:
        """Set the clock of the agents of the kind ``clock``, at once."""
        if self.clock is not None:
            fresh = self.clock.with_suffix(".new")
            fresh.write_text(offset)
            fresh.replace(self.clock)


class Tracing(threading.Thread):
    """Sends calls of one conversation to the viewer until stopped, each request again until it is acknowledged."""

    CONVERSATION = "traced"
    COST = 0.001

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._stopping = threading.Event()
        self.calls = 0
        self.again = 0
        """Requests that nobody answered."""

    def run(self) -> None:
        sender = SpanSender(service="soak-traced", instance="tracing")
        while not self._stopping.wait(0.05):
            for _ in range(3):
                self.calls += 1
                sender.call(self.calls, self.CONVERSATION, trace=1 + self.calls // 50, cost=self.COST)
            body = sender.body()
            while not self._is_acknowledged(body):
                self.again += 1
                time.sleep(0.05)

    def _is_acknowledged(self, body: bytes) -> bool:
        try:
            return httpx.post(f"{self._url}/v1/traces", content=body, headers=PROTOBUF, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        self._stopping.set()
        self.join(60)


def total(costs: list[float]) -> float:
    return sum(round(cost * 1e9) for cost in costs) / 1e9


@pytest.fixture
def soak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Soak]:
    # The viewer's own state (spools that it takes in) is the agents'.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    viewer = start_viewer(database=tmp_path / "history.sqlite3")
    receive, health = free_ports(2)
    variables = {"RECEIVE": f"{HOST}:{receive}", "HEALTH": f"{HOST}:{health}", "VIEWER": viewer.url}
    command = [str(binary("collector")), f"--config={HERE / 'through_collector.yaml'}"]
    with ExitStack() as closing:
        collector = Server("collector", command, f"http://{HOST}:{health}", tmp_path / "collector.log", variables)
        closing.callback(collector.stop)
        collector.start()
        collector.wait_ready()
        found = Soak(tmp_path, viewer, f"http://{HOST}:{receive}")
        if faketime.LIBRARY is not None:
            found.clock = tmp_path / "clock"
            found.clock.write_text("+0")
        try:
            yield found
        finally:
            for process in found.processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            if found.viewer.process.poll() is None:
                found.viewer.stop()


def kinds() -> list[str]:
    found = ["http", "grpc", "delta", "collector"]
    if faketime.LIBRARY is None:
        print("libfaketime is not installed: no agent's clock is set in this soak")
        return found
    return [*found, "clock"]


@pytest.mark.timeout(SECONDS + 300)
def test_nothing_is_lost_or_counted_twice_whatever_is_killed_and_set(soak: Soak) -> None:
    """The rule behind all others: what was spent is what the viewer says, by whatever way and accident it got there."""
    seeds = iter(range(1, 10_000))
    chance = random.Random(10)
    # The first ones take seconds to import OpenHands: the soak begins when they are ready.
    lasting = [soak.start(kind, next(seeds), 0.1, 10 * SECONDS + 600) for kind in kinds()]
    for process in lasting:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    tracing = Tracing(soak.viewer.url)
    tracing.start()
    began = time.monotonic()
    kills = [began + SECONDS * (n + 1) / (KILLS + 1) for n in range(KILLS)]
    steps = [(began + SECONDS * (n + 0.5) / len(STEPS), offset) for n, offset in enumerate(STEPS)]
    while kills or steps or time.monotonic() < began + SECONDS:
        now = time.monotonic()
        if kills and now >= kills[0]:
            kills.pop(0)
            soak.restart_viewer(chance.uniform(1, 4))
        while steps and now >= steps[0][0]:
            soak.set_clock(steps.pop(0)[1])
        if sum(process.poll() is None for process in soak.processes) < len(lasting) + 2:
            # Short ones: born and ended all the time, some while the viewer is away.
            soak.start(chance.choice(kinds()[:4]), next(seeds), 0.05, chance.uniform(0, 3))
        time.sleep(0.1)
    tracing.stop()
    (soak.directory / "stop").touch()
    for process in soak.processes:
        assert process.wait(120) == 0
    # What those left on disk that ended while the viewer was away, whoever comes next takes along: here a viewer.
    soak.restart_viewer(0)

    bill = [cost for costs in soak.bill.values() for cost in costs]
    owed = total(bill)
    deadline = time.monotonic() + SETTLE_S
    while abs(soak.viewer.state().totals.accumulated_cost - owed) > 1e-9 and time.monotonic() < deadline:
        time.sleep(0.2)
    totals = soak.viewer.state().totals
    who = f"{len(bill)} costs by {len(soak.processes)} processes in {SECONDS:.0f} s, viewer killed {KILLS} times"
    print(f"{who}: spent ${owed:.6f}, the viewer has ${totals.accumulated_cost:.6f}, {totals.llm_calls} calls")
    assert soak.shown() == {kind: pytest.approx(total(costs), abs=1e-9) for kind, costs in soak.bill.items()}
    assert totals.accumulated_cost == pytest.approx(owed, abs=1e-9)
    assert soak.viewer.state().totals.accumulated_token_usage.prompt_tokens == 100 * len(bill)
    assert soak.viewer.state().totals.llm_calls == len(bill)
    soak.restart_viewer(0)
    assert soak.viewer.state().totals.accumulated_cost == pytest.approx(owed, abs=1e-9)
    with StatsClient(soak.viewer.url) as client:
        kept = client.calls(Tracing.CONVERSATION, limit=1)
    print(f"{tracing.calls} calls were told by spans, in {tracing.again} requests again, and {kept.count} are kept")
    assert kept.count == tracing.calls
    assert kept.calls_cost == pytest.approx(tracing.calls * Tracing.COST, abs=1e-9)
