"""Agents' processes on this machine that send to a stack or a fleet, native or in containers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from forked import Child, Prepared

_KEPT = ("PATH", "HOME", "LITELLM_LOCAL_MODEL_COST_MAP")


class Place(Protocol):
    """Where they send, and the token for it."""

    @property
    def otlp_url(self) -> str: ...

    token_file: Path


def start(prepared: Prepared, place: Place, source: str, directory: Path, **environ: str) -> Child:
    """Start ``source`` in a folder that is made for it and names its service; OpenHands is imported already."""
    directory.mkdir()
    # The agents of one test are one machine: what one that ended left undelivered, another delivers. What others on the
    # real machine left is none of this bill's.
    environment = {kept: os.environ[kept] for kept in _KEPT} | {
        "XDG_STATE_HOME": str(directory.parent / "state"),
        "OTEL_SERVICE_NAME": directory.name,
        "OTEL_EXPORTER_OTLP_ENDPOINT": place.otlp_url,
        "OPENHANDS_OTEL_TOKEN_FILE": str(place.token_file),
    }
    return prepared.start(source, directory, environment | environ)
