"""What a start costs: a Python that never imports OpenHands, and an agent server until it answers.

Each in this environment, and in one like it in which this package is not installed, where a bundle brings it. Starts
alternate, so that a busy machine is busy for all. What is measured is processor time: of a Python that is started below
the launcher, as a worker of a server is, and of the server with all that it has started and waited for. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "launch"))
from foreign import make_environment

from openhands_otel._internal.launch import bundle

BIN: Final = Path(sys.executable).parent
RUN: Final = (str(BIN / "openhands-otel"), "run", "--")
CHILD: Final = "import sys; sys.stdout.write(str(len(sys.modules)))"
PARENT: Final = f"""
import json, os, subprocess, sys
process = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE)
modules = int(process.stdout.read())
_, status, usage = os.wait4(process.pid, 0)
process.returncode = status
print(json.dumps([usage.ru_utime + usage.ru_stime, modules]))
"""
QUIET: Final = {"OTEL_METRICS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
SERVER: Final = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENHANDS_SUPPRESS_BANNER": "1",
    "OH_ENABLE_VSCODE": "false",
    "OH_PRELOAD_TOOLS": "false",
}

Start = Callable[[], tuple[float, int | None]]
"""Processor seconds of one start, and how many modules were loaded then."""


def worker(python: str, launcher: tuple[str, ...] = (), env: Mapping[str, str] | None = None) -> Start:
    """A Python below ``launcher``."""

    def start() -> tuple[float, int | None]:
        words = [*launcher, python, "-c", PARENT]
        environment = {**os.environ, **QUIET, **(env or {})}
        done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
        seconds, modules = json.loads(done.stdout)
        return seconds, modules

    return start


def server(python: str, launcher: tuple[str, ...] = ()) -> Start:
    """An agent server, from its command until it is healthy; nobody collects what it would send."""

    def start() -> tuple[float, int | None]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [*launcher, python, "-m", "openhands.agent_server", "--host", "127.0.0.1", "--port", str(port)]
        with tempfile.TemporaryDirectory() as home:
            kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "OPENHANDS_"))}
            environment = {**kept, **SERVER, "HOME": home, "XDG_CACHE_HOME": str(bundle.cache_folder().parent)}
            quiet = subprocess.DEVNULL
            process = subprocess.Popen(words, cwd=home, env=environment, stdin=quiet, stdout=quiet, stderr=quiet)
            try:
                while not _answers(f"http://127.0.0.1:{port}/health"):
                    if process.poll() is not None:
                        raise SystemExit(f"{' '.join(words)}: ended with code {process.returncode}")
                    time.sleep(0.05)
                return _seconds_of(process.pid), None
            finally:
                process.terminate()
                process.wait()

    return start


def _answers(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10):
            return True
    except OSError:
        return False


def _seconds_of(pid: int) -> float:
    """Of a process, and of those it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def compare(title: str, starts: Mapping[str, Start], count: int, unit: float, shown: str) -> None:
    """Start each ``count`` times, by turns, and print the medians; what is more is more than the first."""
    seen: dict[str, list[tuple[float, int | None]]] = {name: [] for name in starts}
    for start in starts.values():
        # The first start compiles what it imports, and makes the bundle.
        start()
    for _ in range(count):
        for name, start in starts.items():
            seen[name].append(start())
    medians = {name: statistics.median(seconds for seconds, _ in found) * unit for name, found in seen.items()}
    base = next(iter(medians.values()))
    print(f"\n{title}, median of {count}\n{'':28}{'CPU':>12}{'more':>12}{'modules':>10}")
    digits = 2 if unit == 1 else 1
    for name, median in medians.items():
        modules = seen[name][0][1]
        figures = f"{median:9.{digits}f} {shown:2}{median - base:9.{digits}f} {shown:2}"
        print(f"{name:28}{figures}{'' if modules is None else modules:>10}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=20, help="how many Pythons of each kind (default: 20)")
    parser.add_argument("--servers", type=int, default=5, help="how many agent servers of each kind (default: 5)")
    arguments = parser.parse_args()
    here = sys.executable
    with tempfile.TemporaryDirectory() as place:
        elsewhere = str(make_environment(Path(place) / "environment"))
        named = {"PYTHONPATH": str(bundle.site_of(bundle.kept()))}
        if arguments.starts:
            workers = {
                "bare": worker(here),
                "openhands-otel run": worker(here, RUN),
                "opentelemetry-instrument": worker(here, (str(BIN / "opentelemetry-instrument"),)),
            }
            compare("A Python that never imports OpenHands", workers, arguments.starts, 1000, "ms")
            workers = {
                "bare": worker(elsewhere),
                "openhands-otel run": worker(elsewhere, RUN),
                "PYTHONPATH names a bundle": worker(elsewhere, env=named),
            }
            compare("The same where we are not installed", workers, arguments.starts, 1000, "ms")
        if arguments.servers:
            servers = {"bare": server(here), "openhands-otel run": server(here, RUN)}
            compare("An agent server until it answers", servers, arguments.servers, 1, "s")
            servers = {"bare": server(elsewhere), "openhands-otel run": server(elsewhere, RUN)}
            compare("The same where we are not installed", servers, arguments.servers, 1, "s")


if __name__ == "__main__":
    main()
