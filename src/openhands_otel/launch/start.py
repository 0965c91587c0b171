"""Starts instrumentation in this process as ``opentelemetry-instrument`` does: distribution, configuration and every
instrumentor that is installed, by their entry points."""

from __future__ import annotations

import sys

from opentelemetry.instrumentation.auto_instrumentation import initialize  # pyright: ignore[reportMissingTypeStubs]
from opentelemetry.instrumentation.dependencies import (
    get_dependency_conflicts,  # pyright: ignore[reportUnknownVariableType]
)

from openhands_otel.launch import workers
from openhands_otel.sdk.compat import REQUIREMENT


def start() -> None:
    """Errors are logged and swallowed: the command runs in any case."""
    workers.follow()
    initialize()


def complain_without_openhands() -> None:
    """One line where nothing can come of it: OpenTelemetry passes over such an instrumentor without a word."""
    if get_dependency_conflicts((REQUIREMENT,)) is not None:
        sys.stderr.write(
            f"openhands-otel: {sys.executable} does not have {REQUIREMENT}, so there is nothing to measure"
            " (install it there, or run another Python)\n"
        )
