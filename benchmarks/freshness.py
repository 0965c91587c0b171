"""How long a cost takes from ``Metrics.add_cost`` to a viewer that is subscribed to the embedded collector.

Four processes on loopback: the collector, the scripted provider, one real OpenHands agent, and this one, which reads
the collector's stream with ``StatsClient``. A cost has arrived with the first accumulated cost that contains it; all
clocks are the machine's. Beside it the same with the OpenTelemetry SDK's default reader, which exports every 60 s (the
agent works a little longer than that then). Garbage collections in the agent's process stop its exporting thread, too,
so they are counted: with OpenHands loaded a full one takes a quarter of a second.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

from openhands_otel._internal.demo.answers import call, say
from openhands_otel._internal.demo.children import Child
from openhands_otel._internal.demo.freshness import AddedCost, Seen, freshness
from openhands_otel.client import StatsClient
from openhands_otel.stats import ConversationUpdate, TotalsUpdate

MEDIAN_AIM_S, P99_AIM_S = 0.025, 0.150
PAUSE_S = 0.25
"""Mean time that the provider takes for an answer; a real model takes longer."""
READY_S, RUN_S = 60, 300


@dataclass(frozen=True)
class Result:
    delays: list[float]
    pauses: list[tuple[int, float]]
    spent: list[AddedCost]

    def percentile(self, share: float) -> float:
        return sorted(self.delays)[min(len(self.delays) - 1, int(len(self.delays) * share))]

    @property
    def after_pauses(self) -> int:
        """Slow arrivals during whose wait the agent's process collected garbage for more than 20 ms."""
        slow = [(cost.at, delay) for cost, delay in zip(self.spent, self.delays, strict=True) if delay > P99_AIM_S / 2]
        long = [(ended, seconds) for ended, seconds in self.pauses if seconds > 0.02]
        return sum(any(at < ended < at + (d + 1) * 1e9 for ended, _ in long) for at, d in slow)


def measure(calls: int, pause_s: float, baseline: bool) -> Result:
    """Run an agent for ``calls`` LLM calls with ``pause_s`` in the provider before each answer."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        history = str(directory / "history.sqlite3")
        collector = start(stack, directory, "collector", "-m", "openhands_otel", "view", "--port", "0",
                          "--grpc-port", "0", "--database", history, "--ready-json")  # fmt: skip
        provider = start(stack, directory, "provider", "-m", "openhands_otel._internal.demo.llm_server", "--ready-json",
                         "--stop-on-eof")  # fmt: skip
        send_script(provider, calls, pause_s)
        seen = watch(collector, baseline)
        report = directory / "report"
        command = [sys.executable, str(Path(__file__).with_name("agent.py")), "--provider", provider]
        command += ["--collector", collector, "--workspace", name, "--report", str(report)]
        environ = environment(HOME=name, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{collector}/v1/metrics")
        with Child("agent", command + ["--baseline"] * baseline, environ, directory) as agent:
            deadline = time.monotonic() + RUN_S
            while agent.exit_code is None and time.monotonic() < deadline:
                time.sleep(0.1)
            if agent.exit_code != 0:
                raise agent.failure("did not end as it should")
        time.sleep(0.5)
        lines = [json.loads(line) for line in report.read_text().splitlines()]
    spent = [AddedCost(line["at"], line["amount"]) for line in lines if "at" in line]
    pauses = [(line["ended"], line["pause_s"]) for line in lines if "ended" in line]
    return Result(list(freshness(spent, seen).delays), pauses, spent)


def start(stack: ExitStack, directory: Path, name: str, *arguments: str) -> str:
    child = stack.enter_context(Child(name, [sys.executable, *arguments], environment(), directory))
    return child.ready(READY_S)["url"]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "OPENHANDS_OTEL_"))}
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENHANDS_SUPPRESS_BANNER": "1", "NO_PROXY": "127.0.0.1"}
    return kept | quiet | more


def send_script(provider: str, calls: int, pause_s: float) -> None:
    random.seed(4711)
    answers = [
        call("think", {"thought": f"thought {number}"}, delay=pause_s * random.uniform(0.5, 1.5))
        for number in range(calls - 1)
    ]
    body = json.dumps([answer.model_dump() for answer in [*answers, say("Done.")]]).encode()
    urlopen(Request(f"{provider}/scripts/benchmark", body, method="PUT"), timeout=10).close()


def watch(collector: str, baseline: bool) -> list[Seen]:
    """Note what arrives, on a thread of its own, from now on."""
    seen: list[Seen] = []
    connected = threading.Event()

    def follow() -> None:
        for update in StatsClient(collector).stream():
            now = time.time_ns()
            if isinstance(update, ConversationUpdate):
                seen.append(Seen(now, update.conversation.accumulated_cost))
            elif isinstance(update, TotalsUpdate) and baseline:
                seen.append(Seen(now, update.totals.accumulated_cost))
            connected.set()

    threading.Thread(target=follow, daemon=True).start()
    if not connected.wait(READY_S):
        raise SystemExit("the collector's stream says nothing")
    return seen


def report(name: str, result: Result) -> None:
    longest = max((seconds for _, seconds in result.pauses), default=0.0)
    print(
        f"{name:24} {len(result.delays):>5} {result.percentile(0.5) * 1e3:>10.1f} "
        f"{result.percentile(0.99) * 1e3:>10.1f} "
        f"{max(result.delays) * 1e3:>10.1f} {len(result.pauses):>9} {longest * 1e3:>10.1f} {result.after_pauses:>9}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer calls, and no minute for the SDK's default reader")
    options = parser.parse_args()
    print(f"{'milliseconds':24} {'costs':>5} {'median':>10} {'p99':>10} {'worst':>10} {'gc pauses':>9} "
          f"{'longest':>10} {'slow + gc':>9}")  # fmt: skip
    ours = measure(60 if options.quick else 250, PAUSE_S, baseline=False)
    report("openhands-otel", ours)
    if options.quick:
        print("the SDK's default reader: left out (it takes a minute)")
    else:
        report("SDK, reader of 60 s", measure(200, PAUSE_S + 0.05, baseline=True))
    reached = ours.percentile(0.5) <= MEDIAN_AIM_S and ours.percentile(0.99) <= P99_AIM_S
    print(f"aim: median <= {MEDIAN_AIM_S * 1e3:g}, p99 <= {P99_AIM_S * 1e3:g}: {'reached' if reached else 'missed'}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
