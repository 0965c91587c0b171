"""The size of one update after 1, 10, ... 10,000 LLM calls of a conversation, in bytes of OTLP before compression.

At each point single calls are made and flushed, and the bytes of all requests that one of them caused are added up:
that is the steady state, without the zeros and descriptions of a first request. Numbers and times in OTLP have eight
bytes whatever their value, so nothing of an update grows. Beside it the same conversation's statistics as OpenHands
itself would send them: ``ConversationStats.model_dump_json()``, which keeps every call.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any

from calls import POINTS, QUICK_POINTS, conversation

from openhands_otel import OpenHandsInstrumentor
from openhands_otel.telemetry.http_transport import HttpTransport
from openhands_otel.telemetry.transport import DELIVERED

AIM = 0.01
SAMPLES = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="500 calls instead of 10,000")
    points = QUICK_POINTS if parser.parse_args().quick else POINTS
    bodies: list[int] = []

    def count(transport: Any, request: Any, timeout_s: float) -> Any:
        bodies.append(request.ByteSize())
        return DELIVERED

    # The place of the network: everything before it is what runs in production.
    HttpTransport.send = count  # type: ignore[method-assign]
    instrumentor = OpenHandsInstrumentor()
    instrumentor.instrument()
    sizes: dict[int, float] = {}
    print(f"{'calls':>8} {'one update':>12} {'OpenHands own':>14}   bytes")
    with conversation() as (talk, call):
        made = 1
        for point in points:
            while made < point:
                call()
                made += 1
            instrumentor.flush(5)
            updates: list[int] = []
            for _ in range(SAMPLES):
                # The activity's own update may come before the rest of the call; it is part of it.
                before = len(bodies)
                call()
                instrumentor.flush(5)
                updates.append(sum(bodies[before:]))
            made += SAMPLES
            sizes[point] = statistics.median(updates)
            own = len(talk.conversation_stats.model_dump_json().encode())
            print(f"{point:>8} {sizes[point]:>12.0f} {own:>14}", flush=True)
    growth = sizes[points[-1]] / sizes[points[0]] - 1
    reached = abs(growth) <= AIM
    print(f"aim: the last within 1 % of the first: {growth:+.2%}, {'reached' if reached else 'missed'}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
