"""How fresh the real stack is, and how much it takes: collector and Prometheus as `make stack` runs them (needs Go).

Freshness: from ``Metrics.add_cost`` in a real OpenHands agent to the first answer of Prometheus that contains it, asked
for all the time. Beside it a second Prometheus that scrapes the same collector every 15 s, and the OpenTelemetry SDK's
default reader, which exports every 60 s. Throughput: points a second, from the first request until a query finds each
of them. What was dropped is what the collector's own counters say.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from freshness import RUN_S, environment, send_script, start
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from deploy.native.stack import Stack
from openhands_otel._internal.demo.children import Child
from openhands_otel._internal.demo.freshness import AddedCost, Seen, freshness

COST = "sum(max_over_time(openhands_llm_cost_USD_total[1h]))"
PAUSE_S = 0.25
MEDIAN_AIM_S, P99_AIM_S, POINTS_AIM = 0.075, 0.4, 100_000
SCRAPE_S = 15
REQUEST_POINTS, SENDERS = 5_000, 2
COUNTERS = (
    "otelcol_receiver_accepted_metric_points",
    "otelcol_receiver_refused_metric_points",
    "otelcol_exporter_sent_metric_points",
    "otelcol_exporter_send_failed_metric_points",
    "otelcol_exporter_enqueue_failed_metric_points",
)


@dataclass
class Watch:
    """Asks a Prometheus for the total, again and again, on a thread of its own."""

    url: str
    pause_s: float
    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(base_url=self.url) as client:
            while not self._stopping.wait(self.pause_s):
                found = client.get("/api/v1/query", params={"query": COST}).json()["data"]["result"]
                if found:
                    self.seen.append(Seen(time.time_ns(), float(found[0]["value"][1])))


def fresh(calls: int, baseline: bool) -> dict[str, list[float]]:
    """Seconds until each cost was seen, by the way it took."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as closing:
        directory = Path(name)
        stack = closing.enter_context(Stack(directory / "stack"))
        watches = {"SDK, reader of 60 s" if baseline else "openhands-otel": Watch(stack.prometheus_url, 0.002)}
        if not baseline:
            ports = (stack.ports.scrape,)
            scraping = Stack(directory / "scraping", prometheus_config="prometheus-scrape.yml", scrape_ports=ports)
            closing.enter_context(scraping)
            watches[f"scrape every {SCRAPE_S} s"] = Watch(scraping.prometheus_url, 0.1)
        try:
            spent = run_agent(closing, directory, stack, calls, baseline)
            time.sleep(1 if baseline else SCRAPE_S + 2)
        finally:
            for watch in watches.values():
                watch.stop()
        return {way: list(freshness(spent, watch.seen).delays) for way, watch in watches.items()}


def run_agent(closing: ExitStack, directory: Path, stack: Stack, calls: int, baseline: bool) -> list[AddedCost]:
    provider = start(closing, directory, "provider", "-m", "openhands_otel._internal.demo.llm_server", "--ready-json",
                     "--stop-on-eof")  # fmt: skip
    send_script(provider, calls, PAUSE_S)
    report = directory / "report"
    command = [sys.executable, str(Path(__file__).with_name("agent.py")), "--provider", provider]
    command += ["--collector", stack.otlp_url, "--workspace", str(directory), "--report", str(report)]
    environ = environment(
        HOME=str(directory),
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{stack.otlp_url}/v1/metrics",
        OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer%20{stack.token}",
    )
    with Child("agent", command + ["--baseline"] * baseline, environ, directory) as agent:
        deadline = time.monotonic() + RUN_S
        while agent.exit_code is None and time.monotonic() < deadline:
            time.sleep(0.1)
        if agent.exit_code != 0:
            raise agent.failure("did not end as it should")
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    return [AddedCost(line["at"], line["amount"]) for line in lines if "at" in line]


