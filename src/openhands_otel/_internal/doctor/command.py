"""Looks at a command as ``openhands-otel run`` would start it: whose Python it is, and what that Python has."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from openhands_otel._internal.doctor import surroundings
from openhands_otel._internal.doctor.finding import Finding, Level, note, problem
from openhands_otel._internal.launch.command import PythonProgram, is_frozen
from openhands_otel._internal.terminal_text import printable

_CHECK: Final = "command"
_TIMEOUT_S: Final = 60.0
_SOURCE_LIMIT: Final = 1024 * 1024
_RUNNERS: Final[Mapping[str, str]] = {
    "uvx": "uvx --with 'openhands-otel[otlp,spans]' ...",
    "uv": "uv run --with 'openhands-otel[otlp,spans]' ..., or uv tool install --with 'openhands-otel[otlp,spans]' ...",
    "pipx": "pipx inject NAME 'openhands-otel[otlp,spans]'",
}
"""Programs that look for a Python of their own for what they start, and how it comes to have us."""
_BINARIES: Final = (b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
_SERVERS: Final = ("RemoteConversation", "RemoteWorkspace", "DockerWorkspace", "APIRemoteWorkspace")
"""Names in a program whose agents run in a server."""


def look_at_program(file: str, python: PythonProgram | None) -> list[Finding]:
    """What its kind means for telemetry; ``python`` is what it makes Python do, None if it is no Python's."""
    name = Path(file).name.removesuffix(".exe")
    if name in _RUNNERS:
        said = f"{name} starts its program in an environment of its own, into which openhands-otel run brings us"
        return [note(_CHECK, said, f"or it has us itself: {_RUNNERS[name]}")]
    if python is None:
        cure = "run it from its source, or import openhands_otel.auto in it before it is frozen (docs/launching.md)"
        if is_frozen(file):
            said = f"{printable(name, 60)} is a frozen program: it is not measured, Pythons that it starts are"
            return [note(_CHECK, said, cure)]
        if _is_binary(file):
            said = (
                f"{printable(name, 60)} is a program without a Python to be seen: a frozen one takes in nothing of us"
            )
            return [note(_CHECK, f"{said}, Pythons below it do", cure)]
        return [
            note(_CHECK, f"{printable(name, 60)} is no Python program; the Pythons that it starts are instrumented")
        ]
    remote = next((word for word in _SERVERS if word in _source(python)), None)
    if remote is None:
        return []
    said = f"{printable(python.program, 100)} names {remote}: what such an agent spends is spent in its server"
    return [note(_CHECK, said, "instrument the server (docs/agent-server.md)")]


def surroundings_of(python: PythonProgram, environ: Mapping[str, str]) -> Mapping[str, Any] | Finding:
    """What the command's own Python has; a finding where it cannot be asked."""
    done = _run([python.interpreter, *_site_options(python), surroundings.__file__], environ)
    if isinstance(done, Finding):
        return done
    try:
        return json.loads(done.stdout)
    except ValueError:
        shown = printable(python.interpreter, 200)
        return problem(_CHECK, f"{shown} cannot be looked into: {_last_line(done)}", "see whether that Python starts")


def examined_inside(python: PythonProgram | None, options: Sequence[str], environ: Mapping[str, str]) -> list[Finding]:
    """What the doctor finds in the command's Python and environment; in ours where it has none to be seen."""
    interpreter = [sys.executable] if python is None else [python.interpreter, *_site_options(python)]
    done = _run([*interpreter, "-m", "openhands_otel", "doctor", "--json", *options], environ)
    if isinstance(done, Finding):
        return [done]
    try:
        found = json.loads(done.stdout)["findings"]
        return [Finding(each["check"], Level(each["level"]), each["said"], each["cure"]) for each in found]
    except (ValueError, KeyError, TypeError):
        cure = "bring it to the version that is here: pip install -U openhands-otel"
        return [problem(_CHECK, f"its own openhands-otel cannot be asked: {_last_line(done)}", cure)]


def _run(words: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str] | Finding:
    try:
        return subprocess.run(
            words, env=dict(environ), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        return problem(_CHECK, f"{printable(words[0], 200)} cannot be run: {why}", "see whether that Python starts")


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return printable(lines[-1], 200) if lines else f"exit code {done.returncode}"


def _site_options(python: PythonProgram) -> list[str]:
    """Options that decide what this Python can import."""
    return [option for option in python.options if set(option[1:]) & set("IEsSP") and option[-1] not in "WX"]


def _source(python: PythonProgram) -> str:
    if python.kind == "code":
        return python.program
    try:
        return Path(python.program).read_bytes()[:_SOURCE_LIMIT].decode("utf-8", "replace")
    except OSError:
        return ""


def _is_binary(file: str) -> bool:
    try:
        with Path(file).open("rb") as content:
            return content.read(4).startswith(_BINARIES)
    except OSError:
        return sys.platform == "win32"
