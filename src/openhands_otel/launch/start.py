"""Starts instrumentation in this process as ``opentelemetry-instrument`` does: distribution, configuration and every
instrumentor that is installed, by their entry points."""

from __future__ import annotations

from opentelemetry.instrumentation.auto_instrumentation import initialize  # pyright: ignore[reportMissingTypeStubs]

from openhands_otel.launch import workers


def start() -> None:
    """Errors are logged and swallowed: the command runs in any case."""
    workers.follow()
    initialize()
