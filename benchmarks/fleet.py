"""What one agent's run costs a fleet: bytes on the wire, series, memory. Against the real native fleet; needs Go.

A short run of a real pipeline is recorded (one process, one conversation, four calls, two tools), and sent again under
as many instance ids as are asked for, as that many processes would. Then the receivers are asked what they hold. Each
receiver holds everything, as there are three of them and three copies: with more of them each holds 3/N of it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from telemetry.pipes import call, closed, opened, origin, pipeline, put, run_ended, run_started

from deploy.native.fleet import Fleet
from openhands_otel import events
from openhands_otel.semconv import SERVICE_INSTANCE_ID, ToolOutcome
from otlp_receiver import http_receiver

CALLS, TOOLS = 4, 2
SENDERS = 4


def record() -> list[bytes]:
    """The requests of one run."""
    with http_receiver() as receiver:
        with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}) as pipe:
            agent = origin("run", agent="Agent")
            put(pipe, opened("run"), run_started("run"))
            for number in range(CALLS):
                put(pipe, *call(agent))
                if number < TOOLS:
                    put(pipe, events.ToolStarted(time.time_ns(), "run", "terminal", number))
                    ended = events.ToolEnded(
                        time.time_ns(), "run", "terminal", number, None, ToolOutcome.OK, 0.1, "Agent"
                    )
                    put(pipe, ended)
                assert pipe.flush(5)
            put(pipe, run_ended("run"), closed("run"))
            assert pipe.flush(5)
        return list(receiver.bodies)


def renamed(bodies: list[bytes]) -> list[bytes]:
    """The same requests as another process's, about another conversation, now."""
    instance, conversation, now = uuid.uuid4().hex, uuid.uuid4().hex, time.time_ns()
    first = 0
    requests: list[bytes] = []
    for body in bodies:
        request = ExportMetricsServiceRequest.FromString(body)
        for resource in request.resource_metrics:
            for attribute in resource.resource.attributes:
                if attribute.key == SERVICE_INSTANCE_ID:
                    attribute.value.string_value = instance
            for point in (p for s in resource.scope_metrics for m in s.metrics for p in points(m)):
                first = first or point.time_unix_nano
                point.time_unix_nano += now - first
                if point.start_time_unix_nano:
                    point.start_time_unix_nano += now - first
                for attribute in point.attributes:
                    if attribute.key == "gen_ai.conversation.id":
                        attribute.value.string_value = conversation
        requests.append(request.SerializeToString())
    return requests


def points(metric: Any) -> Any:
    return getattr(metric, metric.WhichOneof("data")).data_points


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    runs = parser.parse_args().runs
    bodies = record()
    wire = sum(map(len, bodies))
    print(f"a run of {CALLS} calls and {TOOLS} tools: {len(bodies)} requests, {wire} bytes of OTLP before compression")
    with tempfile.TemporaryDirectory() as folder, Fleet(Path(folder)) as fleet:
        headers = {
            "authorization": f"Bearer {fleet.token_file.read_text().strip()}",
            "content-type": "application/x-protobuf",
        }

        def send(client: httpx.Client) -> int:
            resent = 0
            for body in renamed(bodies):
                while (status := client.post("/v1/metrics", content=body, headers=headers).status_code) != 200:
                    assert status in (429, 502, 503), status
                    resent += 1
            return resent

        with httpx.Client(base_url=fleet.otlp_url, timeout=30) as client, ThreadPoolExecutor(SENDERS) as pool:
            list(pool.map(send, [client] * 20))
            before = held(fleet)
            began = time.monotonic()
            resent = sum(pool.map(send, [client] * runs))
            took = time.monotonic() - began
        after = held(fleet)
        series = (after["series"] - before["series"]) / runs
        memory = (after["memory"] - before["memory"]) / runs
        print(f"{runs} runs in {took:.1f} s: {runs * len(bodies) / took:.0f} requests/s, {resent} sent again")
        print(f"a run: {series:.0f} series, {memory / 1024:.1f} KiB of memory in each of {len(fleet.receivers)} copies")
        print(f"a receiver: {after['series']:.0f} series, {after['memory'] / 2**20:.0f} MiB resident")
        shown(fleet)
    return 0


def held(fleet: Fleet) -> dict[str, float]:
    """Series in the head and resident memory of a receiver, on average."""
    count = 0.0
    for receiver in fleet.receivers:
        text = httpx.get(fleet.metrics_url(receiver)).text
        count += sum(
            float(line.split()[-1]) for line in text.splitlines() if line.startswith("prometheus_tsdb_head_series{")
        )
    memory = sum(psutil.Process(receiver.pid).memory_info().rss for receiver in fleet.receivers)
    return {"series": count / len(fleet.receivers), "memory": memory / len(fleet.receivers)}


def shown(fleet: Fleet) -> None:
    """How long the dashboard's total takes over all of that."""
    from deploy.grafana.generator.queries import spent

    parameters = {"query": spent("openhands_llm_cost_USD_total", "1h")}
    began = time.monotonic()
    answer = httpx.get(f"{fleet.query_url}/api/v1/query", params=parameters, timeout=60).json()
    took = time.monotonic() - began
    print(f"the total of the last hour: ${float(answer['data']['result'][0]['value'][1]):.3f} in {took:.2f} s")


if __name__ == "__main__":
    sys.exit(main())
