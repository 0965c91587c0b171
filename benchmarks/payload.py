"""The size of one update after 1, 10, ... 10,000 LLM calls of a conversation, in bytes of OTLP before compression.

``one update`` is the request that follows the three updates of one response (cost, latency, tokens), in the steady
state, without the zeros of a first request. Numbers and times in OTLP have eight bytes whatever their value, so nothing
in it grows. ``real call`` is everything that one real LLM call caused, in as many requests as it took: what runs now is
told while a call lasts, and its end by itself if OpenHands takes long to copy its records. Beside them the same
conversation's statistics as OpenHands itself would send them: ``ConversationStats.model_dump_json()``, with every call.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from calls import POINTS, QUICK_POINTS, conversation

from openhands_otel import OpenHandsInstrumentor
from openhands_otel._internal.export.http_transport import HttpTransport
from openhands_otel._internal.export.transport import DELIVERED

AIM = 0.01


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
    sizes: dict[int, int] = {}
    print(f"{'calls':>8} {'one update':>12} {'real call':>18} {'OpenHands own':>14}   bytes")
    with conversation(delay_s=0.2) as talk:
        # The conversation's own first call began the series of real calls; this begins those of recorded ones.
        talk.record(1)
        made = 1
        for point in points:
            talk.record(max(0, point - made))
            instrumentor.flush(5)
            requests = len(bodies)
            talk.record(1)
            instrumentor.flush(5)
            (sizes[point],) = bodies[requests:]
            requests = len(bodies)
            talk.call()
            instrumentor.flush(5)
            whole = f"{sum(bodies[requests:])} in {len(bodies) - requests}"
            made = max(made, point) + 2
            own = len(talk.conversation.conversation_stats.model_dump_json().encode())
            print(f"{point:>8} {sizes[point]:>12} {whole:>18} {own:>14}", flush=True)
    growth = sizes[points[-1]] / sizes[points[0]] - 1
    reached = abs(growth) <= AIM
    print(f"aim: the last within 1 % of the first: {growth:+.2%}, {'reached' if reached else 'missed'}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
