"""Processes that spend and write down what they spend before they do, each in a file of its own."""

from __future__ import annotations

import math
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forked import Child

SPENDING = """
import os, signal, time
import spending
from openhands.sdk.llm.utils.metrics import Metrics

def spend(model, cost):
    with open("ledger", "a") as file:
        file.write(f"{{time.time()}} {{model}} {{cost}}\\n")
    metrics[model].add_cost(cost)
    metrics[model].add_token_usage(100, 10, 0, 0, 128_000, "r")

metrics = {{model: Metrics(model_name=model) for model in ("gpt-4o", "gpt-5")}}
spending.instrument()
{work}
"""


@dataclass(frozen=True)
class Entry:
    at: float
    service: str
    model: str
    cost: float


def program(pauses: Sequence[float], seed: int, end: int = 0) -> str:
    """Spends after each pause, on two models in turn; ``end`` is a signal that it sends itself, at once."""
    work = [f"time.sleep({pause:.3f}); spend({_model(at)!r}, {_cost(seed, at)})" for at, pause in enumerate(pauses)]
    if end:
        work.append(f"os.kill(os.getpid(), {end}); time.sleep(60)")
    return SPENDING.format(work="\n".join(work))


def entries(child: Child) -> list[Entry]:
    return _read(child.directory / "ledger", child.directory.name)


def total(ledger: Sequence[Entry]) -> float:
    return math.fsum(entry.cost for entry in ledger)


def ended_as_wanted(child: Child, end: int) -> None:
    """A process that got a signal died of it; the others came to their end."""
    assert child.wait(150) == (-end if end else 0), child.err


def _read(file: Path, service: str) -> list[Entry]:
    lines = (line.split() for line in file.read_text().splitlines())
    return [Entry(float(at), service, model, float(cost)) for at, model, cost in lines]


def _model(at: int) -> str:
    return ("gpt-4o", "gpt-5")[at % 2]


def _cost(seed: int, at: int) -> float:
    """Odd sums, so that none is right by chance."""
    return round(0.001 + (seed * 7919 + at * 104729) % 9973 / 1e6, 9)


TERMINATED = signal.SIGTERM
