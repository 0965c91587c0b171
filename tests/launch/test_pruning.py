"""Old bundles leave the cache of ``openhands-otel run``, and never one that a running process was started with.

Kind of fault: 1.4 MB for each edit or upgrade, for ever; and a server of months whose next worker finds nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

from openhands_otel._internal.launch.footprint import MANIFEST
from openhands_otel._internal.launch.pruning import KEPT_S, prune
from openhands_otel._internal.version import __version__

COMMAND = Path(sys.executable).with_name("openhands-otel")
WAITS = "import sys; print('here', flush=True); sys.stdin.read()"
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="it is not told what processes were started with"
)


def make_old(cache: Path, *names: str) -> Path:
    """Folders of that name that were used last before the time for which they are kept; returns where they are."""
    place = cache / "openhands-otel"
    for name in names:
        (place / name).mkdir(parents=True, exist_ok=True)
        (place / name / MANIFEST).touch()
        os.utime(place / name / MANIFEST, (time.time() - KEPT_S - 60,) * 2)
    return place


def left(place: Path) -> set[str]:
    return {each.name for each in place.iterdir()}


def started(cache: Path, *words: str) -> subprocess.Popen[bytes]:
    """A Python under ``run``, which waits for the end of its input."""
    process = subprocess.Popen(
        [COMMAND, "run", "--", sys.executable, *words, "-c", WAITS],
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    return process


@needs_proc
def test_whoever_makes_one_takes_out_what_is_old(tmp_path: Path) -> None:
    place = make_old(tmp_path, "bundle-0.1.0-old", ".bundle-0.1.0-unfinished", "native")
    (place / "bundle-0.1.0-young").mkdir()
    (place / "bundle-0.1.0-young" / MANIFEST).touch()
    started(tmp_path).communicate(timeout=100)
    (made,) = left(place) - {"bundle-0.1.0-young", "native"}
    assert made.startswith(f"bundle-{__version__}-")
    # One that is there already is marked, and is no reason to look.
    make_old(tmp_path, made, "bundle-0.1.0-old")
    started(tmp_path).communicate(timeout=100)
    assert "bundle-0.1.0-old" in left(place)
    prune(place, "bundle-*", MANIFEST)
    assert left(place) == {made, "bundle-0.1.0-young", "native"}


@needs_proc
@pytest.mark.parametrize("words", [(), ("-I",)], ids=["by PYTHONPATH", "by the bootstrap"])
def test_none_goes_that_a_running_process_was_started_with(tmp_path: Path, words: tuple[str, ...]) -> None:
    process = started(tmp_path, *words)
    place = tmp_path / "openhands-otel"
    (used,) = left(place)
    make_old(tmp_path, used, "bundle-0.1.0-old")
    prune(place, "bundle-*", MANIFEST)
    assert left(place) == {used}
    process.communicate(timeout=100)


@needs_proc
def test_one_goes_with_the_last_process_that_named_it(tmp_path: Path) -> None:
    # A name of its own: that of a bundle is the same in each cache, and others may run with it now.
    name = f"bundle-0.1.0-{uuid4().hex}"
    place = make_old(tmp_path, name)
    env = os.environ | {"PYTHONPATH": str(place / name / "site")}
    process = subprocess.Popen([sys.executable, "-c", WAITS], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    prune(place, "bundle-*", MANIFEST)
    assert left(place) == {name}
    process.communicate(timeout=100)
    prune(place, "bundle-*", MANIFEST)
    assert left(place) == set()


def test_what_cannot_be_looked_at_or_removed_stays_and_nothing_is_raised(tmp_path: Path) -> None:
    prune(tmp_path / "nowhere", "bundle-*", MANIFEST)
    place = make_old(tmp_path, "bundle-0.1.0-old", ".bundle-0.1.0-old-away")
    (place / ".bundle-0.1.0-old-away" / "in the way").touch()
    os.utime(place / ".bundle-0.1.0-old-away" / MANIFEST)
    prune(place, "bundle-*", MANIFEST)
    assert left(place) == {"bundle-0.1.0-old", ".bundle-0.1.0-old-away"}
