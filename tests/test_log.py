"""Kind of fault: a stranger's words act on the terminal, or split the line, of whoever reads a log."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

import openhands_otel
from openhands_otel._internal import log

SOURCES = sorted(Path(openhands_otel.__file__).parent.rglob("*.py"))
HOSTILE = "\x1b]0;pwned\x07\nsecond \u202eline\x9b2J"
SHOWN = r"\x1b]0;pwned\x07\nsecond \u202eline\x9b2J"


def test_what_is_put_into_a_line_is_text(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger(log.NAME)
    handler = logging.StreamHandler()
    logger.addHandler(handler)
    try:
        logger.warning("%s: %d points, %.1f s, %r", HOSTILE, 3, 0.25, True)
        logger.warning("%(name)s: %(number)d", {"name": HOSTILE, "number": 3})
        logger.warning("%s", ValueError(HOSTILE))
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            logger.warning("failed", exc_info=True)
    finally:
        logger.removeHandler(handler)
    lines = capfd.readouterr().err.splitlines()
    assert lines[:3] == [f"{SHOWN}: 3 points, 0.2 s, True", f"{SHOWN}: 3", SHOWN]
    assert all(line.isprintable() for line in lines)


def test_every_line_of_ours_goes_through_it() -> None:
    """A logger below ours would pass it by: filters of a logger are asked for its own lines only."""
    named = re.compile(r"getLogger\(([^)]*)\)")
    names = {name for source in SOURCES for name in named.findall(source.read_text())}
    assert names <= {'"openhands_otel"', "log.NAME", "NAME", "name"}, names
    # ``name`` is that of another's logger: uvicorn's, asyncio's.


@pytest.mark.parametrize(
    "module",
    [
        "process.instrumentor",
        "process.subscriptions",
        "collector.server",
        "process.pipeline",
        "remote.follower",
        "cli.view",
    ],
)
def test_whoever_is_imported_first_the_filter_is_there(module: str) -> None:
    program = f"import logging, openhands_otel._internal.{module}; print(logging.getLogger('openhands_otel').filters)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout.count("PrintableRecords") == 1
