"""OpenTelemetry for OpenHands: what an agent spends, seen live, exactly, anywhere.

Zero-code: ``openhands-otel run -- CMD`` or ``opentelemetry-instrument CMD``. In code::

    from openhands_otel import OpenHandsInstrumentor, subscribe

    OpenHandsInstrumentor().instrument()           # metrics over OTLP, as the OTEL_* variables say
    unsubscribe = subscribe(lambda event: print(event))

Each name is imported when it is first used: the commands and the client do not need the instrumentor, whose import
takes a third of a second. So this file imports only what Python has already loaded.

Since 0.1.0.
"""

from __future__ import annotations

from openhands_otel._internal.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from openhands_otel._internal.labels import labels
    from openhands_otel._internal.process.instrumentor import OpenHandsInstrumentor
    from openhands_otel._internal.process.subscriptions import subscribe
    from openhands_otel.client import StatsClient

__all__ = ["OpenHandsInstrumentor", "StatsClient", "__version__", "labels", "subscribe"]

_HOMES = {
    "OpenHandsInstrumentor": "openhands_otel._internal.process.instrumentor",
    "StatsClient": "openhands_otel.client",
    "labels": "openhands_otel._internal.labels",
    "subscribe": "openhands_otel._internal.process.subscriptions",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'openhands_otel' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