def throughput(requests: int) -> float:
    """Points a second until Prometheus has all of them; prints what the collector counted."""
    bodies = list(made(requests))
    with tempfile.TemporaryDirectory() as name, Stack(Path(name)) as stack:
        headers = {"Content-Type": "application/x-protobuf", "Authorization": f"Bearer {stack.token}"}
        began = time.monotonic()
        with ThreadPoolExecutor(SENDERS) as senders:
            refused = sum(
                senders.map(lambda share: send(stack.otlp_url, headers, bodies[share::SENDERS]), range(SENDERS))
            )
        accepted_s = time.monotonic() - began
        points = requests * REQUEST_POINTS
        seconds = wait_for(stack, points) - began
        print(f"{points:,} points: accepted in {accepted_s:.1f} s, found by a query after {seconds:.1f} s, "
              f"{refused} requests told to come again")  # fmt: skip
        for counter, value in counters(stack).items():
            print(f"    {counter:50} {value:>12,.0f}")
        return points / seconds


def made(requests: int) -> Iterator[bytes]:
    """Requests of 100 runs with 50 series each, a millisecond apart."""
    began = time.time_ns() - requests * 1_000_000
    for number in range(requests):
        request = ExportMetricsServiceRequest()
        for run in range(100):
            found = request.resource_metrics.add()
            found.resource.attributes.extend([text("service.name", "load"), text("service.instance.id", f"run-{run}")])
            metric = found.scope_metrics.add().metrics.add(name="load")
            metric.sum.is_monotonic = True
            metric.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
            for series in range(REQUEST_POINTS // 100):
                metric.sum.data_points.add(
                    time_unix_nano=began + number * 1_000_000,
                    as_double=number,
                    attributes=[text("series", str(series))],
                )
        yield request.SerializeToString()


def text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def send(url: str, headers: dict[str, str], bodies: Sequence[bytes]) -> int:
    """Send all of them, as an exporter does: once more where the collector says later. Returns how often it did."""
    refused = 0
    with httpx.Client(headers=headers, timeout=30) as client:
        for body in bodies:
            while (answer := client.post(f"{url}/v1/metrics", content=body)).status_code in (429, 503):
                refused += 1
                time.sleep(0.1)
            answer.raise_for_status()
    return refused


def wait_for(stack: Stack, points: int) -> float:
    deadline = time.monotonic() + RUN_S
    with httpx.Client(base_url=stack.prometheus_url, timeout=60) as client:
        while time.monotonic() < deadline:
            parameters = {"query": "sum(count_over_time(load_total[1h]))"}
            found = client.get("/api/v1/query", params=parameters).json()["data"]["result"]
            if found and int(found[0]["value"][1]) >= points:
                return time.monotonic()
            time.sleep(0.2)
    raise SystemExit(f"Prometheus has {found} of {points} points")


def counters(stack: Stack) -> dict[str, float]:
    lines = httpx.get(f"http://127.0.0.1:{stack.ports.collector_telemetry}/metrics").text.splitlines()
    return {
        counter: sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(counter))
        for counter in COUNTERS
    }


def percentile(delays: Sequence[float], share: float) -> float:
    return sorted(delays)[min(len(delays) - 1, int(len(delays) * share))]


def report(delays: dict[str, list[float]]) -> None:
    for way, found in delays.items():
        figures = (percentile(found, 0.5), percentile(found, 0.99), max(found))
        print(f"{way:24} {len(found):>5}" + "".join(f"{figure * 1e3:>12,.1f}" for figure in figures))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer calls and points, no minute for the 60 s reader")
    options = parser.parse_args()
    print(f"{'milliseconds':24} {'costs':>5}{'median':>12}{'p99':>12}{'worst':>12}")
    delays = fresh(60 if options.quick else 250, baseline=False)
    report(delays)
    if not options.quick:
        report(fresh(250, baseline=True))
    rate = throughput(100 if options.quick else 500)
    ours = delays["openhands-otel"]
    print(f"{rate:,.0f} points a second (aim: {POINTS_AIM:,})")
    reached = percentile(ours, 0.5) <= MEDIAN_AIM_S and percentile(ours, 0.99) <= P99_AIM_S and rate >= POINTS_AIM
    print(
        f"aim: median <= {MEDIAN_AIM_S * 1e3:g} ms, p99 <= {P99_AIM_S * 1e3:g} ms: {'reached' if reached else 'missed'}"
    )
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
