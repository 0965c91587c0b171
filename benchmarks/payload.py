"""The size of one update after 1, 10, ... 10,000 LLM calls of a conversation, in bytes of OTLP before compression.

``one update`` is the request that follows the three updates of one response (cost, latency, tokens), in the steady
state, without the zeros of a first request. Numbers and times in OTLP have eight bytes whatever their value, so nothing
in it grows. ``real call`` is everything that one real LLM call caused, in as many requests as it took: what runs now is
told while a call lasts, and its end by itself if OpenHands takes long to copy its records. ``distributions`` is what
a flush adds to that; otherwise they come in a request of their own a second later, once for all calls of that second.
Beside them the same conversation's statistics as OpenHands itself would send them:
``ConversationStats.model_dump_json()``, with every call.

Before all that a run of five calls with tools, as the first thing that a process does: everything from the start of the
process to a flush at the end of the run, the zeros that series begin with included.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from calls import POINTS, QUICK_POINTS, conversation

from openhands_otel import OpenHandsInstrumentor
from openhands_otel._internal.export.http_transport import HttpTransport
from openhands_otel._internal.export.transport import DELIVERED

AIM = 0.01
CALL_AIM = 3_000
RUN_CALLS = 5
QUIET_S = 0.5
TRIES = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="500 calls instead of 10,000")
    points = QUICK_POINTS if parser.parse_args().quick else POINTS
    bodies: list[int] = []
    distributions: list[int] = []

    def count(transport: Any, request: Any, timeout_s: float) -> Any:
        scopes = [scope for resource in request.resource_metrics for scope in resource.scope_metrics]
        histograms = any(
            metric.WhichOneof("data").endswith("histogram") for scope in scopes for metric in scope.metrics
        )
        (distributions if histograms else bodies).append(request.ByteSize())
        return DELIVERED

    # The place of the network: everything before it is what runs in production.
    HttpTransport.send = count  # type: ignore[method-assign]
    instrumentor = OpenHandsInstrumentor()
    instrumentor.instrument()

    def sent(action: Callable[[], object]) -> tuple[int, int]:
        """Bytes and requests that follow ``action``, until there are no more."""
        before = len(bodies)
        action()
        known = -1
        while known != len(bodies):
            known = len(bodies)
            time.sleep(QUIET_S)
        return sum(bodies[before:]), known - before

    def flush() -> None:
        instrumentor.flush(5)

    sizes: dict[int, int] = {}
    whole = 0
    with conversation(delay_s=0.2, tool_calls=RUN_CALLS - 1) as talk:
        flush()
        print(f"a run of {RUN_CALLS} calls with tools: {sum(bodies + distributions)} bytes in "
              f"{len(bodies + distributions)} requests, {sum(bodies + distributions) // RUN_CALLS} a call")  # fmt: skip
        print(f"{'calls':>8} {'one update':>12} {'real call':>18} {'distributions':>14} {'OpenHands own':>14}   bytes")
        # The conversation's own calls began the series of real ones; this begins those of recorded ones.
        talk.record(1)
        talk.call()
        made = RUN_CALLS + 2
        for point in points:
            talk.record(max(0, point - made))
            flush()
            # Where the machine is busy the three updates may go in two requests.
            for _ in range(TRIES):
                sizes[point], requests = sent(lambda: talk.record(1))
                if requests == 1:
                    break
            flush()
            whole, requests = sent(talk.call)
            flush()
            made = max(made, point) + 2
            own = len(talk.conversation.conversation_stats.model_dump_json().encode())
            print(
                f"{point:>8} {sizes[point]:>12} {f'{whole} in {requests}':>18} {distributions[-1]:>14} {own:>14}",
                flush=True,
            )
    growth = sizes[points[-1]] / sizes[points[0]] - 1
    reached = abs(growth) <= AIM and whole <= CALL_AIM
    print(f"aim: the last within 1 % of the first: {growth:+.2%}; a real call within {CALL_AIM} bytes: {whole}; "
          f"{'reached' if reached else 'missed'}")  # fmt: skip
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
