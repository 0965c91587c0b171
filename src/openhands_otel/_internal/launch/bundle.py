"""The folder that instruments every Python to which PYTHONPATH names its ``site``, also where we are not installed.

    site/sitecustomize.py         what PYTHONPATH names, and nothing else: a copy of ``launch/site/sitecustomize.py``
    lib/NAME/...                  a distribution with its metadata, as it is installed here
    opentelemetry/instrumentation/auto_instrumentation/sitecustomize.py
                                  what PYTHONPATH names in a pod that the OpenTelemetry Operator has copied it into
    openhands-otel-bundle.json    what is in it, and what was left to the environment

One folder for each distribution, because ``site/_openhands_otel_launch.py`` looks only into those that the environment
lacks: its own win, whole, and nothing is mixed. The distributions come from the environment of the command, so no
network is needed. Compiled ones are left out: they are for one Python and one machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sysconfig
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePath
from typing import Final, Self

from openhands_otel._internal import launch
from openhands_otel._internal.launch.footprint import AUTO_INSTRUMENTATION, MANIFEST
from openhands_otel._internal.launch.pruning import mark, prune
from openhands_otel._internal.version import __version__

OWN: Final = "openhands-otel"
PACKAGE: Final = Path(launch.__file__).parents[2]
"""This package as it is installed here."""
PYTHONS: Final = ("3.12", "3.13", "3.14")

_SITECUSTOMIZE: Final = "sitecustomize.py"
_EXTRAS: Final = "otlp,spans"
_COMPILED: Final = frozenset((".so", ".pyd", ".dylib", ".dll"))
_OF_THIS_PLACE: Final = frozenset(("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"))
"""Files of a distribution's metadata that tell how it came here."""


class BundleError(Exception):
    """What happened and what to do, in one line."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a bundle has: the version of each distribution; of each that it lacks, why."""

    version: str = __version__
    packages: Mapping[str, str] = field(default_factory=dict[str, str])
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])

    def encoded(self) -> str:
        return json.dumps(
            {"version": self.version, "packages": dict(self.packages), "left_out": dict(self.left_out)}, indent=1
        )

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Those of the bundle ``folder``; raises OSError or ValueError where it is none."""
        read = json.loads((folder / MANIFEST).read_text("utf-8"))
        return cls(str(read["version"]), dict(read["packages"]), dict(read["left_out"]))


def site_of(folder: Path) -> Path:
    """What PYTHONPATH has to name."""
    return folder / "site"


def launch_of(folder: Path) -> Path:
    """Where ``bootstrap.py`` stands in it."""
    return folder / "lib" / OWN / Path(launch.__file__).parent.relative_to(PACKAGE.parent)


def make(folder: Path) -> Contents:
    """Make ``folder`` a bundle, at once: it is whole or not there. An older bundle in its place is replaced.

    Raises BundleError, and OSError where it cannot be written.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise BundleError(f"{folder} is there and no folder: name another one")
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).exists():
        raise BundleError(f"{folder} has something else in it: name a new folder, or empty it")
    with _made_beside(folder) as (made, contents):
        if folder.exists():
            folder.rename(made.with_name("old"))
        made.rename(folder)
    return contents


def kept() -> Path:
    """The bundle in this user's cache, made where it is missing: one for what is installed here now.

    Whoever makes one takes out those that nobody uses any more. Raises BundleError, and OSError where there is none and
    it cannot be written.
    """
    folder = cache_folder() / f"bundle-{__version__}-{_state_of_here()}"
    mark(folder / MANIFEST)
    if not (folder / MANIFEST).exists():
        prune(folder.parent, "bundle-*", MANIFEST)
        with _made_beside(folder) as (made, _):
            try:
                made.rename(folder)
            except OSError:
                # Somebody else has made it meanwhile.
                if not (folder / MANIFEST).exists():
                    raise
    if hasattr(os, "geteuid") and folder.stat().st_uid not in (0, os.geteuid()):
        raise BundleError(f"{folder} belongs to another user: set XDG_CACHE_HOME")
    return folder


