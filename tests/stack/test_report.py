"""``openhands-otel report --prometheus``: periods of a real Prometheus, to the cent, whatever processes did in them."""

from __future__ import annotations

import io
import json
import random
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from deploy.native.build import binary
from deploy.native.ports import HOST, Ports
from deploy.native.server import Server
from openhands_otel import semconv
from openhands_otel._internal.cli import main

ZONE = "Asia/Kolkata"
BEGIN = int(datetime(2026, 3, 27, tzinfo=ZoneInfo(ZONE)).timestamp())
DAYS = 4
DAY = 86_400
MODELS = ("gpt-5", "claude-sonnet-5")
COUNTERS = (semconv.COST, semconv.CALLS, semconv.INPUT_TOKENS, semconv.OUTPUT_TOKENS)
Spent = dict[tuple[str, str, str], float]
"""By day, service and model."""


Whose = dict[tuple[str, str, str, str, str], float]
"""By namespace, service, team, day and model."""


def process(chance: random.Random, number: int, spent: Spent, whose: Whose) -> Iterator[tuple[str, str, int, float]]:
    """Samples of one that begins somewhere, says something each minute, but for silences, and ends somewhere."""
    service, model = chance.choice(("a", "b", "eu/c")), chance.choice(MODELS)
    namespace, team = "crew" if service == "eu/c" else "team", chance.choice(("", "x", "y.z"))
    given = {
        "job": f"{namespace}/{service}",
        "instance": f"{number}",
        "gen_ai_request_model": model,
        "openhands_llm_role": "agent",
        # Where a name has a slash the job alone would not tell.
        "service_namespace": namespace if service == "eu/c" else "",
        "openhands_label_team": team,
    }
    labels = ",".join(f'{name}="{value}"' for name, value in given.items() if value)
    moment, total = BEGIN + chance.randrange(DAYS * DAY - 3_600), 0.0
    end = min(BEGIN + DAYS * DAY, moment + chance.choice((60, 600, 40_000, 200_000)))
    yield labels, semconv.COST.prometheus_name, moment, 0.0
    while (moment := moment + chance.choice((60, 60, 60, 60, 120, 30_000))) < end:
        cost = chance.choice((0.0, 0.25, 1.0, 3.5))
        total += cost
        local = datetime.fromtimestamp(moment, ZoneInfo(ZONE))
        spent[f"{local:%Y-%m-%d}", service, model] += cost
        whose[namespace, service, team or "none", f"{local:%Y-%m-%d}", model] += cost
        for metric in COUNTERS:
            yield labels, metric.prometheus_name, moment, total if metric is semconv.COST else total * 4


@pytest.fixture(scope="module")
def truth() -> Spent:
    return defaultdict(float)


@pytest.fixture(scope="module")
def whose() -> Whose:
    return defaultdict(float)


