"""The release workflow: valid by GitHub's schema, signs what it publishes, and has no more rights than it needs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import yaml

from .conftest import ROOT

FILE = ROOT / ".github" / "workflows" / "release.yml"
WORKFLOW: dict[str, Any] = yaml.safe_load(FILE.read_text())
MAKEFILE = (ROOT / "Makefile").read_text()


def steps(job: str) -> list[dict[str, Any]]:
    return WORKFLOW["jobs"][job]["steps"]


def test_it_is_valid_by_githubs_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_published_was_tried_and_is_attested_and_nobody_keeps_a_token() -> None:
    used = [step.get("uses", step.get("run", "")) for step in steps("build")]
    order = ["make test-package", "hatchling build", "actions/attest-build-provenance", "actions/upload-artifact"]
    places = [next(at for at, each in enumerate(used) if word in each) for word in order]
    assert places == sorted(places)
    (publishing,) = (step for step in steps("publish") if step["uses"].startswith("pypa/"))
    assert publishing["with"] == {"attestations": True}
    assert WORKFLOW["jobs"]["publish"]["needs"] == "build"
    assert "secrets." not in FILE.read_text()


def test_no_job_may_do_more_than_it_needs() -> None:
    assert WORKFLOW["permissions"] == {}
    writes = {
        name: {right for right, kind in job["permissions"].items() if kind == "write"}
        for name, job in WORKFLOW["jobs"].items()
    }
    assert writes == {"build": {"id-token", "attestations"}, "publish": {"id-token"}, "notes": {"contents"}}


def test_each_target_of_make_that_it_calls_is_there() -> None:
    called = [step["run"] for step in steps("build") if step.get("run", "").startswith("make ")]
    targets = {word for line in called for word in line.split()[1:]}
    assert targets == {"setup", "lint", "types", "test-package"}
    assert all(f"\n{target}: " in MAKEFILE for target in targets)