def cache_folder() -> Path:
    """Where it is, what the XDG base directories call cache. Raises BundleError where there is no home."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
    except RuntimeError:
        raise BundleError("there is no home folder: set XDG_CACHE_HOME") from None
    return base / OWN


def _state_of_here() -> str:
    """Another one after something was installed here, or this package was edited where it stands. Costs 5 ms."""
    seen = hashlib.sha256()
    for root, folders, files in os.walk(PACKAGE):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(files):
            found = os.stat(os.path.join(root, name))
            seen.update(f"{root}/{name} {found.st_size} {found.st_mtime_ns}\n".encode())
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        seen.update(f"{place} {os.stat(place).st_mtime_ns}\n".encode())
    return seen.hexdigest()[:16]


@contextmanager
def _made_beside(folder: Path) -> Generator[tuple[Path, Contents]]:
    """A new bundle next to ``folder``, to be moved; what is not moved goes."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        made = place / "new"
        yield made, _fill(made)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def write_packages(lib: Path, extras: str) -> Contents:
    """Put this package, and all that it needs with ``extras`` and that is pure Python, into ``lib``; raises OSError."""
    for name, found in (wanted := _wanted(extras)).packages.items():
        for file, place in _files(found):
            goal = lib / name / place
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, goal)
    own = lib / OWN / PACKAGE.name
    if not own.exists():
        # Where it is edited its metadata alone is installed.
        shutil.copytree(PACKAGE, own, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copyfile)
    versions = {name: found.version for name, found in sorted(wanted.packages.items())}
    return Contents(__version__, versions, dict(sorted(wanted.left_out.items())))


def _fill(folder: Path) -> Contents:
    contents = write_packages(folder / "lib", _EXTRAS)
    for kind, place in (("site", site_of(folder)), ("operator_site", folder.joinpath(*AUTO_INSTRUMENTATION))):
        place.mkdir(parents=True)
        shutil.copyfile(launch_of(folder) / kind / _SITECUSTOMIZE, place / _SITECUSTOMIZE)
    (folder / MANIFEST).write_text(contents.encoded(), "utf-8")
    return contents


def _files(found: Distribution) -> Iterator[tuple[Path, PurePath]]:
    """(where it is, where it goes) of each file of its packages and its metadata."""
    for file in found.files or ():
        in_metadata = file.parts[0].endswith(".dist-info")
        if ".." in file.parts or file.is_absolute() or "__pycache__" in file.parts or file.suffix == ".pth":
            continue
        if not (in_metadata and file.name in _OF_THIS_PLACE):
            yield Path(str(found.locate_file(file))), file


@dataclass(frozen=True, slots=True)
class _Wanted:
    packages: dict[str, Distribution]
    left_out: dict[str, str]


def _wanted(extras: str) -> _Wanted:
    """All that this package needs with ``extras``, as far as it can be taken along."""
    # Of the environment, like all that this command itself needs.
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    wanted = _Wanted({}, {})
    asked = [Requirement(f"{OWN}[{extras}]")]
    pinned: dict[str, set[str]] = {}
    while asked:
        requirement = asked.pop(0)
        name = canonicalize_name(requirement.name)
        if name in wanted.packages or name in wanted.left_out:
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            wanted.left_out[name] = "not installed here"
            continue
        reason = _cannot_come(found)
        if reason:
            wanted.left_out[name] = reason
            continue
        wanted.packages[name] = found
        chosen = {"", *requirement.extras}
        for needed in map(Requirement, found.requires or ()):
            if needed.marker is None or any(
                needed.marker.evaluate({"python_version": python, "python_full_version": f"{python}.0", "extra": extra})
                for python in PYTHONS
                for extra in chosen
            ):
                asked.append(needed)
                if any(specifier.operator == "==" for specifier in needed.specifier):
                    pinned.setdefault(canonicalize_name(needed.name), set()).add(name)
    for needed, by in pinned.items():
        if needed in wanted.left_out:
            for name in by:
                # Useless without this very one, which the environment has or has not.
                wanted.left_out[name] = f"needs one version of {needed}"
                wanted.packages.pop(name, None)
    return wanted


def _cannot_come(found: Distribution) -> str | None:
    """Why it cannot be taken along, if so."""
    if found.files is None:
        return "its files are not recorded"
    if any(file.suffix in _COMPILED for file in found.files):
        return "compiled"
    return None
