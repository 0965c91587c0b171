"""An environment from the package index, made once: OpenHands, the servers that people run it in, and nothing of us."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / ".cache" / "launch"
SERVERS = ("gunicorn==27.0.1", "celery==5.7.0", "ipykernel==7.4.0", "jupyter-client==8.10.0", "pip", "setuptools")
FREEZER = "pyinstaller==6.22.3"
INSTALL_S = 600


def uv() -> str:
    return shutil.which("uv") or str(ROOT / ".cache" / "uv" / "bin" / "uv")


@pytest.fixture(scope="session")
def locked() -> Path:
    """What uv.lock says, as constraints: so nothing is resolved anew, and what is in uv's cache already is taken."""
    CACHE.mkdir(parents=True, exist_ok=True)
    file = CACHE / "locked.txt"
    words = [uv(), "export", "--quiet", "--frozen", "--no-emit-project", "--no-hashes", "--no-annotate", "--all-groups"]
    text = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True, timeout=100).stdout
    file.write_text(text)
    return file


@pytest.fixture(scope="session")
def environment_without_us(locked: Path) -> Path:
    """Its folder with programs."""
    return environment("env", ("openhands-tools", *SERVERS, FREEZER), locked)


@pytest.fixture(scope="session")
def environment_of_a_server(locked: Path) -> Path:
    """Its folder with programs."""
    return environment("server", ("openhands-agent-server", "openhands-tools", FREEZER), locked)


def environment(name: str, packages: Sequence[str], locked: Path) -> Path:
    """A folder with programs: of an environment that has these packages, made anew when they change."""
    wanted = hashlib.sha256(f"{locked.read_text()}{packages}{sys.version}".encode()).hexdigest()
    place = CACHE / name
    stamp = place / "built-from"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([uv(), "venv", "--quiet", f"--python={sys.executable}", str(place)], check=True)
        install = [uv(), "pip", "install", "--quiet", f"--python={place}/bin/python", f"--constraints={locked}"]
        subprocess.run([*install, *packages], check=True, timeout=INSTALL_S)
        stamp.write_text(wanted)
    return place / "bin"


@pytest.fixture
def variables(environment_without_us: Path, tmp_path: Path) -> dict[str, str]:
    """Of a person who works in that environment."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    path = os.pathsep.join((str(environment_without_us), str(Path(uv()).parent), os.environ["PATH"]))
    return {**kept, "PATH": path, "UV_PYTHON": sys.executable, "UV_CONSTRAINT": str(CACHE / "locked.txt")}
