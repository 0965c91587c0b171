"""examples/evaluation, run as its README says, against the scripted provider."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from viewer_process import running_viewer, wait_for

from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel.stats import Spend

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "evaluation"


def as_its_readme_says(start: str) -> tuple[dict[str, str], list[str]]:
    """Variables and words of a command."""
    (line,) = (line for line in (EXAMPLE / "README.md").read_text().splitlines() if f"openhands-otel {start}" in line)
    before, _, behind = line.partition("openhands-otel ")
    variables = dict(word.partition("=")[::2] for word in shlex.split(before))
    words = [sys.executable if word == "python" else word for word in shlex.split(behind)]
    return variables, [sys.executable, "-m", "openhands_otel", *words]


def test_each_instance_is_told_with_what_it_cost(llm_server: LLMServer, tmp_path: Path) -> None:
    with running_viewer() as viewer:
        variables, command = as_its_readme_says("run")
        told = {
            "LLM_BASE_URL": llm_server.base_url(None),
            "LLM_API_KEY": "no-key-needed",
            "OTEL_EXPORTER_OTLP_ENDPOINT": viewer.url,
            "XDG_STATE_HOME": str(tmp_path),
            "HOME": str(tmp_path),
        }
        done = subprocess.run(
            command,
            env=os.environ | told | variables,
            cwd=EXAMPLE,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(": finished") == 8
        total = pytest.approx(llm_server.bill.total, abs=1e-9)
        wait_for(lambda: viewer.state().totals.accumulated_cost == total, "the whole bill")
        _, command = as_its_readme_says("report")
        report = subprocess.run(
            [*command, "--viewer", viewer.url, "--json"],
            env=os.environ | told,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert report.returncode == 0, report.stderr
        spend = Spend.model_validate(json.loads(report.stdout))
        names = {f"sum-{number}" for number in range(1, 9)}
        assert {stats.name for stats in viewer.state().conversations} == names
    groups = {group.keys["instance"]: group for group in spend.groups if group.llm_calls}
    assert groups.keys() == names
    assert {group.keys["experiment"] for group in groups.values()} == {"e7"}
    assert sum(group.accumulated_cost for group in groups.values()) == total
    assert all(group.accumulated_cost > 0 and group.llm_calls == 1 for group in groups.values())
