"""What tests fork off a prepared Python is a process of its own in all that they look at, and nothing outlives them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from forked import Child, Prepared

WHO = """
import atexit, os, sys, threading
atexit.register(lambda: print("atexit", flush=True))
print(sys.argv[1:], os.environ.get("NAME"), sys.stdin.read() == "", threading.active_count(), os.getcwd(), flush=True)
"""
STAY = "import signal, sys; print('mark 0', flush=True); signal.pause()"
KILLED = """
import sys
from pathlib import Path
from forked import Prepared
child = Prepared().start(sys.argv[2], Path(sys.argv[1]), {})
child.wait_for("mark")
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture(scope="module")
def prepared() -> Iterator[Prepared]:
    prepared = Prepared()
    yield prepared
    prepared.stop()


def test_a_program_has_arguments_environment_directory_and_an_end_of_its_own(
    prepared: Prepared, tmp_path: Path
) -> None:
    child = prepared.start(WHO + "sys.exit(3)", tmp_path, {"NAME": "own"}, ["a", "b"])
    assert child.wait() == 3
    assert child.out == f"['a', 'b'] own True 1 {tmp_path}\natexit\n"
    assert child.pid != os.getpid()
    assert child.err == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_signals_end_it_as_any_other(prepared: Prepared, tmp_path: Path, number: signal.Signals) -> None:
    child = prepared.start(STAY, tmp_path, {})
    child.wait_for("mark")
    child.kill(number)
    assert child.wait() == -number


def test_an_exception_ends_it_with_a_traceback(prepared: Prepared, tmp_path: Path) -> None:
    child: Child = prepared.start("1 / 0", tmp_path, {})
    assert child.wait() == 1
    assert child.log[-1] == "ZeroDivisionError: division by zero"


def test_none_outlives_tests_that_are_killed(tmp_path: Path) -> None:
    words = [sys.executable, "-c", KILLED, str(tmp_path), STAY]
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environ) as tests:
        assert tests.stdout is not None
        child = os.pidfd_open(int(tests.stdout.readline()))
        tests.kill()
    ended, _, _ = select.select([child], [], [], 100)
    os.close(child)
    assert ended
