"""OpenTelemetry for OpenHands: what an agent spends, seen live, exactly, anywhere.

Zero-code: ``openhands-otel run -- CMD`` or ``opentelemetry-instrument CMD``. In code::

    from openhands_otel import OpenHandsInstrumentor, subscribe

    OpenHandsInstrumentor().instrument()           # metrics over OTLP, as the OTEL_* variables say
    unsubscribe = subscribe(lambda event: print(event))
"""

from __future__ import annotations

from openhands_otel.instrumentor import OpenHandsInstrumentor
from openhands_otel.subscriptions import subscribe
from openhands_otel.version import __version__

__all__ = ["OpenHandsInstrumentor", "__version__", "subscribe"]
