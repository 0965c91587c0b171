"""promtool's word on the rules: they are valid, what they compute is exact, each alert does what it says."""

from __future__ import annotations

import itertools
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.generator.queries import spent
from deploy.native.build import binary

HERE = Path(__file__).parent
RULES = HERE.parents[1] / "deploy" / "prometheus" / "rules"
COST = "openhands_llm_cost_USD_total"
PROCESSES = 30
MINUTES = 1440
WINDOWS = 25

Samples = list[float | None]
"""A counter, a value a minute or none."""


@pytest.fixture(scope="session")
def promtool() -> Path:
    return binary("promtool")


def run(*words: str | Path) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("file", sorted(RULES.glob("*.yml")), ids=lambda file: file.name)
def test_the_rules_are_valid(promtool: Path, file: Path) -> None:
    assert "SUCCESS" in run(promtool, "check", "rules", "--lint=all", "--lint-fatal", file)


@pytest.mark.parametrize("file", sorted((HERE / "rules").glob("*.yml")), ids=lambda file: file.stem)
def test_the_rules_do_what_they_say(promtool: Path, file: Path) -> None:
    assert "SUCCESS" in run(promtool, "test", "rules", file)


# ---------------------------------------------------------------- any window


def process(chance: random.Random) -> Samples:
    """One that begins somewhere, spends now and then, is silent for up to ten hours, and ends somewhere."""
    samples: Samples = [None] * chance.randrange(MINUTES - 60)
    total = 0.0
    while len(samples) < MINUTES and chance.random() < 0.9:
        samples += [None] * chance.choice((0, 0, 0, 1, 5, 90, 600))
        total += chance.choice((0.0, 0.25, 1.0, 3.5))
        samples.append(total)
    return samples[:MINUTES]


def truth(processes: list[Samples], begin: int, end: int) -> float:
    """What samples after ``begin`` and until ``end`` added to the samples before them."""
    total = 0.0
    for samples in processes:
        values = [(at, value) for at, value in enumerate(samples) if value is not None]
        for (_, before), (at, value) in itertools.pairwise([(-1, 0.0), *values]):
            total += (value - before) if begin < at <= end else 0
    return total


def windows(chance: random.Random) -> Iterator[tuple[int, int]]:
    for _ in range(WINDOWS):
        end = chance.randrange(300, MINUTES)
        yield chance.randrange(end - 1), end


def test_any_window_over_any_processes_is_exact_and_increase_is_not(promtool: Path, tmp_path: Path) -> None:
    chance = random.Random(7)
    processes = [process(chance) for _ in range(PROCESSES)]
    proofs: list[dict[str, Any]] = []
    wrong: list[str] = []
    for begin, end in windows(chance):
        width, right = f"{end - begin}m", truth(processes, begin, end)
        proofs += [
            {"expr": spent(COST, width), "eval_time": f"{end}m", "exp_samples": [{"labels": "{}", "value": right}]},
            {
                # Nothing at all where nobody said a word in the window.
                "expr": f"sum({spent(COST, width, ['instance'])}) or vector(0)",
                "eval_time": f"{end}m",
                "exp_samples": [{"labels": "{}", "value": right}],
            },
        ]
        increase = f"(sum(increase({COST}[{width}] @ {end * 60})) or vector(0))"
        wrong.append(f"(abs({increase} - {right}) > bool {right * 0.01})")
    assert sum(proof["exp_samples"][0]["value"] > 0 for proof in proofs) > WINDOWS
    # Of all the windows increase() is more than one per cent off in most.
    proofs.append(
        {
            "expr": f"({' + '.join(wrong)}) > bool {WINDOWS // 2}",
            "eval_time": f"{MINUTES}m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
    )
    series = [
        {
            "series": f'{COST}{{job="agent", instance="{number}"}}',
            "values": " ".join("_" if value is None else str(value) for value in samples),
        }
        for number, samples in enumerate(processes)
    ]
    file = tmp_path / "windows.yml"
    test = {"interval": "1m", "input_series": series, "promql_expr_test": proofs}
    file.write_text(yaml.safe_dump({"rule_files": [], "evaluation_interval": "1m", "tests": [test]}))
    assert "SUCCESS" in run(promtool, "test", "rules", file)
