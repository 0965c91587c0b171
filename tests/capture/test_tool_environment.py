"""What the agent's tools see, with us and without: real tools in real processes; and the same objects put back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from openhands_otel._internal.launch.footprint import CREDENTIALS, MARKER
from openhands_otel._internal.launch.tool_environment import READERS, ToolEnvironment
from openhands_otel._internal.patching import import_hooks

PROGRAM = Path(__file__).with_name("programs") / "observe.py"
TOKEN = "Bearer%20planted-secret"
SAME_PYTHON = "import sys; print(sys.path, sorted(sys.modules), sys.flags)"
DISTRIBUTIONS = "from importlib.metadata import distributions; print(sorted(d.name for d in distributions()))"
FOREIGN_PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3", "/opt/homebrew/bin/python3")

Report = dict[str, Any]


def foreign_python() -> str | None:
    own = Path(sys.executable).resolve()
    return next((name for name in FOREIGN_PYTHONS if Path(name).exists() and Path(name).resolve() != own), None)


@pytest.fixture(scope="module")
def commands() -> dict[str, str]:
    given = {
        "env": "env",
        "same Python": f"'{sys.executable}' -c '{SAME_PYTHON}'",
        "its packages": f"'{sys.executable}' -c '{DISTRIBUTIONS}'",
        "pip list": "pip list",
    }
    foreign = foreign_python()
    return given if foreign is None else {**given, "foreign Python": f"{foreign} -c '{SAME_PYTHON}; print(6*7)'"}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, commands: Mapping[str, str]) -> Iterator[dict[str, Report]]:
    """The same program plain, under ``opentelemetry-instrument`` and under ``openhands-otel run``."""
    home = tmp_path_factory.mktemp("observe")
    (home / "own_modules").mkdir()
    exported = {
        **os.environ,
        # The shell's own: what the user's start-up files do may take a minute, or lock something.
        "HOME": str(home),
        "PYTHONPATH": str(home / "own_modules"),
        "OTEL_RESOURCE_ATTRIBUTES": "team=blue",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        **dict.fromkeys(CREDENTIALS, f"authorization={TOKEN}"),
    }
    directory = Path(sys.executable).parent
    launchers = {
        "plain": [],
        "opentelemetry-instrument": [str(directory / "opentelemetry-instrument")],
        "openhands-otel run": [str(directory / "openhands-otel"), "run", "--"],
    }
    running = {
        name: subprocess.Popen(
            [*launcher, sys.executable, str(PROGRAM), str(home / name), *commands.values()],
            cwd=home,
            env=exported,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, launcher in launchers.items()
    }
    try:
        for name, process in running.items():
            said, _ = process.communicate(timeout=280)
            assert process.returncode == 0, f"{name}: {said}"
        yield {name: json.loads((home / name).read_text()) for name in running}
    finally:
        for process in running.values():
            process.kill()
            process.wait()


LAMINARS_OWN = "OTEL_ATTRIBUTE_COUNT_LIMIT"
"""Laminar, which runs in the plain process since there is an endpoint, sets it there."""
LAUNCHERS = pytest.mark.parametrize("launcher", ["opentelemetry-instrument", "openhands-otel run"])


def as_without_credentials(text: str) -> str:
    """Of a plain run, where tools see them; and without what differs between two plain runs (tmux's socket)."""
    for name, value in (*((name, f"authorization={TOKEN}") for name in CREDENTIALS), (LAMINARS_OWN, "10000")):
        text = re.sub(rf"{name}={value}(\\n|\n)", "", text)
        text = text.replace(f"('{name}', '{value}'), ", "")
    return re.sub(r"TMUX=\S+?,\d+,\d+", "TMUX=masked", text)


@LAUNCHERS
@pytest.mark.parametrize("terminal", ["subprocess", "tmux"])
@pytest.mark.parametrize("what", ["env", "same Python", "its packages", "pip list", "foreign Python"])
def test_the_observation_of_a_shell_command_is_what_it_is_without_us(
    reports: dict[str, Report], commands: dict[str, str], launcher: str, terminal: str, what: str
) -> None:
    if what not in commands:
        pytest.skip(f"no Python of another installation on this machine: {FOREIGN_PYTHONS}")
    number = list(commands).index(what)
    seen, plain = reports[launcher][terminal][number], reports["plain"][terminal][number]

    assert as_without_credentials(seen["text"]) == as_without_credentials(plain["text"])
    assert seen["code"] == plain["code"] == 0


@LAUNCHERS
@pytest.mark.parametrize("way", ["hook", "execute_command", "own tool"])
def test_whatever_openhands_starts_gets_the_environment_that_it_gets_without_us(
    reports: dict[str, Report], launcher: str, way: str
) -> None:
    assert reports[launcher][way] == as_without_credentials(reports["plain"][way])


@LAUNCHERS
def test_an_acp_agent_gets_the_environment_that_it_gets_without_us(reports: dict[str, Report], launcher: str) -> None:
    plain = [pair for pair in reports["plain"]["ACP agent"] if pair[0] not in (*CREDENTIALS, LAMINARS_OWN)]

    assert reports[launcher]["ACP agent"] == plain


@LAUNCHERS
def test_no_tool_sees_a_token(reports: dict[str, Report], launcher: str) -> None:
    tools = {name: seen for name, seen in reports[launcher].items() if not name.startswith("application")}

    assert TOKEN not in json.dumps(tools)
    assert TOKEN in json.dumps(reports[launcher]["application"])


@LAUNCHERS
def test_the_application_and_its_own_children_keep_the_whole_environment(
    reports: dict[str, Report], launcher: str
) -> None:
    report = reports[launcher]
    plain = dict(reports["plain"]["application"])

    assert set(plain) - {LAMINARS_OWN} <= set(dict(report["application"]))
    assert MARKER in dict(report["application"])
    assert str([tuple(pair) for pair in report["application"]]) + "\n" == report["application's child"]


@LAUNCHERS
def test_a_general_endpoint_does_not_start_laminar(reports: dict[str, Report], launcher: str) -> None:
    assert reports["plain"]["laminar"] == [True, True]
    assert reports[launcher]["laminar"] == [False, False]


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_HEADERS", TOKEN)
    return TOKEN


def seen_by_a_tool() -> str:
    from openhands.sdk.utils.command import execute_command

    return execute_command(["env"], print_output=False).stdout


def test_detaching_puts_the_identical_objects_back(token: str) -> None:
    from openhands.sdk import utils
    from openhands.sdk.utils import command

    before = (vars(subprocess.Popen)["__init__"], vars(command)["os"], utils.sanitized_env)
    tools = ToolEnvironment()

    tools.attach()
    assert token not in seen_by_a_tool()
    tools.detach()

    assert token in seen_by_a_tool()
    assert all(
        now is then
        for now, then in zip(
            (vars(subprocess.Popen)["__init__"], vars(command)["os"], utils.sanitized_env), before, strict=True
        )
    )
    assert MARKER not in os.environ


def test_attaching_again_works_and_piles_nothing_up(token: str) -> None:
    for _ in range(100):
        tools = ToolEnvironment()
        tools.attach()
        tools.attach()
        tools.detach()
        tools.detach()
    waiting = (*READERS, "openhands.sdk.tool")

    tools = ToolEnvironment()
    tools.attach()
    try:
        assert token not in seen_by_a_tool()
        assert [import_hooks.interests(name) for name in waiting] == [1] * len(waiting)
    finally:
        tools.detach()
    assert not any(import_hooks.interests(name) for name in waiting)


def test_what_somebody_else_has_put_over_ours_stays(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = vars(subprocess.Popen)["__init__"]
    tools = ToolEnvironment()
    tools.attach()
    ours = vars(subprocess.Popen)["__init__"]

    def theirs(self: Any, *args: Any, **kwargs: Any) -> None:
        ours(self, *args, **kwargs)

    monkeypatch.setattr(subprocess.Popen, "__init__", theirs)
    tools.detach()

    assert vars(subprocess.Popen)["__init__"] is theirs
    assert token in seen_by_a_tool()
    monkeypatch.setattr(subprocess.Popen, "__init__", original)


def test_a_process_that_does_not_use_openhands_keeps_its_popen() -> None:
    program = (
        "import subprocess, sys\n"
        "before = subprocess.Popen.__init__\n"
        "from openhands_otel._internal.launch.tool_environment import ToolEnvironment\n"
        "ToolEnvironment().attach()\n"
        "print(subprocess.Popen.__init__ is before, [name for name in sys.modules if name.startswith('openhands.')])\n"
    )

    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert out == "True []\n"


@pytest.mark.parametrize("position", ["keyword", "positional"])
def test_an_environment_that_a_tool_chose_itself_is_cleaned_only_of_what_it_inherited(
    token: str, position: str
) -> None:
    from openhands.sdk.tool import tool as tool_module

    chosen = {**os.environ, "OTEL_EXPORTER_OTLP_HEADERS": "the-tool's-own"}
    rest: dict[str, Any] = {"env": chosen} if position == "keyword" else {}
    given = () if position == "keyword" else (-1, None, None, subprocess.PIPE, None, None, True, False, None, chosen)
    # A function whose globals are those of OpenHands' tool module stands for a tool in there.
    start = eval("lambda run: run()", vars(tool_module))
    tools = ToolEnvironment()
    tools.attach()
    try:
        rest |= {} if given else {"stdout": subprocess.PIPE}
        process = start(lambda: subprocess.Popen(["env"], *given, **rest))
        out = process.communicate(timeout=100)[0].decode()
    finally:
        tools.detach()

    assert token not in out
    assert "OTEL_EXPORTER_OTLP_HEADERS=the-tool's-own" in out


def test_popens_own_complaints_are_not_changed() -> None:
    from openhands.sdk.utils.command import execute_command

    tools = ToolEnvironment()
    tools.attach()
    try:
        with pytest.raises(TypeError, match="expected str, bytes"):
            execute_command(["env"], env={"A": 1}, print_output=False)  # type: ignore[dict-item]
        with pytest.raises(FileNotFoundError, match="no-such-program"):
            execute_command(["no-such-program"], print_output=False)
    finally:
        tools.detach()


def test_what_openhands_writes_into_its_environment_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    from openhands.sdk.utils import command

    monkeypatch.delenv("FROM_OPENHANDS", raising=False)
    tools = ToolEnvironment()
    tools.attach()
    try:
        command.os.environ["FROM_OPENHANDS"] = "1"
        assert os.environ["FROM_OPENHANDS"] == "1"
        assert command.os.getenv("FROM_OPENHANDS") == "1"
        del command.os.environ["FROM_OPENHANDS"]
        assert "FROM_OPENHANDS" not in os.environ
    finally:
        tools.detach()
