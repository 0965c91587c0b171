"""The program of an ACP agent, as this process started it: its name and its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def is_named(agent: Any, word: str) -> bool:
    """Whether the program calls itself so; ``word`` in small letters."""
    return word in str(getattr(agent, "_agent_name", "")).lower()


def environment_of(agent: Any) -> Mapping[str, str]:
    """What the program was started with; where the system does not say, what it most likely was."""
    try:
        pairs = Path(f"/proc/{agent._process.pid}/environ").read_bytes().split(b"\0")
    except (AttributeError, OSError):
        return os.environ
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in (each.partition(b"=") for each in pairs)}


def home_in(variables: Mapping[str, str]) -> Path:
    """The user's home, by these variables."""
    return Path(variables.get("HOME") or Path.home())
