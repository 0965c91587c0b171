"""Builds a server once and keeps it outside the tree, so that neither a clean checkout nor another clone builds again.

A binary stands in ``${XDG_CACHE_HOME:-~/.cache}/openhands-otel/native/PROGRAM-RELEASE-KEY/``; the key is a hash of all
that the build depends on. One build runs at a time, at low priority: each takes minutes and all cores.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.native.programs import PROGRAMS, Program

NO_GO = "Go is not installed: install Go 1.26 or newer, put it on PATH and run this again"
NICENESS = 10


class BuildError(Exception):
    """What happened and what to do."""


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openhands-otel" / "native"


def binary(name: str) -> Path:
    """The program, built if it is not there yet."""
    program = PROGRAMS[name]
    place = cache() / f"{program.name}-{program.release}-{_key(program)}" / program.name
    if place.exists():
        return place
    if shutil.which("go") is None:
        raise BuildError(NO_GO)
    # The collector's builder is built first and would wait for the lock that its user holds.
    builder = binary("builder") if program.generated else None
    with _one_at_a_time():
        if not place.exists():
            print(f"building {program.name} {program.release} (once, a few minutes)", file=sys.stderr, flush=True)
            _build(program, place, builder)
    return place


def lock(name: str) -> None:
    """Write go.mod and go.sum anew after a version was changed in go.mod, or in the manifest."""
    program = PROGRAMS[name]
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch)
        if program.generated:
            _generate(program, source, binary("builder"))
        else:
            _copy_pins(program.folder, source)
        _compile(program, source, source / "discarded", mode="mod")
        _copy_pins(source, program.folder)


def _build(program: Program, place: Path, builder: Path | None) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        source = Path(scratch)
        if builder is not None:
            _generate(program, source, builder, "--skip-get-modules")
        _copy_pins(program.folder, source)
        built = source / "built"
        _compile(program, source, built, mode="readonly")
        built.replace(place)


def _generate(program: Program, source: Path, builder: Path, *flags: str) -> None:
    """Write the collector's sources, and without ``--skip-get-modules`` its go.mod and go.sum."""
    _run((str(builder), "--skip-compilation", f"--config={program.folder / 'manifest.yaml'}", *flags), source)


def _copy_pins(origin: Path, target: Path) -> None:
    for pin in ("go.mod", "go.sum"):
        shutil.copy(origin / pin, target)


def _compile(program: Program, source: Path, output: Path, mode: str) -> None:
    symbols = ("-s", "-w")
    if program.version_variable:
        symbols = (*symbols, "-X", f"{program.version_variable}={program.release}")
    flags = (f"-mod={mode}", "-buildvcs=false", f"-tags={','.join(program.tags)}")
    _run(("go", "build", *flags, f"-ldflags={' '.join(symbols)}", "-o", str(output), program.package), source)


def _key(program: Program) -> str:
    digest = hashlib.sha256(repr(program).encode())
    for pin in sorted(program.folder.iterdir()):
        digest.update(pin.read_bytes())
    return digest.hexdigest()[:12]


@contextmanager
def _one_at_a_time() -> Generator[None]:
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(words: Sequence[str], folder: Path) -> None:
    # Without cgo no C compiler is needed; a workspace or a vendoring flag of the user's is none of ours.
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": ""}
    words = ("nice", "-n", str(NICENESS), *words)
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"'{' '.join(words[3:5])}' failed:\n{(done.stderr or done.stdout).strip()}")
