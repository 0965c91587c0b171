"""All checks of one environment, in the order in which a point takes its way; what cannot be tried is left out."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from openhands_otel._internal.doctor import probe
from openhands_otel._internal.doctor.far_end import read_back
from openhands_otel._internal.doctor.finding import Finding, Level
from openhands_otel._internal.doctor.reach import check_reach
from openhands_otel._internal.doctor.traps import check_environment
from openhands_otel._internal.export.otlp_config import read_otlp_config
from openhands_otel._internal.log import NAME
from openhands_otel._internal.metrics.resource import base_resource
from openhands_otel.semconv import SERVICE_NAME, SERVICE_NAMESPACE
from openhands_otel.settings import Settings, load


def examine(viewer: str | None = None, prometheus: str | None = None, token_file: Path | None = None) -> list[Finding]:
    """Look at this process's environment, send a probe by it and read that back. Raises SettingsError.

    Args:
        viewer: URL of the viewer at which it is read back; None: where the endpoint is.
        prometheus: The same of a Prometheus.
        token_file: File with the token to show there; None: the one that is shown in sending.
    """
    with _heard() as complaints:
        settings = load(Settings)
        config = read_otlp_config(token_file=settings.token_file, own_only=settings.own_viewer_only)
    found = check_environment(os.environ, config, settings, complaints)
    if config.exporter == "none" or config.problem or (settings.file is not None and config.own_only):
        return found
    found += check_reach(config)
    if _broken(found, "reachability", "TLS"):
        return found
    name = probe.new_name()
    found += probe.send_probe(config, name, _service(settings))
    if _broken(found, "probe", "token"):
        return found
    return found + read_back(config, name, viewer, prometheus, token_file)


def _service(settings: Settings) -> probe.Service:
    about = base_resource(settings.labels, settings.send).attributes
    return {name: str(about[name]) for name in (SERVICE_NAME, SERVICE_NAMESPACE) if name in about}


def _broken(found: Sequence[Finding], *checks: str) -> bool:
    return any(each.level is Level.PROBLEM and each.check in checks for each in found)


@contextmanager
def _heard() -> Generator[list[str]]:
    """What our logger says meanwhile, which is nobody's else."""
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                heard.append(record.getMessage())

    ear, logger = Ear(), logging.getLogger(NAME)
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(ear)
    try:
        yield heard
    finally:
        logger.removeHandler(ear)
        logger.propagate = propagates
