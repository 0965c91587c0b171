"""Starts instrumentation in this process as ``opentelemetry-instrument`` does: distribution, configuration and every
instrumentor that is installed, by their entry points.

It happens when ``openhands.sdk`` begins to be imported, so the application may have done something by then: set a
provider of its own, which stays, or instrumented OpenHands in code. OpenTelemetry would warn of both.
"""

from __future__ import annotations

import logging
import os
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
    if footprint.is_started_by_opentelemetry():
        ToolEnvironment().attach()
        # OpenTelemetry has started what is installed; what a bundle serves it could not see.
        if not _is_on() and not _is_disabled():
            _instrument()
        return
    footprint.remember_exported()
    with _without_expected_warnings():
        initialize()
    # Whatever is switched off by settings: what was put into the environment must be kept from tools. That is known
    # now: a distribution may have set variables.
    ToolEnvironment().attach()
    if not _is_on():
        # An endpoint that ``run`` has set would start Laminar, and nobody would keep it from that.
        footprint.withdraw()


def _instrument() -> None:
    from openhands_otel._internal.process.instrumentor import OpenHandsInstrumentor

    OpenHandsInstrumentor().instrument()


def _is_on() -> bool:
    from openhands_otel._internal.process.instrumentor import OpenHandsInstrumentor

    return getattr(OpenHandsInstrumentor(), "_undo", None) is not None


def _is_disabled() -> bool:
    from openhands_otel._internal.export.config_file import names_openhands

    return names_openhands(os.environ)


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
