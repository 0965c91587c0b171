"""What starting instrumentation added to the environment of this process, and how to take it out again for a child.

Three things are added: PYTHONPATH entries (by ``openhands-otel run`` its ``launch/site``; by
``opentelemetry-instrument`` its auto_instrumentation directory, and after it the working directory), variables that
``run`` set on the user's behalf, and ``OTEL_*`` variables that an OpenTelemetry distribution set while it started. The
first process works out which; what it finds stands in one private variable, so that a worker process that inherits all
of it can tell it from what the user exported.

``opentelemetry-instrument`` replaces itself by the command, so two things cannot be known any more: whether a working
directory right behind its own entry was the user's (taken for the launcher's), and whether a variable came from an
option of the launcher (taken for the user's). ``openhands-otel run`` has neither problem.

Also loaded by its path into Pythons without this package, so it imports nothing of it.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Final, Self

MARKER: Final = "_OPENHANDS_OTEL_FOOTPRINT"
COMMAND: Final = "_OPENHANDS_OTEL_COMMAND"
"""The process id of the command that ``run`` was given, among the variables that it sets."""
WAITING: Final = "_openhands_otel_launch"
"""The module that waits for OpenHands."""
SITE: Final = ("openhands_otel", "_internal", "launch", "site")
MANIFEST: Final = "openhands-otel-bundle.json"
"""The file that tells a bundle."""
AUTO_INSTRUMENTATION: Final = ("opentelemetry", "instrumentation", "auto_instrumentation")
CREDENTIALS: Final = (
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
    "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
)
"""They may carry a token, and no tool has a use for them. OpenHands strips the first two itself (1.58)."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """``variables`` maps a name to (what it was set to, what the user had exported or None)."""

    variables: Mapping[str, tuple[str, str | None]] = field(default_factory=dict[str, tuple[str, str | None]])
    directory: str | None = None
    """The working directory that the launcher wrote into PYTHONPATH."""

    def encoded(self) -> str:
        return json.dumps({"variables": self.variables, "directory": self.directory})

    @classmethod
    def decoded(cls, text: str) -> Self | None:
        try:
            content = json.loads(text)
            variables = {str(name): (str(value), before) for name, (value, before) in content["variables"].items()}
            return cls(variables, content["directory"])
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def removed_from(self, environment: Mapping[str, str], inherited: Mapping[str, str]) -> dict[str, str]:
        """A copy of ``environment`` without the footprint; only what still has its ``inherited`` value is touched."""
        clean = dict(environment)
        for name in (MARKER, *CREDENTIALS):
            if name in clean and clean[name] == inherited.get(name):
                del clean[name]
        for name, (value, before) in self.variables.items():
            if clean.get(name) == value:
                _put(clean, name, before)
        path = clean.get("PYTHONPATH")
        if path is not None:
            _put(clean, "PYTHONPATH", self._user_path(path))
        return clean

    def still_in(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The variables that have the value that they were set to."""
        return {name: value for name, (value, _) in self.variables.items() if environment.get(name) == value}

    def _user_path(self, path: str) -> str | None:
        entries = path.split(os.pathsep)
        kept: list[str] = []
        behind_launcher = False
        for entry in entries:
            if is_auto_instrumentation(entry) or is_site(entry):
                behind_launcher = is_auto_instrumentation(entry)
                continue
            if not (behind_launcher and entry == self.directory):
                kept.append(entry)
            behind_launcher = False
        if len(kept) == len(entries):
            return path
        return os.pathsep.join(kept) or None


def is_auto_instrumentation(directory: str) -> bool:
    """Whether this is the directory with OpenTelemetry's ``sitecustomize``, of whatever installation."""
    return PurePath(directory).parts[-3:] == AUTO_INSTRUMENTATION


