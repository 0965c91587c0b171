"""``run`` follows the application's process tree, and the agent's tools see nothing of it.

The kind of fault: whoever starts a process was thought to be one of a few (``subprocess``, multiprocessing). Here every
way in which Python can start one is tried from both sides, through every way of having something done elsewhere. Rule:
a child of the application waits for OpenHands, a child of a tool is what it is without us.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from one_call import SPENDS, exit_codes, settled
from viewer_process import running_viewer

from openhands_otel._internal.demo.llm_server import LLMServer

pytestmark = pytest.mark.timeout(1200)
"""Whichever test is the first starts all the children."""

PROGRAMS = Path(__file__).with_name("programs")
BIN = Path(sys.executable).parent
RUN = [str(BIN / "openhands-otel"), "run", "--"]
SHELL_KEEPS = ("_", "PWD", "OLDPWD", "SHLVL")
"""Variables that a shell sets for its children, and that tell which command it ran."""

Child = dict[str, Any]


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "OTEL_METRICS_EXPORTER": "none", "PYTHONWARNINGS": "ignore::DeprecationWarning", **variables}


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Child]]:
    """By launcher, what each child saw. Both run in the same folder, whose name children see."""
    home = tmp_path_factory.mktemp("tree")
    own = environment(PYTHONPATH=str(home / "own"))
    seen: dict[str, dict[str, Child]] = {}
    for name, launcher in {"plain": [], "run": RUN}.items():
        (home / "out").mkdir()
        words = [*launcher, sys.executable, str(PROGRAMS / "ways.py"), "out"]
        done = subprocess.run(words, cwd=home, env=own, capture_output=True, text=True, timeout=550, check=False)
        assert done.returncode == 0, done.stderr
        files = [file for file in (home / "out").iterdir() if ": " in file.name]
        seen[name] = {file.name: json.loads(file.read_text()) for file in files}
        (home / "out").rename(home / name)
    assert set(seen["run"]) == set(seen["plain"])
    return seen


def of(children: dict[str, dict[str, Child]], launcher: str, side: str) -> dict[str, Child]:
    found = {name: child for name, child in children[launcher].items() if name.startswith(side)}
    assert len(found) > 10
    return found


def without_the_shells(child: Child) -> Child:
    return {**child, "environment": [pair for pair in child["environment"] if pair[0] not in SHELL_KEEPS]}


def test_every_child_of_the_application_waits_for_openhands(children: dict[str, dict[str, Child]]) -> None:
    lost = [name for name, child in of(children, "run", "application").items() if "Waiting" not in child["finders"]]

    assert lost == []


def test_so_do_its_children_in_threads_and_servers_in_which_a_tool_has_been(
    children: dict[str, dict[str, Child]],
) -> None:
    lost = [name for name, child in of(children, "run", "afterwards").items() if "Waiting" not in child["finders"]]

    assert lost == []


def test_a_child_of_a_tool_sees_what_it_sees_without_us(children: dict[str, dict[str, Child]]) -> None:
    """Environment, ``sys.path`` and loaded modules; a fork server's child has what the application had loaded there."""
    plain = of(children, "plain", "tool")
    different = {
        name: part
        for name, child in of(children, "run", "tool").items()
        for part, seen in without_the_shells(child).items()
        if seen != without_the_shells(plain[name])[part] and not ("forkserver" in name and part == "modules")
    }

    assert different == {}


def test_a_child_that_never_imports_openhands_loads_at_most_40_modules_of_ours(
    children: dict[str, dict[str, Child]],
) -> None:
    """A start that costs: 740 modules, and 0.77 s of CPU, in each of a server's workers."""
    plain = of(children, "plain", "application")
    more = {
        name: len(set(child["modules"]) - set(plain[name]["modules"]))
        for name, child in of(children, "run", "application").items()
    }

    assert {name: count for name, count in more.items() if count > 40} == {}


