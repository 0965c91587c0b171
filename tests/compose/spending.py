"""Agents' processes on the machine, outside of containers, that send to what a Compose file publishes."""

from __future__ import annotations

import os
from pathlib import Path

from stack.conftest import KEPT
from stack.ledger import program
from telemetry.conftest import Child, Prepared

from .project import Project


def spend(prepared: Prepared, project: Project, folder: Path, name: str, pauses: list[float], seed: int) -> Child:
    """A process that spends after each pause and keeps a ledger."""
    directory = folder / name
    directory.mkdir()
    # A state folder of its own: what others on this machine left undelivered is none of this bill's.
    environment = {kept: os.environ[kept] for kept in KEPT} | {
        "XDG_STATE_HOME": str(directory / "state"),
        "OTEL_SERVICE_NAME": name,
        "OTEL_EXPORTER_OTLP_ENDPOINT": project.otlp_url,
        "OPENHANDS_OTEL_TOKEN_FILE": str(project.token_file),
    }
    child = prepared.start(program(pauses, seed), directory, environment)
    child.directory = directory
    return child
