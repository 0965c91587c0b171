"""Short runs are counted to the cent, over any range of time, whichever way Prometheus has them."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import pytest

from deploy.grafana.generator.queries import spent
from deploy.native.stack import Stack
from forked import Child

from .conftest import Start
from .ledger import TERMINATED, Entry, ended_as_wanted, entries, program, total
from .prometheus_api import Prometheus, Samples

COST = "openhands_llm_cost_USD_total"
PROCESSES = 30
RANGES = 25
EXACT = 1e-9


def pauses(chance: random.Random, number: int) -> list[float]:
    """Two to sixty seconds of work. A few spend once and end, which is a single export."""
    if number % 6 == 0:
        return [chance.uniform(0.5, 5)]
    # The long ones first, so that all are done at about the same time.
    length = 60 if number < 2 else chance.choice((2, 5, 10, 20, 40)) if number < 20 else chance.choice((2, 5, 10, 20))
    calls = chance.randint(2, 40)
    return [length / calls] * calls


@pytest.mark.timeout(300)
def test_thirty_overlapping_runs_are_exact_over_any_range_and_increase_is_not(
    stack: Stack, start: Start, prometheus: Prometheus, make_stack: Callable[..., Stack]
) -> None:
    chance = random.Random(7)
    # A second Prometheus scrapes the same collector.
    other = make_stack(prometheus_config="prometheus-scrape.yml", scrape_ports=(stack.ports.scrape,))
    scraper = Prometheus(other.prometheus_url)
    began = time.time()
    children: list[tuple[Child, int]] = []
    for number in range(PROCESSES):
        end = TERMINATED if number % 4 == 1 else 0
        children.append((start(program(pauses(chance, number), number, end), f"agent-{number}"), end))
        time.sleep(chance.uniform(0, 0.5))
    for child, end in children:
        ended_as_wanted(child, end)
    ledger = [entry for child, _ in children for entry in entries(child)]
    assert total(ledger) > 0.5

    whole = f"{math.ceil(time.time() - began) + 60}s"
    for way, server in (("OTLP", prometheus), ("scrape", scraper)):
        arrived = server.wait_for(spent(COST, whole), total(ledger))
        increase = server.value(f"sum(increase({COST}[{whole}]))")
        print(f"{way}: ledger ${total(ledger):.9f}, formula {off(arrived, total(ledger))},", end=" ")
        print(f"sum(increase()) {off(increase, total(ledger))}")
        assert arrived == pytest.approx(total(ledger), rel=EXACT)
        assert increase != pytest.approx(total(ledger), rel=0.001)
        exact_over_ranges(server, ledger, chance)


def exact_over_ranges(server: Prometheus, ledger: Sequence[Entry], chance: random.Random) -> None:
    """Ranges with edges anywhere. What was spent before an edge is what a sample before the edge says."""
    timelines = {
        (labels["job"], labels["gen_ai_request_model"]): samples
        for labels, samples in ((dict(labels), samples) for labels, samples in server.samples(COST).items())
    }
    for (service, model), samples in timelines.items():
        each_sample_is_of_the_ledger(
            [entry for entry in ledger if (entry.service, entry.model) == (service, model)], samples
        )
    worst = 0.0
    for begin, end in ranges(timelines.values(), chance):
        window = f"{end - begin}ms"
        truth = math.fsum(at(samples, end) - at(samples, begin) for samples in timelines.values())
        assert truth > 0
        assert server.value(spent(COST, window), end / 1000) == pytest.approx(truth, rel=EXACT)
        increase = server.value(f"sum(increase({COST}[{window}]))", end / 1000)
        worst = max(worst, abs(increase / truth - 1))
    print(f"    {RANGES} ranges exact, where sum(increase()) is up to {worst:.1%} off")


def ranges(timelines: Iterable[Samples], chance: random.Random) -> Iterator[tuple[int, int]]:
    """Begin and end in milliseconds, each between a first spending and a last one, so that both cut runs."""
    rises = sorted(
        {milliseconds(at) for samples in timelines for (_, before), (at, value) in pairwise(samples) if value > before}
    )
    for _ in range(RANGES):
        first, last = sorted(chance.sample(rises, 2))
        yield chance.randrange(first, last), last + chance.randrange(1000)


def each_sample_is_of_the_ledger(ledger: Sequence[Entry], samples: Samples) -> None:
    """A sample has what the process had spent at some moment until then, the last one has everything."""
    running = [0.0]
    for entry in ledger:
        running.append(running[-1] + entry.cost)
    for moment, value in samples:
        known = min(range(len(running)), key=lambda number: abs(running[number] - value))
        assert value == pytest.approx(running[known], rel=EXACT, abs=1e-12)
        # Prometheus' times are whole milliseconds, cut off.
        assert known == 0 or ledger[known - 1].at < moment + 0.001
    assert samples[-1][1] == pytest.approx(running[-1], rel=EXACT)


def at(samples: Samples, moment: int) -> float:
    return next((value for when, value in reversed(samples) if milliseconds(when) <= moment), 0.0)


def milliseconds(moment: float) -> int:
    return round(moment * 1000)


def off(value: float, truth: float) -> str:
    return f"{value / truth - 1:+.4%} off"
