"""What a start costs a Python that never imports OpenHands: bare, under ``run`` and under ``opentelemetry-instrument``.

Starts alternate, so that a busy machine is busy for all. What is measured is the CPU time of a Python that is started
below the launcher, as a worker of a server is.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent
LAUNCHERS = {
    "bare": [],
    "openhands-otel run": [str(BIN / "openhands-otel"), "run", "--"],
    "opentelemetry-instrument": [str(BIN / "opentelemetry-instrument")],
}
CHILD = "import sys; sys.stdout.write(str(len(sys.modules)))"
PARENT = f"""
import json, os, subprocess, sys
process = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE)
modules = int(process.stdout.read())
_, status, usage = os.wait4(process.pid, 0)
process.returncode = status
print(json.dumps([usage.ru_utime + usage.ru_stime, modules]))
"""


def start(launcher: list[str]) -> tuple[float, int]:
    """(CPU seconds, modules loaded) of one Python below ``launcher``."""
    quiet = {"OTEL_METRICS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    words = [*launcher, sys.executable, "-c", PARENT]
    done = subprocess.run(words, env={**os.environ, **quiet}, capture_output=True, text=True, check=True)
    seconds, modules = json.loads(done.stdout)
    return seconds, modules


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=20, help="how many of each (default: 20)")
    count = parser.parse_args().starts
    seen: dict[str, list[tuple[float, int]]] = {name: [] for name in LAUNCHERS}
    for _ in range(count):
        for name, launcher in LAUNCHERS.items():
            seen[name].append(start(launcher))
    bare = statistics.median(seconds for seconds, _ in seen["bare"])
    print(f"median of {count} alternating starts of a Python that never imports OpenHands")
    print(f"{'':26}{'CPU':>10}{'more':>10}{'modules':>10}")
    for name, starts in seen.items():
        seconds = statistics.median(seconds for seconds, _ in starts)
        print(f"{name:26}{seconds * 1000:7.1f} ms{(seconds - bare) * 1000:7.1f} ms{starts[0][1]:10}")


if __name__ == "__main__":
    main()