@pytest.fixture(scope="module")
def url(truth: Spent, whose: Whose, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that has the samples of four days."""
    folder = tmp_path_factory.mktemp("prometheus")
    chance = random.Random(20261127)
    samples: dict[str, list[str]] = defaultdict(list)
    for number in range(25):
        for labels, name, moment, value in process(chance, number, truth, whose):
            samples[name].append(f"{name}{{{labels}}} {value} {moment}")
    text = [f"# TYPE {name.removesuffix('_total')} counter\n" + "\n".join(lines) for name, lines in samples.items()]
    (folder / "samples").write_text("\n".join([*text, "# EOF\n"]))
    words = [binary("promtool"), "tsdb", "create-blocks-from", "openmetrics", folder / "samples", folder / "data"]
    subprocess.run(words, check=True, capture_output=True, timeout=100)
    (folder / "prometheus.yml").write_text("")
    address = f"http://{HOST}:{Ports.free().prometheus}"
    arguments = [
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=10y",
        f"--web.listen-address={address.removeprefix('http://')}",
    ]
    server = Server("prometheus", [str(binary("prometheus")), *arguments], f"{address}/-/ready", folder / "log")
    server.start()
    server.wait_ready()
    try:
        yield address
    finally:
        server.stop()


def spend(url: str, *options: str) -> dict[str, Any]:
    output = io.StringIO()
    with redirect_stdout(output):
        assert main(["report", "--json", "--prometheus", url, "--timezone", ZONE, *options]) == 0
    return json.loads(output.getvalue())


PERIOD = ("--since", "2026-03-27", "--until", "2026-03-30")


@pytest.mark.parametrize(
    ("by", "of"),
    [
        ("day", lambda key: key[:1]),
        ("day,model", lambda key: (key[0], key[2])),
        ("service,day", lambda key: (key[1], key[0])),
        ("model", lambda key: key[2:]),
    ],
)
def test_days_are_exact_and_add_up(url: str, truth: Spent, by: str, of: Any) -> None:
    expected: dict[tuple[str, ...], float] = defaultdict(float)
    for key, cost in truth.items():
        expected[of(key)] += cost
    found = spend(url, *PERIOD, "--by", by)
    costs = {tuple(group["keys"].values()): group["accumulated_cost"] for group in found["groups"]}
    assert costs == {key: pytest.approx(cost, abs=1e-9) for key, cost in expected.items() if cost}
    assert found["total"]["accumulated_cost"] == pytest.approx(sum(truth.values()), abs=1e-9)
    assert found["total"]["llm_calls"] == 4 * sum(truth.values())
    assert found["total"]["accumulated_token_usage"]["prompt_tokens"] == 4 * sum(truth.values())


def test_two_of_its_days_are_compared(url: str, truth: Spent) -> None:
    output = io.StringIO()
    words = ["report", "compare", "2026-03-28", "2026-03-29", "--json", "--prometheus", url, "--timezone", ZONE]
    with redirect_stdout(output):
        assert main(words) == 0
    sides = [side["spend"]["total"]["accumulated_cost"] for side in json.loads(output.getvalue())["sides"]]
    assert sides == [
        pytest.approx(sum(cost for (day, *_), cost in truth.items() if day == which), abs=1e-9)
        for which in ("2026-03-28", "2026-03-29")
    ]


def test_weeks_and_months_and_conditions(url: str, truth: Spent) -> None:
    assert {group["keys"]["week"] for group in spend(url, *PERIOD, "--by", "week,month")["groups"]} == {
        "2026-W13",
        "2026-W14",
    }
    of_a = sum(cost for (_, service, _), cost in truth.items() if service == "a")
    found = spend(url, *PERIOD, "--by", "namespace,role", "--where", "service=a")
    assert found["total"]["accumulated_cost"] == pytest.approx(of_a, abs=1e-9)
    assert [group["keys"] for group in found["groups"]] == [{"namespace": "team", "role": "agent"}]
    assert spend(url, "--last", "all", "--until", "2026-03-30", "--by", "model")["total"][
        "accumulated_cost"
    ] == pytest.approx(sum(truth.values()), abs=1e-9)


NESTED = ("namespace", "service", "team", "day", "model")


@pytest.mark.parametrize(
    "by",
    [
        ("namespace",),
        ("team", "model"),
        ("namespace", "team", "day"),
        ("day", "service", "namespace"),
        ("model", "day", "team", "service", "namespace"),
    ],
    ids=",".join,
)
def test_labels_and_namespaces_nested_in_any_order_add_up(url: str, whose: Whose, by: tuple[str, ...]) -> None:
    expected: dict[tuple[str, ...], float] = defaultdict(float)
    for key, cost in whose.items():
        named = dict(zip(NESTED, key, strict=True))
        expected[tuple(named[name] for name in by)] += cost
    found = spend(url, *PERIOD, "--by", ",".join(by))
    costs = {tuple(group["keys"][name] for name in by): group["accumulated_cost"] for group in found["groups"]}
    assert costs == {key: pytest.approx(cost, abs=1e-9) for key, cost in expected.items() if cost}
    assert found["total"]["accumulated_cost"] == pytest.approx(sum(whose.values()), abs=1e-9)
    top = spend(url, *PERIOD, "--by", ",".join(by), "--top", "1")
    assert sum(group["accumulated_cost"] for group in top["groups"]) == pytest.approx(sum(whose.values()), abs=1e-9)


def test_what_a_condition_leaves_and_what_it_takes_are_all_of_it(url: str, whose: Whose) -> None:
    for name in ("team", "namespace", "service"):
        at = NESTED.index(name)
        for value in {key[at] for key in whose}:
            parts = [
                spend(url, *PERIOD, "--by", "day,model", "--where", f"{name}{sign}{value}")["total"]["accumulated_cost"]
                for sign in ("=", "!=")
            ]
            assert parts[0] == pytest.approx(sum(cost for key, cost in whose.items() if key[at] == value), abs=1e-9)
            assert sum(parts) == pytest.approx(sum(whose.values()), abs=1e-9)
