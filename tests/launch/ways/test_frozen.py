"""Programs that PyInstaller has frozen, built here: each is measured to the bill, or says in one line that it is not.

Kind of fault: $0 without a word, since such a program looks at no ``PYTHONPATH``, brings a part of each package, and
is what OpenHands publishes as its agent server.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from one_call import SPENDS, settled
from server.agent_server import agent_server, remote_client
from server.scripts import look_around
from viewer_process import running_viewer

from openhands_otel._internal.demo.llm_server import LLMServer

COMMAND = str(Path(sys.executable).with_name("openhands-otel"))
FREEZE_S, RUN_S = 3000, 600
# What an agent server does with --extra-python-path and --import-modules, and what starts another program.
PROGRAM = """
import importlib.metadata, subprocess, sys
if sys.argv[1] == "--extra-python-path":
    sys.path[:0] = sys.argv[2:]
    importlib.import_module("sitecustomize")
    importlib.import_module("openhands.sdk")
    print("ran", any(type(finder).__name__ == "Bundled" for finder in sys.meta_path))
else:
    sys.exit(subprocess.run(sys.argv[1:]).returncode)
"""


def frozen(python: Path, folder: Path, source: str, *options: str) -> Path:
    """A program of one file, made from ``source`` with what ``python`` has installed."""
    (folder / "program.py").write_text(source)
    words = [str(python), "-m", "PyInstaller", "--onefile", "--log-level=WARN", *options, "program.py"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=FREEZE_S, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "dist" / "program"


@pytest.fixture(scope="module")
def small(environment_without_us: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frozen")
    return frozen(environment_without_us / "python", folder, PROGRAM)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a bundle, as PYTHONPATH would name it."""
    bundle = tmp_path_factory.mktemp("bundle") / "bundle"
    subprocess.run([COMMAND, "bundle", str(bundle)], check=True, capture_output=True)
    return bundle / "site"


def execute(words: Sequence[str | Path], cwd: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, words)), cwd=cwd, env=variables, capture_output=True, text=True, timeout=RUN_S, check=False
    )


@pytest.mark.timeout(FREEZE_S + RUN_S)
def test_run_says_that_it_is_not_measured_and_measures_the_pythons_that_it_starts(
    small: Path, tmp_path: Path, llm_server: LLMServer, variables: dict[str, str]
) -> None:
    (tmp_path / "spending.py").write_text(SPENDS)
    with running_viewer() as viewer:
        variables |= {"LLM": llm_server.base_url("default"), "OTEL_EXPORTER_OTLP_ENDPOINT": viewer.url}
        done = execute([COMMAND, "run", "--", small, "python3", "spending.py"], tmp_path, variables)
        assert done.returncode == 0, done.stderr[-4000:]
        settled(viewer, llm_server, 1)
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("openhands-otel"))
    assert f"{small} is a frozen program: it is not measured, Pythons that it starts are" in said


def test_doctor_knows_it(small: Path, tmp_path: Path, variables: dict[str, str]) -> None:
    done = execute([COMMAND, "doctor", "--json", "--", small], tmp_path, variables)
    (found,) = (each for each in json.loads(done.stdout)["findings"] if each["check"] == "command")
    assert found["level"] == "note"
    assert "is a frozen program: it is not measured, Pythons that it starts are" in found["said"]
    assert "docs/launching.md" in found["cure"]


def test_a_bundle_that_is_named_in_pythonpath_changes_nothing(
    small: Path, site: Path, tmp_path: Path, variables: dict[str, str]
) -> None:
    plain, named = (
        execute([small, "echo", "it ran"], tmp_path, variables | more) for more in ({}, {"PYTHONPATH": str(site)})
    )
    assert (plain.returncode, plain.stdout, plain.stderr) == (0, "it ran\n", "")
    assert (named.returncode, named.stdout, named.stderr) == (0, "it ran\n", "")


def test_one_that_looks_at_the_bundle_and_lacks_too_much_says_what_and_runs_on_as_without_us(
    small: Path, site: Path, tmp_path: Path, variables: dict[str, str]
) -> None:
    (tmp_path / "openhands" / "sdk").mkdir(parents=True)
    (tmp_path / "openhands" / "sdk" / "__init__.py").write_text("")
    done = execute([small, "--extra-python-path", site, tmp_path], tmp_path, variables)
    assert (done.returncode, done.stdout) == (0, "ran False\n")
    (said,) = done.stderr.splitlines()
    assert "runs OpenHands without telemetry: ModuleNotFoundError: No module named " in said
    assert said.endswith("(start it from its source: docs/launching.md)")


# As in OpenHands' own recipe (agent-server.spec): whole packages of theirs, and of others what is loaded by name.
WHOLE = ("openhands.sdk", "openhands.tools", "openhands.agent_server", "litellm", "fastmcp", "fakeredis", "tiktoken")
WITH_DATA = (*WHOLE[:2], "litellm", "fastmcp", "fakeredis", "tiktoken", "mcp", "binaryornot")
LEFT_OUT = ("tkinter", "matplotlib", "numpy", "scipy", "pandas", "mcp.cli")
SERVER = "from openhands.agent_server.__main__ import main; main()"


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.environ.get("TEST_FROZEN") != "full":
        pytest.skip("TEST_FROZEN=full make test-launch does this: freezing an agent server takes minutes")
    programs: Path = request.getfixturevalue("environment_of_a_server")
    options = [
        *(f"--collect-submodules={name}" for name in (*WHOLE, "tiktoken_ext")),
        *(f"--collect-data={name}" for name in WITH_DATA),
        *(f"--copy-metadata={name}" for name in ("fastmcp", "litellm")),
        *(f"--exclude-module={name}" for name in LEFT_OUT),
    ]
    return frozen(programs / "python", tmp_path_factory.mktemp("server"), SERVER, *options)


@pytest.mark.timeout(FREEZE_S + RUN_S)
def test_the_bill_of_a_frozen_agent_server_that_looks_at_the_bundle(
    server: Path, site: Path, llm_server: LLMServer, tmp_path: Path
) -> None:
    asked = look_around(llm_server)
    with running_viewer() as viewer:
        looking = ("--extra-python-path", str(site), "--import-modules", "sitecustomize")
        metrics = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{viewer.url}/v1/metrics"}
        with (
            remote_client(tmp_path) as client,
            agent_server(lambda words: [str(server), *words[2:], *looking], tmp_path, **metrics) as started,
        ):
            provider = llm_server.base_url("main")
            conversation = client.open(host=started.url, provider=provider, tools=("terminal",))
            client.run(conversation=conversation, text="hello")
            settled(viewer, llm_server, len(llm_server.bill.entries))
    assert llm_server.bill.total > 0
    assert any("named ''" in request for request in asked)
    # What somebody exported is theirs, and stays.
    seen = {name for request in asked for name in re.findall(r"(?:OPENHANDS_)?OTEL_\w+", request)}
    assert seen <= metrics.keys()
    assert not any(str(site) in request for request in asked)
