"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is. A note breaks nothing, and explains what may surprise."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, what is so, and what to do about it."""

    check: str
    level: Level
    said: str
    cure: str = ""


def ok(check: str, said: str) -> Finding:
    return Finding(check, Level.OK, said)


def note(check: str, said: str, cure: str = "") -> Finding:
    return Finding(check, Level.NOTE, said, cure)


def problem(check: str, said: str, cure: str) -> Finding:
    return Finding(check, Level.PROBLEM, said, cure)
