"""What a launch leaves in the environment, and that it can be taken out again: real launchers, real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from openhands_otel._internal.launch.footprint import CREDENTIALS, MARKER, Footprint, is_auto_instrumentation, is_site

SHOW = """
import json, os
from openhands_otel._internal.launch import footprint
left = footprint.leave()
print(json.dumps([dict(os.environ), left.removed_from(os.environ, os.environ)]))
"""
IN_A_WORKER = f"""
import os, subprocess, sys
os.chdir("/")
print(subprocess.run([sys.executable, "-c", {SHOW!r}], capture_output=True, text=True, check=True).stdout)
"""
DIRECTORY = Path(sys.executable).parent
LAUNCHERS = {
    "opentelemetry-instrument": [str(DIRECTORY / "opentelemetry-instrument")],
    "openhands-otel run": [str(DIRECTORY / "openhands-otel"), "run", "--service-name", "chosen", "--"],
}


def launched(launcher: str, program: str, cwd: Path, **exported: str) -> tuple[dict[str, str], dict[str, str]]:
    """(environment, environment without the footprint) as a process sees them that ``launcher`` started."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"OTEL_METRICS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    done = subprocess.run(
        [*LAUNCHERS[launcher], sys.executable, "-c", program],
        cwd=cwd,
        env={**env, **exported},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    seen, clean = json.loads(done.stdout)
    plain = json.loads(
        subprocess.run(
            [sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"],
            env={**env, **exported},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert clean == plain
    return seen, clean


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("program", [SHOW, IN_A_WORKER], ids=["first process", "worker in another directory"])
def test_without_the_footprint_the_environment_is_what_the_user_exported(
    tmp_path: Path, launcher: str, program: str
) -> None:
    seen, clean = launched(launcher, program, tmp_path, OTEL_RESOURCE_ATTRIBUTES="a=b", OTEL_SERVICE_NAME="mine")

    assert MARKER in seen
    assert clean["OTEL_SERVICE_NAME"] == "mine"


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("program", [SHOW, IN_A_WORKER], ids=["first process", "worker in another directory"])
def test_the_users_own_python_path_stays_in_its_order(tmp_path: Path, launcher: str, program: str) -> None:
    own = os.pathsep.join([str(tmp_path / "b"), "/a", str(tmp_path), "relative"])

    _, clean = launched(launcher, program, tmp_path, PYTHONPATH=own)

    assert clean["PYTHONPATH"] == own


def test_run_writes_one_entry_into_python_path(tmp_path: Path) -> None:
    seen, _ = launched("openhands-otel run", SHOW, tmp_path)

    assert is_site(seen["PYTHONPATH"])


def test_a_process_that_starts_instrumentation_itself_has_no_footprint(tmp_path: Path) -> None:
    program = f"import os; os.environ['OTEL_SERVICE_NAME'] = 'set in code'\n{SHOW}"

    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    seen, clean = json.loads(out)
    assert seen == clean
    assert clean["OTEL_SERVICE_NAME"] == "set in code"
    assert MARKER not in seen


def test_what_the_application_changed_since_then_is_its_own() -> None:
    footprint = Footprint({"OTEL_SERVICE_NAME": ("by run", None), "OTEL_LOGS_EXPORTER": ("none", "otlp")})
    environment = {"OTEL_SERVICE_NAME": "by the application", "OTEL_LOGS_EXPORTER": "none"}

    clean = footprint.removed_from(environment, environment)

    assert clean == {"OTEL_SERVICE_NAME": "by the application", "OTEL_LOGS_EXPORTER": "otlp"}


@pytest.mark.parametrize("name", CREDENTIALS)
def test_an_inherited_credential_goes_and_one_that_was_given_stays(name: str) -> None:
    inherited = {name: "secret"}

    assert Footprint().removed_from(inherited, inherited) == {}
    assert Footprint().removed_from({name: "given"}, inherited) == {name: "given"}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"variables": {"A": 1}}', '{"variables": {"A": ["b"]}}'])
def test_a_note_that_cannot_be_read_counts_as_none(text: str) -> None:
    assert Footprint.decoded(text) is None


def test_a_note_says_what_was_put_into_it() -> None:
    footprint = Footprint({"A": ("1", None), "B": ("2", "3")}, "/somewhere")

    assert Footprint.decoded(footprint.encoded()) == footprint


def test_the_launchers_directory_is_known_in_any_installation() -> None:
    assert is_auto_instrumentation("/any/where/opentelemetry/instrumentation/auto_instrumentation")
    assert not is_auto_instrumentation("/home/me/auto_instrumentation")
    assert is_site("/any/where/openhands_otel/_internal/launch/site")
    assert not is_site("/home/me/launch/site")
