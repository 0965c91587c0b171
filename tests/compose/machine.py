"""An image with nothing in it, and containers of it that have this machine's programs and Python, to read.

Python 3.12 or newer and OpenHands are what a test has here; images of its kind come from registries that it has not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .engine import Podman

IMAGE = "localhost/machine"
_LINKS = ("bin", "sbin", "lib", "lib64")
_OURS = ("openhands_otel", "_openhands_otel", "__editable__", "_editable_impl")


def build(podman: Podman, context: Path) -> None:
    """Make the image, from the empty folder ``context``."""
    for folder in ("etc", "tmp", "usr", "proc", "home"):
        (context / "root" / folder).mkdir(parents=True)
    (context / "root" / "tmp").chmod(0o1777)
    (context / "root" / "etc" / "passwd").write_text("root:x:0:0:root:/home:/bin/bash\n")
    for name in _LINKS:
        if Path("/", name).is_symlink():
            (context / "root" / name).symlink_to(f"usr/{name}")
    (context / "Dockerfile").write_text("FROM scratch\nCOPY root /\nENV HOME=/home PATH=/usr/bin:/bin\n")
    podman("build", "--quiet", "--tag", IMAGE, str(context))


def environment_without_us(folder: Path) -> Path:
    """A virtual environment with all that is installed here except this package; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = Path(f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")
    for entry in (Path(sys.prefix) / packages).iterdir():
        if not entry.name.startswith(_OURS):
            (folder / packages / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


def mounts(*folders: Path) -> list[str]:
    """Options of ``podman run``: this machine's programs, its Python, and ``folders``, each in its place, to read."""
    places = {"/usr", "/etc/ssl", sys.base_prefix, sys.prefix, *map(str, folders)}
    places |= {f"/{name}" for name in _LINKS if not Path("/", name).is_symlink() and Path("/", name).is_dir()}
    outermost = [place for place in places if not any(place.startswith(f"{other}{os.sep}") for other in places)]
    return [option for place in sorted(outermost) for option in ("--volume", f"{place}:{place}:ro")]
