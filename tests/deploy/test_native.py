"""Building the native servers where Go is missing: one line says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.native.build import NO_GO

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", [["up"], ["build", "prometheus"]])
def test_without_go_it_says_in_one_line_what_to_install(command: list[str], tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path),
    }
    words = [sys.executable, "-m", "deploy.native", *command]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"{NO_GO}\n"
