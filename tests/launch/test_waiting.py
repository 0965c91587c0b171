"""When instrumentation starts under ``run``: when an import of ``openhands.sdk`` really begins, and not before.

The kind of fault: paying at each start for what few processes need, and, once it waits, waiting for the wrong thing. A
small package stands for OpenHands: what matters is how it is found and loaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from openhands_otel._internal.capture import compat
from openhands_otel._internal.launch import command, footprint
from openhands_otel._internal.launch.footprint import MARKER

RUN = [str(Path(sys.executable).with_name("openhands-otel")), "run", "--"]
SDK = """
import os, sys
started = "opentelemetry.instrumentation.auto_instrumentation" in sys.modules
environment = dict(os.environ)
bodies = globals().get("bodies", 0) + 1
"""
SHOWN = """
import sys
sys.path.insert(0, sys.argv[1])
def started():
    return "openhands_otel._internal.process.start" in sys.modules
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    package = tmp_path / "packages" / "openhands" / "sdk"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(SDK)
    (package / "part.py").write_text("")
    with zipfile.ZipFile(tmp_path / "packages.zip", "w") as archive:
        archive.mkdir("openhands")
        archive.writestr("openhands/sdk/__init__.py", SDK)
        archive.writestr("openhands/other.py", "")
    return tmp_path


