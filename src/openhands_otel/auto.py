"""Instruments the process that imports it, for places where nothing but a module's name can be given.

    python -m openhands.agent_server --import-modules openhands_otel.auto

An agent server imports such modules when OpenHands is loaded already, and ends when one of them cannot be imported.
So this never raises, whatever is missing here; and where an OTLP endpoint alone has started OpenHands' Laminar tracing
by then, it ends it, since that endpoint is meant for us.
"""

from __future__ import annotations

import sys

__all__ = ["instrument"]


def instrument() -> None:
    """Instrument this process if it isn't yet; one line on standard error if that cannot be."""
    try:
        from openhands_otel._internal.capture.laminar import end_uninvited_laminar
        from openhands_otel._internal.process.instrumentor import OpenHandsInstrumentor
        from openhands_otel.settings import Settings, load

        instrumentor = OpenHandsInstrumentor()
        if instrumentor.is_instrumented_by_opentelemetry:
            return
        if load(Settings).traces != "laminar":
            end_uninvited_laminar()
        instrumentor.instrument()
    except Exception as error:
        reason = " ".join(str(error).split())
        sys.stderr.write(f"openhands-otel: this process runs without telemetry: {type(error).__name__}: {reason}\n")


instrument()
