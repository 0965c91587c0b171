"""``make stack``: says where everything is, ends with Ctrl-C, starts what dies again, and keeps what it had."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from .prometheus_api import wait

ROOT = Path(__file__).parents[2]


@contextmanager
def running(data: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and what it says when all is up; it is ended as somebody at a terminal does."""
    command = [sys.executable, "-m", "deploy.native", "up", "--data", str(data)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = ""
        while "Ctrl-C stops it." not in said:
            line = process.stdout.readline()
            assert line, f"it ended, having said: {said}"
            said += line
        try:
            yield process, said
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def address(said: str, what: str) -> str:
    found = re.search(rf"^{what} +(http://[\d.:]+)", said, re.MULTILINE)
    assert found
    return found[1]


def servers(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    return {child.name(): child for child in psutil.Process(process.pid).children()}


def test_it_says_where_it_is_ends_with_ctrl_c_and_keeps_its_token(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as (process, said):
        started = servers(process)
        assert set(started) == {"collector", "prometheus", "jaeger"}
        assert httpx.get(f"{address(said, 'Prometheus')}/-/ready").status_code == 200
        assert httpx.get(f"{address(said, 'Jaeger')}/api/services").status_code == 200
        assert httpx.post(f"{address(said, 'OTLP')}/v1/traces").status_code == 401
        token = (data / "token").read_text()
        assert token not in said
    assert not any(child.is_running() for child in started.values())
    with running(data):
        assert (data / "token").read_text() == token


def test_a_server_that_dies_is_started_again(tmp_path: Path) -> None:
    with running(tmp_path / "data") as (process, said):
        killed = servers(process)["prometheus"].pid
        os.kill(killed, signal.SIGKILL)
        assert wait(lambda: servers(process).get("prometheus"), lambda found: found is not None and found.pid != killed)
        url = f"{address(said, 'Prometheus')}/-/ready"
        assert wait(lambda: httpx.get(url).status_code, lambda status: status == 200) == 200
        assert set(servers(process)) == {"collector", "prometheus", "jaeger"}