PARENTS = {
    "pytest-xdist": "import pytest, sys; sys.exit(pytest.main(['-n', '1', '-p', 'no:cacheprovider', 'check.py']))",
    "joblib": "import joblib, spends; joblib.Parallel(n_jobs=2)(joblib.delayed(spends.spend)() for _ in range(1))",
    "a shell that executes itself anew": "import os, sys; os.system(f'exec {sys.executable} anew.py')",
    "uvloop, isolated": (
        "import asyncio, subprocess, sys, uvloop\n"
        "async def main():\n"
        "    process = await asyncio.create_subprocess_exec(sys.executable, 'supervisor.py')\n"
        "    assert await process.wait() == 0\n"
        "uvloop.run(main())"
    ),
}


def test_the_bill_of_children_is_the_viewers_total(tmp_path: Path, llm_server: LLMServer) -> None:
    """$0 and no word before: the real SDK in processes that are started in four ways, some of them two deep."""
    (tmp_path / "spends.py").write_text(SPENDS)
    (tmp_path / "check.py").write_text("import spends\ndef test(): spends.spend()\n")
    (tmp_path / "anew.py").write_text(
        "import os, sys, spends\n"
        "if len(sys.argv) == 1:\n    os.execv(sys.executable, [sys.executable, *sys.argv, 'again'])\n"
        "spends.spend()\n"
    )
    (tmp_path / "supervisor.py").write_text(
        "import subprocess, sys\n"
        "program = 'import sys; sys.path.insert(0, \\'.\\'); import spends; spends.spend()'\n"
        "subprocess.run([sys.executable, '-I', '-c', program], check=True)\n"
    )
    with running_viewer() as viewer:
        env = {**os.environ, "LLM": llm_server.base_url("default"), "OTEL_EXPORTER_OTLP_ENDPOINT": viewer.url}
        running = {
            name: subprocess.Popen(
                [*RUN, sys.executable, "-c", program], cwd=tmp_path, env={**env, "OTEL_SERVICE_NAME": name}
            )
            for name, program in PARENTS.items()
        }
        codes = exit_codes(running)
        assert codes == dict.fromkeys(PARENTS, 0)
        settled(viewer, llm_server, len(PARENTS))


LOOKS = "import sys; print(sys.argv[1], any(type(one).__name__ == 'Waiting' for one in sys.meta_path), flush=True)"
STARTS = """
import os, subprocess, sys
python, path = sys.executable, {"PATH": os.environ["PATH"]}
def forked(act):
    child = os.fork()
    if child == 0:
        act()
    assert os.waitpid(child, 0)[1] == 0
forked(lambda: os.execv(python, [python, "-I", "looks.py", "execv"]))
forked(lambda: os.execve(python, ["python", "-E", "looks.py", "execve"], os.environ))
forked(lambda: os.execlp(python, python, "-I", "-B", "looks.py", "execlp"))
os.spawnv(os.P_WAIT, python, [python, "-sE", "looks.py", "spawnv"])
subprocess.run([python, "-S", "looks.py", "run"], check=True)
subprocess.run([python, "looks.py", "inherits"], env={**os.environ}, check=True)
own = [path, {}] if len(sys.argv) > 1 else []
for env in own:
    subprocess.run([python, "looks.py", "own"], env=env, check=True)
    forked(lambda: os.execve(python, [python, "looks.py", "own"], env))
"""


@pytest.mark.parametrize("own", [True, False])
def test_a_child_that_does_not_look_at_the_environment_is_followed_and_one_without_it_is_told_of(
    tmp_path: Path, own: bool
) -> None:
    """Kind: $0 and no word. An environment that the application puts together stays as it is, and a line says so."""
    (tmp_path / "looks.py").write_text(LOOKS)
    (tmp_path / "starts.py").write_text(STARTS)
    done = subprocess.run(
        [*RUN, sys.executable, "starts.py", *(["own"] if own else [])],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    followed = [f"{name} True" for name in ("execv", "execve", "execlp", "spawnv", "run", "inherits")]
    assert done.stdout.splitlines() == followed + ["own False"] * (4 if own else 0)
    lines = done.stderr.splitlines()
    assert [line for line in lines if "environment of its own" not in line] == []
    assert len(lines) == (1 if own else 0)
