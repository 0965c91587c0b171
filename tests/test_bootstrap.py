"""The set-up finds a usable Python wherever it is, says in one line when there is none, and works only when needed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHELLS = [shell for shell in ("dash", "bash", "sh") if shutil.which(shell)][:2]
COMMANDS = ("cat", "cksum", "dirname", "mkdir", "chmod", "touch")

# A real interpreter that believes to be another one: the script's own check is what decides about it.
PRETENDER = """#!{python}
import sys
sys.version_info = {version}
for name in {missing}:
    sys.modules[name] = None
code = sys.argv[sys.argv.index("-c") + 1]
sys.argv = ["-c", *sys.argv[sys.argv.index("-c") + 2:]]
sys._base_executable = __file__
exec(code)
"""

FAILING_SHIM = """#!/bin/sh
echo "pyenv: $0: command not found in version 3.13" >&2
exit 127
"""

FAKE_UV = """#!/bin/sh
echo "$*" >>"{log}"
case $1 in
    --version) echo "uv {version}" ;;
    python) [ -n "{python}" ] && echo "{python}" ;;
    sync) mkdir -p .venv/bin && for name in python openhands-otel; do
            printf '#!/bin/sh\\n' >.venv/bin/$name && chmod +x .venv/bin/$name
        done ;;
