"""The demo, as a person runs it: three real processes, costs that rise while the agent works, and three accounts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from urllib.request import urlopen

import psutil
import pytest

from openhands_otel._internal.cli import main
from openhands_otel._internal.demo.scenario import EXPECTED_CALLS
from openhands_otel.client import StatsClient

COST_LINE = re.compile(r"^ *[\d.]+ s  \$([\d.]+) ")
ROW = re.compile(r"^ *(provider's bill|OpenHands' total|viewer received) +\$([\d.]+) +(.+?) *$")


class Demo:
    """A running ``openhands-otel demo``, its lines with the time at which each was printed."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "openhands_otel", "demo", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | variables,
        )
        self.lines: list[tuple[float, str]] = []

    def read_until(self, pattern: str) -> str:
        """Read lines until one matches; returns what the pattern's group caught."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.rstrip("\n")))
            found = re.search(pattern, line)
            if found:
                return found[1] if found.groups() else found[0]
        raise AssertionError(f"{pattern!r} was never printed:\n{self.text}\n{self.error}")

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    @property
    def error(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    @property
    def started(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.communicate(timeout=100)


@pytest.fixture
def run_demo() -> Iterator[Callable[..., Demo]]:
    with ExitStack() as closing:

        def start(*arguments: str, **variables: str) -> Demo:
            demo = Demo(*arguments, **variables)
            closing.callback(demo.close)
            return demo

        yield start


def assert_gone(processes: Sequence[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert alive == []


def test_costs_rise_while_the_agent_works_and_three_accounts_agree_in_the_end(run_demo: Callable[..., Demo]) -> None:
    demo = run_demo("--serve")

    address = demo.read_until(r"^Viewer: (http://127\.0\.0\.1:\d+)")
    demo.read_until("^The agent has finished")
    rising = [(at, float(cost[1])) for at, line in demo.lines if (cost := COST_LINE.match(line))]
    demo.read_until("^Still there")
    with urlopen(address, timeout=100) as page:
        assert page.status == 200
    with StatsClient(address) as client:
        [worked] = client.conversations()
        calls = client.calls(worked.conversation_id)
        assert (calls.count, calls.rest_cost) == (EXPECTED_CALLS, 0.0)
        assert client.timeline(worked.conversation_id).rows[0].below > EXPECTED_CALLS
    processes = demo.started
    demo.process.send_signal(signal.SIGINT)

    assert demo.process.wait(timeout=100) == 0, f"{demo.text}\n{demo.error}"
    costs = [cost for _, cost in rising]
    assert len(costs) >= EXPECTED_CALLS - 1
    assert costs == sorted(set(costs))
    assert rising[-1][0] - rising[0][0] > 4
    rows = {row[1]: (row[2], row[3].split()) for _, line in demo.lines if (row := ROW.match(line))}
    assert set(rows) == {"provider's bill", "OpenHands' total", "viewer received"}
    assert len({cost for cost, _ in rows.values()}) == 1
    assert len({tuple(counts) for _, counts in rows.values()}) == 1
    calls, *tokens = rows["viewer received"][1]
    assert int(calls) == EXPECTED_CALLS
    assert all(int(count.replace(",", "")) > 0 for count in tokens)
    assert re.search(rf"median [\d.]+ ms, worst [\d.]+ ms \({EXPECTED_CALLS} costs\)", demo.text)
    assert "The three totals agree." in demo.text
    assert demo.error == ""
    assert len(processes) == 2
    assert_gone(processes)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_everything_it_started_goes_with_it(run_demo: Callable[..., Demo], number: int, code: int) -> None:
    demo = run_demo()
    demo.read_until("^Starting a real OpenHands agent")
    deadline = time.monotonic() + 100
    while len(demo.started) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    processes = demo.started

    demo.process.send_signal(number)

    assert demo.process.wait(timeout=100) == code
    assert len(processes) == 3
    assert_gone(processes)
    assert demo.error == ""


def test_an_agent_that_cannot_start_is_quoted_and_named_in_one_line(
    run_demo: Callable[..., Demo], tmp_path: Path
) -> None:
    (tmp_path / "litellm.py").write_text("raise ImportError('broken for this test')\n")

    demo = run_demo(PYTHONPATH=str(tmp_path))

    assert demo.process.wait(timeout=100) == 1
    *log, last = demo.error.splitlines()
    assert last.startswith("openhands-otel: the demo's agent ended with exit code 1")
    assert any("broken for this test" in line for line in log)


class Hidden:
    """Keeps OpenHands from being found, as where it is not installed."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] == "openhands":
            raise ModuleNotFoundError(name)
        return None


def test_without_openhands_it_says_in_one_line_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "openhands"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Hidden(), *sys.meta_path])

    assert main(["demo"]) == 1
    output = capsys.readouterr()
    assert output.err.count("\n") == 1
    assert "pip install openhands-sdk openhands-tools" in output.err
    assert output.out == ""


def test_without_the_tools_it_names_the_release_that_is_there_lest_pip_puts_the_sdk_back_to_an_older_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openhands.tools", None)

    assert main(["demo"]) == 1
    sdk = version("openhands-sdk")
    assert f"pip install openhands-sdk=={sdk} openhands-tools=={sdk}\n" in capsys.readouterr().err
