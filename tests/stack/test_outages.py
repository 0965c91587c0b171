"""Any part may be killed in mid-load: when it is back, totals are exact and no acknowledged span is missing."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx
import pytest

from deploy.grafana.generator.queries import spent
from deploy.native.server import Server
from deploy.native.stack import Stack

from .conftest import Start
from .jaeger_api import Jaeger
from .ledger import ended_as_wanted, entries, program, total
from .otlp_http import post, span, traces
from .prometheus_api import Prometheus, wait

COST = "openhands_llm_cost_USD_total"
SERVICE = "sender"


class Spans:
    """Sends a span at a time until it is stopped, and remembers which ones the collector has acknowledged."""

    def __init__(self, stack: Stack) -> None:
        self.acknowledged: set[str] = set()
        self.failures = 0
        self._stack = stack
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _send(self) -> None:
        while not self._stopping.wait(0.05):
            sent = span("work")
            try:
                post(self._stack, traces(SERVICE, sent)).raise_for_status()
                self.acknowledged.add(sent.span_id.hex())
            except httpx.HTTPError:
                self.failures += 1


def killed(server: Server, away_s: float) -> None:
    server.kill()
    time.sleep(away_s)
    server.start()
    server.wait_ready()


@pytest.mark.timeout(300)
def test_killed_servers_cost_nothing(stack: Stack, start: Start, prometheus: Prometheus, jaeger: Jaeger) -> None:
    began = time.time()
    # Some live through it all, some are born while Prometheus is away and end while the collector is.
    lasting = [start(program([0.5] * 70, number), f"lasting-{number}") for number in range(4)]
    spans = Spans(stack)
    try:
        time.sleep(4)
        stack.prometheus.kill()
        short = [start(program([0.3] * 20, 10 + number), f"short-{number}") for number in range(4)]
        time.sleep(3)
        killed(stack.jaeger, 3)
        stack.collector.kill()
        for child in short:
            # What these could not deliver waits on disk for those that live on.
            ended_as_wanted(child, 0)
        stack.collector.start()
        stack.collector.wait_ready()
        time.sleep(8)
        stack.prometheus.start()
        stack.prometheus.wait_ready()
        for child in lasting:
            ended_as_wanted(child, 0)
    finally:
        spans.stop()
    ledger = [entry for child in (*short, *lasting) for entry in entries(child)]
    assert len(ledger) == 4 * 70 + 4 * 20

    window = f"{round(time.time() - began) + 60}s"
    arrived = prometheus.wait_for(spent(COST, window), total(ledger))
    increase = prometheus.value(f"sum(increase({COST}[{window}]))")
    print(f"ledger ${total(ledger):.6f}, formula ${arrived:.6f}, sum(increase()) ${increase:.6f}")
    assert arrived == pytest.approx(total(ledger), rel=1e-9)

    assert spans.failures, "the collector was away for a while"
    arrived_spans = wait(
        lambda: {found.span_id for found in jaeger.spans(SERVICE)}, lambda found: found >= spans.acknowledged
    )
    print(f"{len(spans.acknowledged)} spans acknowledged, {len(arrived_spans)} in Jaeger")
    assert len(spans.acknowledged) > 100
    assert arrived_spans >= spans.acknowledged


def test_what_was_stored_survives_a_restart(stack: Stack, start: Start, prometheus: Prometheus, jaeger: Jaeger) -> None:
    child = start(program([0.1, 0.1], 1), "agent")
    ended_as_wanted(child, 0)
    sent = span("work")
    assert post(stack, traces(SERVICE, sent)).status_code == httpx.codes.OK
    bill = total(entries(child))
    assert prometheus.wait_for(spent(COST, "10m"), bill) == pytest.approx(bill, rel=1e-9)
    assert wait(lambda: jaeger.trace(sent.trace_id.hex()), bool)

    stack.stop()
    stack.start()

    assert prometheus.value(spent(COST, "10m")) == pytest.approx(bill, rel=1e-9)
    assert [found.name for found in wait(lambda: jaeger.trace(sent.trace_id.hex()), bool)] == ["work"]


def test_a_full_queue_sends_senders_away_for_now_and_is_counted(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "stack")
    stack.collector.variables["QUEUE_BYTES"] = "5000"
    with stack:
        stack.jaeger.kill()
        answer = wait(lambda: post(stack, traces(SERVICE, span("x" * 1000))), lambda found: found.status_code != 200)
        # An exporter tries again after this, which it would not after a 4xx.
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        own = httpx.get(f"http://127.0.0.1:{stack.ports.collector_telemetry}/metrics").text
        assert "otelcol_exporter_enqueue_failed_spans_total{" in own
        stack.jaeger.start()
        stack.jaeger.wait_ready()
        assert wait(lambda: post(stack, traces(SERVICE, span("y"))).status_code, lambda code: code == 200) == 200