def execute(home: Path, words: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
    quiet = {"OTEL_METRICS_EXPORTER": "none", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*"}
    env = {**os.environ, **quiet, **variables}
    return subprocess.run(words, cwd=home, env=env, capture_output=True, text=True, timeout=100, check=False)


WAYS = {
    "import": "import openhands.sdk",
    "from": "from openhands.sdk import part",
    "import_module": "import importlib; importlib.import_module('openhands.sdk.part')",
    "lazily": (
        "import importlib.util as u; s = u.find_spec('openhands.sdk'); s.loader = u.LazyLoader(s.loader)\n"
        "m = u.module_from_spec(s); sys.modules['openhands.sdk'] = m; s.loader.exec_module(m); m.bodies"
    ),
    "a finder that asks nobody": (
        "from importlib.machinery import PathFinder\n"
        "class Own:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        return PathFinder.find_spec(name, path) if name.startswith('openhands.') else None\n"
        "sys.meta_path.insert(0, Own()); import openhands.sdk.part, colorsys"
    ),
    "wrapt's finder": (
        "import wrapt; heard = []; wrapt.register_post_import_hook(heard.append, 'openhands.sdk')\n"
        "import openhands.sdk; assert len(heard) == 1"
    ),
    "two threads": (
        "import threading; t = [threading.Thread(target=__import__, args=('openhands.sdk',)) for _ in range(2)]\n"
        "[x.start() for x in t]; [x.join() for x in t]"
    ),
    "a reload": "import importlib, openhands.sdk; importlib.reload(openhands.sdk); openhands.sdk.bodies -= 1",
    "in code before": "from openhands_otel import OpenHandsInstrumentor as O; O(); import openhands.sdk",
}


@pytest.mark.parametrize("way", WAYS)
def test_it_starts_before_the_first_line_of_openhands_and_once(home: Path, way: str) -> None:
    program = (
        f"{SHOWN}before = started()\n{WAYS[way]}\nimport openhands.sdk as sdk\n"
        "print(before, started(), sdk.bodies, sum(type(f).__name__ == 'Waiting' for f in sys.meta_path))\n"
        "print(sdk.started)\n"
    )

    done = execute(home, [*RUN, sys.executable, "-c", program, "packages"])

    seen, body = done.stdout.splitlines()
    assert (seen, done.returncode) == ("False True 1 0", 0), done.stderr
    # Who goes around all finders is heard of with the next module that he does not find.
    assert body == ("False" if "finder that" in way else "True")
    assert done.stderr == ""


@pytest.mark.parametrize(
    "look",
    [
        "import importlib.util; importlib.util.find_spec('openhands.sdk')",
        "import pkgutil, openhands; list(pkgutil.iter_modules(openhands.__path__))",
        "from importlib import metadata; metadata.distributions()",
    ],
)
def test_who_only_looks_starts_nothing(home: Path, look: str) -> None:
    done = execute(home, [*RUN, sys.executable, "-c", f"{SHOWN}{look}; print(started())", "packages"])

    assert (done.stdout, done.stderr) == ("False\n", "")


def test_who_has_instrumented_in_code_or_set_a_provider_is_not_warned_of_it(home: Path) -> None:
    program = (
        f"{SHOWN}from openhands_otel import OpenHandsInstrumentor; OpenHandsInstrumentor().instrument()\n"
        "from opentelemetry import trace; from opentelemetry.sdk.trace import TracerProvider\n"
        "own = TracerProvider(); trace.set_tracer_provider(own)\n"
        "import openhands.sdk; print(started(), trace.get_tracer_provider() is own)\n"
    )
    others = {point.name for point in entry_points(group="opentelemetry_instrumentor")} - {"openhands"}
    only_ours = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(others)}

    done = execute(home, [*RUN, sys.executable, "-c", program, "packages"], **only_ours)

    assert done.stdout == "True True\n", done.stderr
    # The stand-in lacks what is looked for in the real one.
    assert [line for line in done.stderr.splitlines() if "lacks what openhands-otel looks for" not in line] == []


def test_an_archive_has_one_loader_for_all_that_is_in_it(home: Path) -> None:
    program = (
        f"{SHOWN}import importlib.util; importlib.util.find_spec('openhands.sdk'); import openhands.other\n"
        "print(started()); import openhands.sdk; print(openhands.sdk.started, vars(openhands.sdk.__loader__).keys())"
    )

    done = execute(home, [*RUN, sys.executable, "-c", program, "packages.zip"])

    assert done.stdout.startswith("False\nTrue "), done.stderr
    assert "create_module" not in done.stdout


def test_an_import_that_fails_fails_as_without_us(home: Path) -> None:
    (home / "packages" / "openhands" / "sdk" / "__init__.py").write_text("1 / 0\n")
    words = [sys.executable, "-c", f"{SHOWN}import openhands.sdk", "packages"]

    with_us, plain = execute(home, [*RUN, *words]), execute(home, words)

    assert (with_us.returncode, with_us.stdout) == (plain.returncode, plain.stdout)
    assert with_us.stderr == plain.stderr


def test_openhands_without_us_says_so_in_one_line_and_keeps_nothing_for_its_tools(home: Path) -> None:
    """A worker in another environment: $0 and no word before."""
    program = f"{SHOWN}import openhands.sdk, json; print(json.dumps(openhands.sdk.environment))"
    # -S: the packages of this environment are not there.
    words = [sys.executable, "-S", "-c", program, "packages"]

    with_us, plain = execute(home, [*RUN, *words], PYTHONPATH="own"), execute(home, words, PYTHONPATH="own")

    assert json.loads(with_us.stdout) == json.loads(plain.stdout)
    assert MARKER not in with_us.stdout
    last = with_us.stderr.splitlines()[-1]
    assert "runs OpenHands without telemetry: ModuleNotFoundError" in last
    assert with_us.returncode == 0


@pytest.mark.parametrize("variable", ["OPENHANDS_OTEL_ENABLED=false", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=*"])
def test_where_it_is_switched_off_openhands_sees_no_endpoint_that_would_start_laminar(
    home: Path, variable: str
) -> None:
    others = {point.name for point in entry_points(group="opentelemetry_instrumentor")} - {"openhands"}
    chosen = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(others), **dict([variable.split("=")])}
    words = [sys.executable, "-c", f"{SHOWN}import openhands.sdk, json; print(json.dumps(openhands.sdk.environment))"]

    with_us, plain = (execute(home, [*run, *words, "packages"], **chosen) for run in (RUN, []))

    assert json.loads(with_us.stdout) == json.loads(plain.stdout)
    assert with_us.stderr == ""


def test_names_that_a_python_without_this_package_needs_are_the_same_here() -> None:
    waiting = {}
    file = Path(command.__file__).parent / "site" / "_openhands_otel_launch.py"
    exec(compile(file.read_text(), str(file), "exec"), {"__name__": "waiting", "__file__": str(file)}, waiting)

    assert waiting["MARKER"] == footprint.MARKER
    assert waiting["COMMAND"] == footprint.COMMAND
    assert waiting["PACKAGE"] == compat.SDK
    assert waiting["REQUIREMENT"] == compat.REQUIREMENT
