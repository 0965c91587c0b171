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

from dashboards import EXPRESSIONS
from deploy.grafana.generator.queries import VARIABLES, spent
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


# ---------------------------------------------------------------- labels


def labelled(chance: random.Random, number: int) -> dict[str, str]:
    """Labels of one process: all, some or none of those that dashboards select by."""
    namespace = chance.choice(("", "crew", "others"))
    job = "/".join(filter(None, (namespace, chance.choice(("coder", "tester")))))
    chosen = {name: chance.choice(("", "a", "b")) for name in VARIABLES if name != "namespace"}
    of_process = {VARIABLES[name]: value for name, value in {**chosen, "namespace": namespace}.items() if value}
    return {"job": job, "instance": str(number), "gen_ai_request_model": chance.choice(("x", "y")), **of_process}


def test_all_is_what_it_would_be_without_labels_and_each_label_splits_it_without_rest(
    promtool: Path, tmp_path: Path
) -> None:
    chance = random.Random(11)
    processes = [(labelled(chance, number), process(chance)) for number in range(PROCESSES)]
    series = [
        {
            "series": f"{COST}{{{', '.join(f'{name}="{value}"' for name, value in labels.items())}}}",
            "values": " ".join("_" if value is None else str(value) for value in samples),
        }
        for labels, samples in processes
    ]
    hours = 6
    begin, end = MINUTES - hours * 60, MINUTES

    def expected(name: str = "", value: str = "", since: int = begin) -> float:
        """Of the processes that have this label, or no label at all that is called "", so all of them."""
        whose = VARIABLES.get(name, name)
        return truth([samples for labels, samples in processes if labels.get(whose, "") == value], since, end)

    shown = next(each for each in EXPRESSIONS if each.panel == "Spent")
    whole = expected()
    assert whole > 0
    proofs = [(shown.over(hours * 3600), whole)]
    for name in ("job", *VARIABLES):
        values = {labels.get(VARIABLES.get(name, name), "") for labels, _ in processes}
        assert len(values) > 1
        proofs += [(shown.over(hours * 3600, **{name: value}), expected(name, value)) for value in values]
        assert sum(expected(name, value) for value in values) == pytest.approx(whole)
    for panel in ("By team and project", "Chargeback", "By service", "By model"):
        table = next(each for each in EXPRESSIONS if each.panel == panel)
        proofs.append((f"sum({table.over(hours * 3600).removeprefix('sort_desc')})", whole))
    # What is recorded adds up likewise.
    proofs += [("sum(openhands:llm_cost_USD:spent1h)", expected(since=end - 60))]
    recorded = {labels.get(VARIABLES["team"], "") for labels, _ in processes}
    hour = next(each for each in EXPRESSIONS if each.panel == "Spent within the last hour")
    proofs += [(f"sum({hour.over(0, team=team)})", expected("team", team, end - 60)) for team in recorded]
    test = {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [
            {
                # Nothing at all where nobody said a word.
                "expr": f"({text}) or vector(0)",
                "eval_time": f"{MINUTES}m",
                "exp_samples": [{"labels": "{}", "value": value}],
            }
            for text, value in proofs
        ],
    }
    file = tmp_path / "labels.yml"
    rules = [str(RULES / "recording.yml")]
    file.write_text(yaml.safe_dump({"rule_files": rules, "evaluation_interval": "1m", "tests": [test]}))
    assert "SUCCESS" in run(promtool, "test", "rules", file)
