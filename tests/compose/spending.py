"""Agents' processes on the machine, outside of containers, that send to what a Compose file publishes."""

from __future__ import annotations

from pathlib import Path

from stack import sending
from stack.ledger import program

from forked import Child, Prepared

from .project import Project


def spend(prepared: Prepared, project: Project, folder: Path, name: str, pauses: list[float], seed: int) -> Child:
    """A process that spends after each pause and keeps a ledger."""
    return sending.start(prepared, project, program(pauses, seed), folder / name)
