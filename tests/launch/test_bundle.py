"""A bundle: what it has, how it is made, and what a Python that has nothing of us gets from it.

Kind of fault: $0 in every environment that nobody can install into (uvx, Agent Canvas, one made in mid-run), and help
that wins over the environment's own packages.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from openhands_otel._internal.launch.footprint import MANIFEST

COMMAND = Path(sys.executable).with_name("openhands-otel")


def execute(*words: str | Path, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    return subprocess.run(list(map(str, words)), cwd=cwd, env=env, capture_output=True, text=True, timeout=100)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "b"
    done = execute(COMMAND, "bundle", folder)
    assert done.returncode == 0, done.stderr
    assert f"PYTHONPATH={folder}/site" in done.stdout
    return folder


def test_its_site_has_a_sitecustomize_alone_and_nothing_in_it_is_compiled(bundle: Path) -> None:
    assert [file.name for file in (bundle / "site").iterdir()] == ["sitecustomize.py"]
    assert {file.suffix for file in bundle.rglob("*.*") if file.is_file()} & {".so", ".pyd", ".pth", ".pyc"} == set()
    contents = json.loads((bundle / MANIFEST).read_text())
    assert {folder.name for folder in (bundle / "lib").iterdir()} == set(contents["packages"])
    assert contents["left_out"]["wrapt"] == contents["left_out"]["protobuf"] == "compiled"
    assert "opentelemetry-util-genai" in contents["packages"]


def test_another_takes_its_place_and_nothing_else_does(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("")
    (tmp_path / "file").write_text("")
    again = tmp_path / "again"
    assert [execute(COMMAND, "bundle", again).returncode for _ in range(2)] == [0, 0]
    refused = [execute(COMMAND, "bundle", tmp_path / name) for name in ("theirs", "file", "file/below")]

    assert [(done.returncode, done.stdout, done.stderr.count("\n")) for done in refused] == [
        (2, "", 1),
        (2, "", 1),
        (1, "", 1),
    ]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["again", "file", "theirs"]


def test_copied_into_a_pod_it_is_found_as_if_its_site_were_named(bundle: Path) -> None:
    """What the OpenTelemetry Operator writes into PYTHONPATH, around what the pod has there, is gone."""
    asks = "import os, sys; print(sys.path, os.environ['PYTHONPATH'], '_openhands_otel_launch' in sys.modules)"
    prefix = bundle / "opentelemetry" / "instrumentation" / "auto_instrumentation"
    assert [file.name for file in prefix.iterdir()] == ["sitecustomize.py"]
    for theirs in ("", f"{bundle.parent}{os.pathsep}"):
        named = f"{prefix}{os.pathsep}{theirs}{bundle}"
        injected = execute(sys.executable, "-c", asks, PYTHONPATH=named)
        site = f"{bundle}/site{os.pathsep}{theirs}".rstrip(os.pathsep)
        assert injected.stdout == execute(sys.executable, "-c", asks, PYTHONPATH=site).stdout
        assert injected.stdout.endswith(f"{site} True\n")