esac
"""


@dataclass
class Machine:
    """A fabricated machine: its PATH, its home, its pyenv, and a copy of the project."""

    root: Path
    shell: str
    bin: Path = field(init=False)
    home: Path = field(init=False)
    project: Path = field(init=False)

    def __post_init__(self) -> None:
        self.bin, self.home, self.project = (self.root / name for name in ("bin", "home", "project"))
        self.bin.mkdir()
        self.home.mkdir()
        for command in COMMANDS:
            found = shutil.which(command)
            assert found is not None
            (self.bin / command).symlink_to(found)
        (self.project / "scripts").mkdir(parents=True)
        for name in ("scripts/bootstrap.sh", "pyproject.toml", "uv.lock", ".python-version"):
            shutil.copy(ROOT / name, self.project / name)

    def put(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def python(self, path: str, version: tuple[int, ...] = (3, 12, 1), missing: tuple[str, ...] = ()) -> Path:
        return self.put(self.root / path, PRETENDER.format(python=sys.executable, version=version, missing=missing))

    def uv(self, path: str = "bin/uv", version: str = "0.9.2", python: Path | str = "") -> Path:
        return self.put(self.root / path, FAKE_UV.format(log=self.root / "uv.log", version=version, python=python))

    @property
    def uv_calls(self) -> list[str]:
        log = self.root / "uv.log"
        calls = log.read_text().splitlines() if log.exists() else []
        return [call for call in calls if call != "--version"]

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.bin), "HOME": str(self.home)} | variables
        shell = shutil.which(self.shell)
        assert shell is not None
        command = [shell, str(self.project / "scripts/bootstrap.sh"), *arguments]
        return subprocess.run(
            command, env=environment, cwd=self.project, capture_output=True, text=True, timeout=100, check=False
        )

    def found(self, **variables: str) -> str:
        result = self.run("--print-python", **variables)
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        return result.stdout.strip()


@pytest.fixture(params=SHELLS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(tmp_path, request.param)


@pytest.mark.parametrize("name", ["python3", "python", "python3.12", "python3.13", "python3.14"])
def test_a_python_on_the_path_is_found_under_any_usual_name(machine: Machine, name: str) -> None:
    python = machine.python(f"bin/{name}")

    assert machine.found() == str(python)


def test_a_later_directory_on_the_path_counts_when_the_first_has_an_old_python(machine: Machine) -> None:
    machine.python("bin/python3", version=(3, 11, 7))
    python = machine.python("opt/python3")

    assert machine.found(PATH=f"{machine.bin}:{python.parent}") == str(python)


def test_a_pyenv_shim_that_fails_does_not_hide_the_versions_pyenv_has(machine: Machine) -> None:
    for name in ("python3", "python3.12", "python3.13", "python"):
        machine.put(machine.bin / name, FAILING_SHIM)
    machine.python("home/.pyenv/versions/3.11.7/bin/python3", version=(3, 11, 7))
    python = machine.python("home/.pyenv/versions/3.12.1/bin/python3.12")

    assert machine.found() == str(python)


def test_pyenv_is_found_where_its_variable_says(machine: Machine) -> None:
    python = machine.python("elsewhere/versions/3.13.0/bin/python3.13", version=(3, 13, 0))

    assert machine.found(PYENV_ROOT=str(machine.root / "elsewhere")) == str(python)


def test_the_release_that_is_tested_most_is_preferred(machine: Machine) -> None:
    machine.python("bin/python3", version=(3, 15, 0))
    machine.python("bin/python3.12")
    python = machine.python("home/.pyenv/versions/3.13.0/bin/python3.13", version=(3, 13, 0))

    assert machine.found() == str(python)


def test_without_any_python_there_is_one_line_that_says_what_to_do(machine: Machine) -> None:
    machine.python("bin/python3", version=(3, 11, 7))

    result = machine.run()

    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "no Python 3.12 or newer found" in result.stderr
    assert "install Python 3.13" in result.stderr


def test_a_python_that_cannot_install_anything_is_named_with_the_cure(machine: Machine) -> None:
    python = machine.python("bin/python3", missing=("ensurepip", "pip"))

    result = machine.run()

    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert str(python) in result.stderr
    assert "python3-venv" in result.stderr


def test_a_python_that_can_install_is_preferred_to_one_that_cannot_but_uv_needs_neither(machine: Machine) -> None:
    bare = machine.python("bin/python3.13", version=(3, 13, 0), missing=("ensurepip", "pip"))
    whole = machine.python("bin/python3")

    assert machine.found() == str(whole)
    machine.uv()
    assert machine.found() == str(bare)


def test_uv_may_know_a_python_that_nobody_else_does(machine: Machine) -> None:
    python = machine.python("managed/python3.13", version=(3, 13, 0))
    machine.uv(python=python)

    assert machine.found() == str(python)


def test_a_uv_that_brings_no_python_ends_in_one_line_about_it(machine: Machine) -> None:
    machine.uv()

    result = machine.run()

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("bootstrap: no Python 3.12 or newer found")
    assert "python install --quiet 3.13" in machine.uv_calls


@pytest.mark.parametrize("place", ["bin/uv", "home/.local/bin/uv", "home/.cargo/bin/uv"])
def test_the_locked_versions_are_installed_once_and_again_only_when_they_change(machine: Machine, place: str) -> None:
    python = machine.python("bin/python3")
    machine.uv(place)

    runs = [machine.run(), machine.run()]
    (machine.project / "uv.lock").write_text((machine.project / "uv.lock").read_text() + "\n# changed\n")
    runs.append(machine.run())

    assert [result.returncode for result in runs] == [0, 0, 0]
    assert machine.uv_calls == [f"sync --quiet --locked --python {python}"] * 2
    assert [bool(result.stderr) for result in runs] == [True, False, True]


def test_a_project_that_was_moved_is_set_up_again(machine: Machine) -> None:
    machine.python("bin/python3")
    machine.uv()
    machine.run()

    machine.project = machine.project.rename(machine.root / "moved")
    machine.run()

    assert len(machine.uv_calls) == 2


def test_a_uv_that_is_too_old_or_broken_is_passed_over(machine: Machine) -> None:
    python = machine.python("bin/python3")
    machine.put(machine.bin / "uv", FAILING_SHIM)
    machine.uv("home/.cargo/bin/uv", version="0.4.30")
    machine.uv("home/.local/bin/uv")

    assert machine.run().returncode == 0
    assert machine.uv_calls == [f"sync --quiet --locked --python {python}"]


def test_make_without_a_target_lists_the_targets() -> None:
    make = shutil.which("make")
    assert make is not None

    listed = subprocess.run([make, "-C", str(ROOT), "--no-print-directory"], capture_output=True, text=True, check=True)

    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert {line.split()[1] for line in listed.stdout.splitlines()} == set(phony[1].split())
