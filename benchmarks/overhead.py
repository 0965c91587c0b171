"""What this package adds to an LLM call on the agent's thread, in microseconds, after 10, 100, ... 10,000 calls.

The calls are real ones of a real conversation (``calls.py``), since a warm loop over the three updates flatters. Each
method that is hooked is timed twice in the same call: from outside of the hook and from inside of it (around the
original, put there before instrumenting). The difference is ours, with the flusher's thread and whatever else runs in
the background in it. ``updates`` is add_cost, add_token_usage and add_response_latency together; ``call`` is everything
on the call's way, with the hooks on ``Telemetry.on_response`` and ``LLM.completion``. ``OpenHands`` is what those
three updates take by themselves, ``per call`` the whole call. The flusher's CPU time is its thread's.

OpenHands copies all earlier records of an LLM in every call, which leaves cold caches behind: what follows, its own
updates and ours alike, takes longer. The last line is another conversation in the same process, with a fresh LLM and
all those calls in our ledger: what would be ours of the growth would still be there.

Two more lines come from processes of their own. ``hooks`` has the hooks alone, as where the OpenTelemetry SDK is not
installed: their events go to nobody. ``traces`` has spans sent over OTLP as well. The aim for ``hooks`` is for the
whole call.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from calls import POINTS, QUICK_POINTS, conversation
from otlp_sink import sink

from openhands_otel import OpenHandsInstrumentor
from openhands_otel._internal.process.subscriptions import listen

AIM_US = 50.0
HOOKS_AIM_US = 60.0
SAMPLES = 40
UPDATES = ("add_cost", "add_token_usage", "add_response_latency")


class Stopwatch:
    """Adds up nanoseconds by name; ``take`` reads and forgets."""

    def __init__(self) -> None:
        self._spent: defaultdict[str, int] = defaultdict(int)

    def around(self, owner: Any, method: str, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, method)

        @functools.wraps(original)
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter_ns()
            try:
                return original(*args, **kwargs)
            finally:
                self._spent[name] += time.perf_counter_ns() - began

        setattr(owner, method, timed)

    def take(self) -> dict[str, float]:
        spent = {name: nanoseconds / 1e3 for name, nanoseconds in self._spent.items()}
        self._spent.clear()
        return spent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="500 calls instead of 10,000")
    parser.add_argument("--only", choices=("hooks", "traces"), help="one of the two last lines")
    options = parser.parse_args()
    return only(options.only) if options.only else everything((QUICK_POINTS if options.quick else POINTS)[1:])


def everything(points: tuple[int, ...]) -> int:
    """All lines, and whether the aims were reached."""
    watch = Stopwatch()
    hooked = watched(watch)
    medians: dict[int, float] = {}
    with sink() as endpoint:
        instrumentor = OpenHandsInstrumentor()
        os.environ["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"] = endpoint
        instrumentor.instrument()
        hooked()
        print(
            f"{'calls':>8} {'updates':>9} {'p95':>9} {'call':>9} {'OpenHands':>10} {'per call':>10} {'flusher':>9}   us"
        )
        with conversation() as talk:
            talk.call()
            made = 2
            for point in points:
                talk.record(max(0, point - made))
                medians[point] = sample(f"{point}", watch, talk.call)[0]
                made = max(made, point) + SAMPLES
        with conversation() as another:
            sample("another", watch, another.call)
        instrumentor.uninstrument()
    first, last = medians[points[0]], medians[points[-1]]
    reached = max(medians.values()) <= AIM_US
    others = [subprocess.run([sys.executable, __file__, "--only", kind]).returncode for kind in ("hooks", "traces")]
    print(f"aim: the three updates <= {AIM_US:g} us: {'reached' if reached else 'missed'}; "
          f"from the first point to the last: {last - first:+.1f} us")  # fmt: skip
    print(f"aim: a call with the hooks alone <= {HOOKS_AIM_US:g} us: {'missed' if others[0] else 'reached'}")
    return 0 if reached and not any(others) else 1


def only(kind: str) -> int:
    """One line; 1 where the hooks alone take longer than they may."""
    watch = Stopwatch()
    hooked = watched(watch)
    with sink() as endpoint:
        os.environ["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"] = endpoint
        if kind == "hooks":
            listen()
        else:
            os.environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = endpoint.replace("metrics", "traces")
            OpenHandsInstrumentor().instrument()
        hooked()
        with conversation() as talk:
            for _ in range(10):
                talk.call()
            whole = sample(kind, watch, talk.call)[1]
        OpenHandsInstrumentor().uninstrument()
    return 1 if kind == "hooks" and whole > HOOKS_AIM_US else 0


def watched(watch: Stopwatch) -> Callable[[], None]:
    """Time what is hooked from inside; from outside once the returned function is called, behind the hooks."""
    from openhands.sdk.llm.llm import LLM
    from openhands.sdk.llm.utils.metrics import Metrics
    from openhands.sdk.llm.utils.telemetry import Telemetry

    hooked = [(Metrics, method) for method in UPDATES] + [(Telemetry, "on_response"), (LLM, "completion")]
    for owner, method in hooked:
        watch.around(owner, method, f"inside {method}")

    def from_outside() -> None:
        for owner, method in hooked:
            watch.around(owner, method, f"outside {method}")

    return from_outside


def sample(point: str, watch: Stopwatch, call: Callable[[], None]) -> tuple[float, float]:
    """Make calls around ``point``, print a line, return the medians of what the updates cost and what the call."""
    updates: list[float] = []
    whole: list[float] = []
    own: list[float] = []
    calls: list[float] = []
    watch.take()
    cpu_before, began = flusher_cpu_s(), time.perf_counter()
    for _ in range(SAMPLES):
        call()
        spent = watch.take()
        ours = {name: spent[f"outside {name}"] - spent[f"inside {name}"] for name in (*UPDATES, "on_response")}
        updates.append(sum(ours[name] for name in UPDATES))
        # What is inside of on_response holds the updates, hooks included; so does completion hold on_response.
        whole.append(updates[-1] + ours["on_response"] + spent["outside completion"] - spent["inside completion"])
        own.append(sum(spent[f"inside {name}"] for name in UPDATES))
        calls.append(spent["outside completion"])
    cpu_us = (flusher_cpu_s() - cpu_before) / SAMPLES * 1e6
    share = cpu_us / 1e6 * SAMPLES / (time.perf_counter() - began)
    median = statistics.median
    print(
        f"{point:>8} {median(updates):>9.1f} {statistics.quantiles(updates, n=20)[-1]:>9.1f} {median(whole):>9.1f} "
        f"{median(own):>10.1f} {median(calls):>10.0f} {cpu_us:>9.0f}   ({share:.1%} of a core)",
        flush=True,
    )
    return median(updates), median(whole)


def flusher_cpu_s() -> float:
    thread = next((thread for thread in threading.enumerate() if thread.name == "openhands-otel-flusher"), None)
    if thread is None or thread.ident is None:
        return 0.0
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


if __name__ == "__main__":
    sys.exit(main())
