"""An environment like this one in which we are not installed: made of links in a moment, without a network."""

from __future__ import annotations

import sys
import sysconfig
import venv
from collections.abc import Set
from importlib.metadata import distribution
from pathlib import Path, PurePath

LACKING = ("openhands-otel", "opentelemetry-util-genai")
"""What an environment lacks that OpenHands has been installed into."""


def make_environment(place: Path) -> Path:
    """Make it in ``place``; returns its interpreter."""
    venv.create(place, symlinks=True, with_pip=False)
    files = {PurePath(file) for name in LACKING for file in distribution(name).files or ()}
    (there,) = place.glob("lib/python*/site-packages")
    _link(Path(sysconfig.get_path("purelib")), there, PurePath(), files)
    return place / "bin" / "python"


def _link(source: Path, goal: Path, below: PurePath, lacking: Set[PurePath]) -> None:
    parts = {parent for file in lacking for parent in file.parents}
    for each in (source / below).iterdir():
        name = below / each.name
        if name in parts:
            _link(source, goal, name, lacking)
        elif name not in lacking and each.name != "__pycache__":
            (goal / below).mkdir(parents=True, exist_ok=True)
            (goal / name).symlink_to(each)


if __name__ == "__main__":
    print(make_environment(Path(sys.argv[1])))
