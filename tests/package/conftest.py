from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def build(source: Path, folder: Path, *targets: str) -> list[Path]:
    """What hatchling makes of ``source``, as ``pip`` and ``uv`` have it do; it needs no network."""
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    for target in targets:
        command += ["--target", target]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel and the sdist, by suffix."""
    found = build(ROOT, tmp_path_factory.mktemp("dist"), "wheel", "sdist")
    return {file.suffix: file for file in found}


@pytest.fixture(scope="session")
def wheel(built: dict[str, Path]) -> Path:
    return built[".whl"]


@pytest.fixture(scope="session")
def sdist(built: dict[str, Path]) -> Path:
    return built[".gz"]
