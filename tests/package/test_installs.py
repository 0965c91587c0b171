"""Installed as people do it, from the wheel, by real installers: make test-package. TEST_PACKAGE=short takes a part.

They need a package index, so they are no part of ``make test``.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from openhands_otel._internal.demo.answers import Answer, Usage
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel._internal.version import __version__
from otlp_receiver import http_receiver

from .conftest import ROOT

WANTED = os.environ.get("TEST_PACKAGE", "")
pytestmark = [
    pytest.mark.skipif(WANTED not in ("short", "full"), reason="needs a package index: make test-package"),
    pytest.mark.timeout(900),
]
OWN = "{}.{}".format(*sys.version_info)
PYTHONS = ("3.12", "3.13", "3.14") if WANTED == "full" else (OWN,)
sys.path.insert(0, str(ROOT / "scripts"))
from compat_env import CAPPED, UNTIL  # noqa: E402

RELEASES = {**UNTIL, "1.58.2": "2026-11-26"} if WANTED == "full" else {"1.0.0": UNTIL["1.0.0"]}
"""Of openhands-sdk, each with the day after it: what its users have who update nothing."""
SPENDS = """
import inspect, os
from openhands.sdk import LLM, Agent
from openhands.sdk.conversation.impl.local_conversation import LocalConversation
name = "usage_id" if "usage_id" in LLM.model_fields else "service_id"
llm = LLM(model="openai/gpt-4o", base_url=os.environ["LLM"], api_key="x", **{name: "agent"})
quiet = "visualizer" in inspect.signature(LocalConversation.__init__).parameters
options = {"visualizer": None} if quiet else {"visualize": False}
conversation = LocalConversation(agent=Agent(llm=llm, tools=[]), workspace=".", **options)
conversation.send_message("hello")
conversation.run()
"""


@pytest.fixture(scope="session")
def uv() -> str:
    found = shutil.which("uv") or str(ROOT / ".cache" / "uv" / "bin" / "uv")
    if not Path(found).exists():
        pytest.skip("uv is not here: pip install uv")
    return found


def run(words: Sequence[str | Path], env: Mapping[str, str] | None = None, **options: str | Path) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        stdin=subprocess.DEVNULL,
        **options,  # pyright: ignore
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def interpreter(uv: str, version: str) -> str:
    """A Python of that version that is here, also under pyenv, or a skip."""
    if version == OWN:
        return str(Path(sys.base_prefix) / "bin" / f"python{OWN}")
    command = [uv, "python", "find", "--no-project", "--no-python-downloads", version]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    here = [done.stdout.strip()] if done.returncode == 0 else sorted(pyenv.glob(f"{version}.*/bin/python{version}"))
    if not here:
        pytest.skip(f"no Python {version} here")
    return str(here[-1])


@contextmanager
def viewing(words: Sequence[str], env: Mapping[str, str], folder: Path) -> Iterator[str]:
    """A viewer that ``words`` start; its URL, as it says it."""
    options = ["view", "--port", "0", "--grpc-port", "0", "--database", str(folder / "viewer.db")]
    log = folder / "viewer.log"
    with log.open("wb") as output:
        viewer = subprocess.Popen([*words, *options], env={**os.environ, **env}, stdout=output, stderr=output)
    try:
        for _ in range(3_000):
            found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
            if found:
                break
            try:
                viewer.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(log.read_text())
        else:
            raise AssertionError(log.read_text())
        yield found[0]
    finally:
        viewer.send_signal(signal.SIGINT)
        try:
            viewer.wait(30)
        except subprocess.TimeoutExpired:
            viewer.kill()
            viewer.wait()


def shows_its_page(url: str) -> None:
    with urllib.request.urlopen(url) as answer:
        assert b"OpenHands" in answer.read()
    with urllib.request.urlopen(f"{url}/api/v1/totals") as answer:
        assert answer.status == 200


@pytest.mark.parametrize("version", PYTHONS)
def test_uv_tool_install(uv: str, wheel: Path, tmp_path: Path, version: str) -> None:
    env = {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    python = interpreter(uv, version)
    run([uv, "tool", "install", "--python", python, f"openhands-otel[otlp,spans,viewer] @ {wheel.as_uri()}"], env)
    command = tmp_path / "bin" / "openhands-otel"
    assert __version__ in run([command, "--version"])
    with viewing([str(command)], env, tmp_path) as url:
        shows_its_page(url)


def test_uvx_view(uv: str, wheel: Path, tmp_path: Path) -> None:
    words = [uv, "tool", "run", "--python", interpreter(uv, OWN)]
    with viewing(
        [*words, "--from", f"openhands-otel[viewer] @ {wheel.as_uri()}", "openhands-otel"], {}, tmp_path
    ) as url:
        shows_its_page(url)


def test_view_of_the_plain_package_is_one_line_that_says_what_to_install(uv: str, wheel: Path) -> None:
    words = [uv, "tool", "run", "--quiet", "--python", interpreter(uv, OWN), "--from", str(wheel), "openhands-otel"]
    done = subprocess.run([*words, "view"], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr.count("\n")) != (0, 0)
    assert "openhands-otel[otlp,viewer]" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(WANTED != "full", reason="make test-package")
def test_pipx(uv: str, wheel: Path, tmp_path: Path) -> None:
    env = {"PIPX_HOME": str(tmp_path / "home"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    python = interpreter(uv, OWN)
    run([uv, "tool", "run", "--python", python, "pipx", "install", "--python", python, f"{wheel}[viewer]"], env)
    with viewing([str(tmp_path / "bin" / "openhands-otel")], env, tmp_path) as url:
        shows_its_page(url)


@pytest.mark.parametrize("release", RELEASES)
def test_beside_a_release_of_openhands_it_changes_no_version_and_counts_to_the_cent(
    release: str, uv: str, wheel: Path, tmp_path: Path
) -> None:
    python = environment_of(release, uv, tmp_path)
    before = frozen(uv, python)
    run([uv, "pip", "install", "--python", python, f"openhands-otel[otlp] @ {wheel.as_uri()}"])
    after = frozen(uv, python)
    assert {name: after.get(name) for name in before} == before
    assert "openhands-otel" in after.keys() - before.keys()
    with LLMServer() as server, http_receiver() as receiver:
        server.script("main", lambda request: Answer(text="hi", usage=Usage(input=1000, output=50)))
        env = {
            "LLM": server.base_url("main"),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "HOME": str(tmp_path),
        }
        run([python.with_name("openhands-otel"), "run", "--", python, "-c", SPENDS], env, cwd=tmp_path)
        assert server.bill.total > 0
        assert receiver.total("openhands.llm.cost") == pytest.approx(server.bill.total, abs=1e-9)


def environment_of(release: str, uv: str, folder: Path) -> Path:
    """A virtual environment such as a user of that day has; its interpreter."""
    wanted = folder / "wanted.in"
    # What a release allows and fails with by itself, its users have had to cap as well.
    wanted.write_text("\n".join((f"openhands-sdk=={release}", f"openhands-tools=={release}", *CAPPED.get(release, ()))))
    base = interpreter(uv, OWN)
    command = [uv, "pip", "compile", "--quiet", "--python", base, "--exclude-newer", RELEASES[release]]
    run([*command, "--prerelease", "if-necessary-or-explicit", wanted, "--output-file", folder / "pins.txt"])
    run([uv, "venv", "--quiet", "--python", base, folder / "venv"])
    python = folder / "venv" / "bin" / "python"
    run([uv, "pip", "install", "--quiet", "--python", python, "--no-deps", "--requirement", folder / "pins.txt"])
    return python


def frozen(uv: str, python: Path) -> dict[str, str]:
    lines = run([uv, "pip", "list", "--format", "freeze", "--python", python]).splitlines()
    return dict(line.split("==", 1) for line in lines if "==" in line)
