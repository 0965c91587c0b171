"""What a terminal shows the agent under ``opentelemetry-instrument``, in whatever release of OpenHands is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from openhands_otel._internal.launch.footprint import CREDENTIALS, MARKER

PROGRAM = """
import json, os, sys
from openhands.sdk.utils.command import execute_command
from openhands.tools.terminal.terminal import SubprocessTerminal
from openhands.tools.terminal.terminal.tmux_terminal import TmuxTerminal
import time
def shown(terminal):
    terminal.initialize()
    deadline, typed = time.monotonic() + 60, 0
    while time.monotonic() < deadline and not (os.path.exists(sys.argv[2]) and os.path.getsize(sys.argv[2])):
        # A shell that is still starting may throw away what was typed before.
        if time.monotonic() - typed > 5:
            terminal.send_keys("env > " + sys.argv[2])
            typed = time.monotonic()
        time.sleep(0.1)
    time.sleep(0.2)
    terminal.close()
    with open(sys.argv[2]) as seen:
        text = seen.read()
    os.remove(sys.argv[2])
    return text
home = os.path.dirname(sys.argv[1])
report = {
    "tmux": shown(TmuxTerminal(home)),
    "subprocess": shown(SubprocessTerminal(home)),
    "execute_command": execute_command(["env"], print_output=False).stdout,
    "application": "\\n".join(f"{name}={value}" for name, value in os.environ.items()),
}
with open(sys.argv[1], "w") as file:
    json.dump(report, file)
"""
TOKEN = "planted-secret"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("tools")
    exported = {
        # The shell's own: what the user's start-up files do may take a minute, or lock something.
        "HOME": str(home),
        "PYTHONPATH": str(home / "own"),
        "OTEL_RESOURCE_ATTRIBUTES": "team=blue",
        "OTEL_METRICS_EXPORTER": "none",
        # An own tmux server: old releases share the user's.
        "TMUX_TMPDIR": str(home),
        **dict.fromkeys(CREDENTIALS, TOKEN),
    }
    launcher = Path(sys.executable).with_name("opentelemetry-instrument")
    done = subprocess.run(
        [str(launcher), sys.executable, "-c", PROGRAM, str(home / "report.json"), str(home / "seen")],
        cwd=home,
        env={**os.environ, **exported},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((home / "report.json").read_text())


@pytest.mark.parametrize("way", ["tmux", "subprocess", "execute_command"])
def test_a_tool_sees_what_the_user_exported_and_nothing_of_the_launch(report: dict[str, str], way: str) -> None:
    seen = report[way].splitlines()

    assert "OTEL_RESOURCE_ATTRIBUTES=team=blue" in seen
    assert [Path(line).name for line in seen if line.startswith("PYTHONPATH=")] == ["own"]
    assert "auto_instrumentation" not in report[way]
    assert os.pathsep not in next(line for line in seen if line.startswith("PYTHONPATH="))
    assert TOKEN not in report[way]
    assert MARKER not in report[way]


def test_the_application_itself_was_launched_with_all_of_it(report: dict[str, str]) -> None:
    assert TOKEN in report["application"]
    assert "auto_instrumentation" in report["application"]
    assert MARKER in report["application"]
