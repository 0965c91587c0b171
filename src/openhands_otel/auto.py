"""Instruments the process that imports this module, for places where only a module's name can be given.

    python -m openhands.agent_server --import-modules openhands_otel.auto

An agent server imports such modules after OpenHands, and exits if one of them cannot be imported. So this module never
raises. Where an OTLP endpoint alone has already started OpenHands' Laminar tracing, this module ends it, since the
endpoint is meant for this plugin.

Since 0.1.0.
"""

from __future__ import annotations

import sys
from contextlib import suppress

__all__ = ["instrument"]


def instrument() -> None:
    """Instrument this process unless it is instrumented already; on failure, write one line to standard error."""
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
        # A process that has no standard error, or has closed it, is told nothing.
        with suppress(AttributeError, OSError, ValueError):
            sys.stderr.write(f"openhands-otel: this process runs without telemetry: {type(error).__name__}: {reason}\n")


instrument()