@functools.lru_cache(maxsize=1024)
def is_site(directory: str) -> bool:
    """Whether this is the directory with our own ``sitecustomize``, of whatever installation or bundle."""
    parts = PurePath(directory).parts
    return parts[-len(SITE) :] == SITE or (parts[-1:] == ("site",) and Path(directory, "..", MANIFEST).is_file())


def withdraw(credentials: bool = False) -> None:
    """Take the footprint out of this process, for good."""
    footprint = Footprint.decoded(os.environ.get(MARKER, "")) or Footprint()
    given = os.environ if credentials else {MARKER: os.environ.get(MARKER, "")}
    clean = footprint.removed_from(os.environ, given)
    for name in set(os.environ) - set(clean):
        del os.environ[name]
    for name, value in clean.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != WAITING]
    for name in (WAITING, "sitecustomize"):
        if is_site(str(PurePath(getattr(sys.modules.get(name), "__file__", None) or "").parent)):
            del sys.modules[name]


def join(ours: Mapping[str, str]) -> None:
    """Have in this process, which was started without it, what ``ours`` has put into the environment of another one."""
    if MARKER in os.environ or MARKER not in ours:
        return
    os.environ.update(ours)
    if any(is_site(entry) for entry in ours.get("PYTHONPATH", "").split(os.pathsep)):
        program: dict[str, Any] = {"__file__": str(Path(__file__).with_name("program.py"))}
        exec(compile(Path(program["__file__"]).read_text(), program["__file__"], "exec"), program)
        program["wait"]()
    else:
        from opentelemetry.instrumentation.auto_instrumentation import (  # pyright: ignore[reportMissingTypeStubs]
            initialize,
        )

        initialize()


def remember_exported() -> None:
    """Note the variables as they are now, before a distribution starts: what differs later is the distribution's."""
    _before_distribution.update(os.environ)


_before_distribution: dict[str, str] = {}


def leave() -> Footprint:
    """The footprint of this process, handed down to it or worked out, left in its environment for worker processes."""
    footprint = _of_this_process()
    if footprint != Footprint():
        os.environ[MARKER] = footprint.encoded()
    return footprint


def forget() -> None:
    """Take back what ``leave`` left."""
    if not _handed_down():
        os.environ.pop(MARKER, None)


@functools.cache
def _handed_down() -> bool:
    return MARKER in os.environ


@functools.cache
def _of_this_process() -> Footprint:
    # Once, as early as can be: later on the application's own changes could not be told from the launch's.
    before = Footprint.decoded(os.environ.get(MARKER, "")) if _handed_down() else None
    if before is not None:
        return Footprint({**_set_by_distribution(), **before.variables}, before.directory)
    if is_started_by_opentelemetry():
        return Footprint(_set_by_distribution(), os.getcwd())
    # Started by a bundle that is named without ``run``, or else by the application, which has said all itself.
    return Footprint(_set_by_distribution() if _before_distribution else {})


def is_started_by_opentelemetry() -> bool:
    """Whether OpenTelemetry's own ``sitecustomize`` has run in this process."""
    file = getattr(sys.modules.get("sitecustomize"), "__file__", None)
    return file is not None and is_auto_instrumentation(str(PurePath(file).parent))


def _set_by_distribution() -> dict[str, tuple[str, str | None]]:
    """OTEL_* variables that differ from what this process was started with."""
    exported = _exported()
    if exported is None:
        return {}
    return {
        name: (value, exported.get(name))
        for name, value in os.environ.items()
        if name.startswith("OTEL_") and exported.get(name) != value
    }


def _exported() -> Mapping[str, str] | None:
    """The environment before a distribution started, or at exec, which is known on Linux only."""
    if _before_distribution:
        return _before_distribution
    try:
        content = Path("/proc/self/environ").read_bytes()
    except OSError:
        return None
    pairs = (entry.partition(b"=") for entry in content.split(b"\0") if b"=" in entry)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def _put(environment: dict[str, str], name: str, value: str | None) -> None:
    if value is None:
        environment.pop(name, None)
    else:
        environment[name] = value
