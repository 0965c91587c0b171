"""What the programs under test have in common: the real ``Metrics``, driven directly, and marks on standard output."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext

from openhands.sdk.llm.utils.metrics import Metrics

from openhands_otel import OpenHandsInstrumentor
from openhands_otel._internal.capture.identity import Scope, inside
from stopwatch import waited_s

COST = 0.001
INPUT, OUTPUT = 100, 10

metrics = Metrics(model_name="gpt-4o")


def instrument(**options: object) -> OpenHandsInstrumentor:
    """Instrument this process, unless the test wants to see it without us."""
    instrumentor = OpenHandsInstrumentor()
    if "WITHOUT_US" not in os.environ:
        instrumentor.instrument(**options)
    return instrumentor


def spend(times: int = 1, conversation: str | None = None, pause_s: float = 0.0) -> None:
    """Record ``times`` responses as the SDK does."""
    with inside(Scope(conversation_id=conversation), None) if conversation else nullcontext():
        for number in range(times):
            metrics.add_cost(COST)
            metrics.add_token_usage(INPUT, OUTPUT, 0, 0, 128_000, f"r{number}")
            metrics.add_response_latency(0.1, f"r{number}")
            time.sleep(pause_s)


def mark(name: str) -> None:
    """Say that this point is reached, and when, and how long the main thread has waited for a processor by now."""
    print(name, time.monotonic(), waited_s("/proc/self"), flush=True)
