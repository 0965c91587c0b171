"""The agent of the freshness benchmark: a real OpenHands conversation in a process of its own.

Without ``--baseline`` it is instrumented by openhands-otel. With it, costs go into a counter of the OpenTelemetry SDK
behind its default reader, which exports every 60 seconds. Either way it writes each cost, at the moment at which
OpenHands adds it, and each garbage collection of more than a millisecond into a file, one JSON object a line.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from pathlib import Path
from typing import Any, TextIO

from openhands_otel import OpenHandsInstrumentor, events, semconv, subscribe

LONG_PAUSE_S = 0.001


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", required=True)
    parser.add_argument("--collector", required=True)
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--report", required=True, type=Path)
    parser.add_argument("--baseline", action="store_true")
    options = parser.parse_args()
    with options.report.open("w", buffering=1) as report:
        note_pauses(report)
        count = counter(options.collector) if options.baseline else None
        if not options.baseline:
            OpenHandsInstrumentor().instrument()

        def on_event(event: Any) -> None:
            if isinstance(event, events.CostAdded):
                write(report, at=event.at, amount=event.amount)
                if count is not None:
                    count.add(event.amount)

        subscribe(on_event)
        work(options.provider, options.workspace)


def work(provider: str, workspace: str) -> None:
    from openhands.sdk import LLM, Agent, LocalConversation

    llm = LLM(model="openai/gpt-4o", base_url=f"{provider}/s/benchmark/v1", api_key="benchmark", num_retries=1)
    conversation = LocalConversation(
        agent=Agent(llm=llm, tools=[]),
        workspace=workspace,
        visualizer=None,
        stuck_detection=False,
        max_iteration_per_run=100_000,
    )
    conversation.send_message("Think until you are done.")
    conversation.run()
    # Its last values are part of the measurement, its end is not.
    time.sleep(0.5)
    conversation.close()


def counter(collector: str) -> Any:
    """A counter of a MeterProvider as the documentation has it."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{collector}/v1/metrics"))
    return MeterProvider([reader]).get_meter("benchmark").create_counter(semconv.COST.name, unit=semconv.USD)


def note_pauses(report: TextIO) -> None:
    """Write down long garbage collections: they stop every thread."""
    began = 0

    def on_collection(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = time.perf_counter_ns()
            return
        seconds = (time.perf_counter_ns() - began) / 1e9
        if seconds > LONG_PAUSE_S:
            write(report, ended=time.time_ns(), pause_s=seconds)

    gc.callbacks.append(on_collection)


def write(report: TextIO, **line: float) -> None:
    report.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
