"""An evaluation's bill by experiment, instance and attempt: live, after a restart, and from files.

Forty instances, two experiments with a model each at once, eight forked workers, calls that are retried, three workers
that are killed in the middle of an instance. The scripted provider has a script, and so a bill, for each attempt.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pytest
from viewer_process import Viewer, running_viewer, wait_for

from forked import Child, Prepared
from openhands_otel._internal.demo.answers import Usage, refuse, say
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel.stats import Spend

MODELS = {"baseline": "openai/gpt-4o-mini", "candidate": "openai/gpt-4o"}
INSTANCES = 20
HANGING = {("baseline", 3), ("candidate", 7), ("candidate", 19)}
BY = "experiment,instance,attempt"

Costs = dict[tuple[str, ...], float]


@dataclass
class Evaluation:
    """What was run: the bill of each attempt, the viewer's database, and the files."""

    bill: Costs
    live: Costs
    database: Path
    files: Path


def by_attempt(spend: Spend) -> Costs:
    return {
        tuple(group.keys[name] for name in BY.split(",")): group.accumulated_cost
        for group in spend.groups
        if group.llm_calls
    }


def asked(viewer: Viewer) -> Costs:
    return by_attempt(Spend.model_validate_json(viewer.http.get("/api/v1/spend", params={"by": BY}).content))


def billed(server: LLMServer) -> Costs:
    found: Costs = {}
    for entry in server.provider.bill.entries:
        key = tuple(entry.script.split("-"))
        found[key] = found.get(key, 0.0) + (entry.cost or 0.0)
    return found


def jobs(server: LLMServer) -> Iterator[dict[str, object]]:
    for number in range(INSTANCES):
        for experiment, model in MODELS.items():
            for attempt in (1, 2):
                name = f"{experiment}-i{number}-{attempt}"
                answers = [say("Done.", usage=Usage(input=1_000 + 37 * number, output=11 * attempt)) for _ in range(2)]
                refused = [refuse(429)] if number % 5 == 0 else []
                server.provider.script(name, [*refused, *answers])
            hangs = (experiment, number) in HANGING
            yield {"experiment": experiment, "instance": f"i{number}", "attempt": 1, "model": model, "hangs": hangs}


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory, prepared: Prepared) -> Evaluation:
    folder = tmp_path_factory.mktemp("evaluation")
    database, files = folder / "history.sqlite3", folder / "files"
    with LLMServer() as server, running_viewer(database=database) as viewer:
        plan = folder / "jobs.json"
        plan.write_text(json.dumps(list(jobs(server))))
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": viewer.url, "OPENHANDS_OTEL_FILE": str(files)}
        pipe = folder / "in"
        os.mkfifo(pipe)
        # The import of OpenHands is shared: what is told of a pool's workers is looked at, not how they were started.
        process = prepared.run(
            Path(__file__).with_name("evaluation.py").read_text(),
            folder,
            arguments=[server.url, str(plan)],
            stdin=pipe,
            **told,
        )
        with pipe.open("w") as answers:
            kill_who_hangs(process, answers, server, viewer, files)
        assert process.wait() == 0, process.err
        wait_for(lambda: len(asked(viewer)) == 2 * INSTANCES + len(HANGING), "the last attempt")
        return Evaluation(billed(server), asked(viewer), database, files)


def kill_who_hangs(process: Child, answers: TextIO, server: LLMServer, viewer: Viewer, files: Path) -> None:
    """Kill each worker that hangs once what it has spent is known."""
    for line in process.lines():
        if not line.startswith("{"):
            continue
        job = json.loads(line)
        key = job["experiment"], job["instance"], "1"
        wait_for(lambda key=key: asked(viewer).get(key) == pytest.approx(billed(server)[key]), "what it spent")
        wait_for(lambda key=key: from_files(files).get(key) == pytest.approx(billed(server)[key]), "it in files")
        os.kill(job["pid"], signal.SIGKILL)
        answers.write("killed\n")
        answers.flush()


def from_files(files: Path) -> Costs:
    command = [sys.executable, "-m", "openhands_otel", "report", "--files", str(files), "--by", BY, "--last", "all"]
    found = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    return by_attempt(Spend.model_validate_json(found))


def test_each_attempt_costs_what_the_provider_billed_for_it(evaluation: Evaluation) -> None:
    assert len(evaluation.bill) == 2 * INSTANCES + len(HANGING)
    assert evaluation.live == pytest.approx(evaluation.bill, abs=1e-12)


def test_it_does_so_from_files_alone(evaluation: Evaluation) -> None:
    assert from_files(evaluation.files) == pytest.approx(evaluation.bill, abs=1e-12)


def test_it_does_so_from_the_database_and_after_a_restart(evaluation: Evaluation) -> None:
    command = [sys.executable, "-m", "openhands_otel", "report", "--database", str(evaluation.database)]
    found = subprocess.run(
        [*command, "--by", BY, "--last", "all", "--json"], capture_output=True, text=True, check=True
    ).stdout
    assert by_attempt(Spend.model_validate_json(found)) == pytest.approx(evaluation.bill, abs=1e-12)
    with running_viewer(database=evaluation.database) as again:
        assert asked(again) == pytest.approx(evaluation.bill, abs=1e-12)
