"""Starts instrumentation in this process as ``opentelemetry-instrument`` does: distribution, configuration and every
instrumentor that is installed, by their entry points.

It happens when ``openhands.sdk`` begins to be imported, so the application may have done something by then: set a
provider of its own, which stays, or instrumented OpenHands in code. OpenTelemetry would warn of both.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

from opentelemetry.instrumentation.auto_instrumentation import initialize  # pyright: ignore[reportMissingTypeStubs]

from openhands_otel._internal.launch import footprint
from openhands_otel._internal.launch.tool_environment import ToolEnvironment

_OVERRIDES = ("opentelemetry.trace", "opentelemetry.metrics._internal", "opentelemetry._logs._internal")
_AGAIN = "opentelemetry.instrumentation.instrumentor"
_EXPECTED = ("Overriding of current", "Attempting to instrument while already instrumented")


def start() -> None:
    """Errors are logged and swallowed: the program runs in any case."""
    footprint.remember_exported()
    # Whatever is switched off by settings: what we put into the environment must be kept from tools.
    ToolEnvironment().attach()
    if footprint.is_started_by_opentelemetry():
        return
    with _without_expected_warnings():
        initialize()
    if not _is_on():
        # An endpoint that ``run`` has set would start Laminar, and nobody would keep it from that.
        footprint.withdraw()


def _is_on() -> bool:
    from openhands_otel._internal.process.instrumentor import OpenHandsInstrumentor

    return getattr(OpenHandsInstrumentor(), "_undo", None) is not None


@contextmanager
def _without_expected_warnings() -> Generator[None]:
    loggers = [logging.getLogger(name) for name in (*_OVERRIDES, _AGAIN)]
    for logger in loggers:
        logger.addFilter(_is_unexpected)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_is_unexpected)


def _is_unexpected(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_EXPECTED)
