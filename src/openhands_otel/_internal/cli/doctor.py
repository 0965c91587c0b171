"""``openhands-otel doctor``: sends a probe by the configured way, reads it back, and names the broken link."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from openhands_otel._internal.cli import PROGRAM, CommandError
from openhands_otel._internal.cli import run as run_command
from openhands_otel._internal.doctor import surroundings
from openhands_otel._internal.doctor.command import examined_inside, look_at_program, surroundings_of
from openhands_otel._internal.doctor.finding import Finding, Level, note, problem
from openhands_otel._internal.doctor.versions import check_versions
from openhands_otel._internal.host.network import VIEWER_URL
from openhands_otel._internal.launch.command import read_python
from openhands_otel._internal.launch.footprint import COMMAND
from openhands_otel._internal.terminal_text import printable
from openhands_otel.settings import SettingsError

_FORMAT_VERSION = 1
_OF_ANOTHER = frozenset(("versions", "entry point"))
"""What is looked at from outside already, or is of our own Python where the command has none to be seen."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.usage = f"{PROGRAM} doctor [options] [-- CMD ...]"
    parser.epilog = f"With CMD: as '{PROGRAM} run -- CMD ...' would start it. Exit code 1 where something is broken."
    parser.add_argument("--viewer", metavar="URL", help="where the probe is read back, if that is not the endpoint")
    parser.add_argument("--prometheus", metavar="URL", help="the same, of a Prometheus behind a collector")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="file with the token to show where it is read")
    parser.add_argument("--json", action="store_true", help="JSON: each finding with check, level, said, cure")
    parser.add_argument("words", metavar="CMD ...", nargs=argparse.REMAINDER, help="a command to look from")


def run(arguments: argparse.Namespace) -> int:
    """Print what was found; 1 if something is broken."""
    if arguments.viewer and arguments.prometheus:
        raise CommandError("--viewer and --prometheus: name the one at which the probe ends up", code=2)
    for option, url in (("--viewer", arguments.viewer), ("--prometheus", arguments.prometheus)):
        if url is not None and not run_command.is_http_url(url):
            raise CommandError(f"{option} is no URL: give one such as {VIEWER_URL}", code=2)
    words: list[str] = list(arguments.words)
    if words[:1] == ["--"]:
        del words[0]
    found = _of_command(words, arguments) if words else _of_this(arguments)
    broken = sum(each.level is Level.PROBLEM for each in found)
    if arguments.json:
        findings = [asdict(each) for each in found]
        print(json.dumps({"format_version": _FORMAT_VERSION, "healthy": not broken, "findings": findings}, indent=2))
    else:
        _show(found)
    return 1 if broken else 0


def _of_this(arguments: argparse.Namespace) -> list[Finding]:
    found = check_versions(surroundings.look())
    try:
        from openhands_otel._internal.doctor.examination import examine
    except ModuleNotFoundError as error:
        # The plain install has nothing to send with; where that is all that is missing it has been said.
        if any(each.level is Level.PROBLEM for each in found):
            return found
        return [*found, problem("versions", f"{error.name} is not there", "pip install 'openhands-otel[otlp]'")]
    try:
        return found + examine(arguments.viewer, arguments.prometheus, arguments.token_file)
    except SettingsError as error:
        return [*found, Finding("environment", Level.PROBLEM, str(error), "mend that variable")]


def _of_command(words: Sequence[str], arguments: argparse.Namespace) -> list[Finding]:
    file = run_command.found(words[0])
    python = read_python(file, words)
    way = run_command.way_in()
    environ = run_command.environment_of(words, python, None, way)
    # Nothing is to complain of what it lacks: that is what is looked for.
    environ.pop(COMMAND, None)
    found = look_at_program(file, python)
    if way.problem:
        found.append(note("command", f"openhands-otel run has no bundle: {way.problem}"))
    if python is not None:
        has = surroundings_of(python, environ)
        if isinstance(has, Finding):
            return [*found, has]
        found += check_versions(has, bundled=way.problem is None)
        if has["packages"]["openhands-otel"] is None:
            if any(each.level is Level.PROBLEM for each in found):
                return found
            # What a bundle brings there asks no questions: the same environment is looked at from here.
            python = None
    inside = examined_inside(python, _options(arguments), environ)
    return [*found, *(each for each in inside if each.check not in _OF_ANOTHER)]


def _options(arguments: argparse.Namespace) -> list[str]:
    """Those that say where the probe is read back."""
    given = {
        "--viewer": arguments.viewer,
        "--prometheus": arguments.prometheus,
        "--token-file": arguments.token_file and str(arguments.token_file.absolute()),
    }
    return [word for option, value in given.items() if value for word in (option, value)]


def _show(found: Sequence[Finding]) -> None:
    width = max(len(each.check) for each in found)
    for each in found:
        cure = f" -> {each.cure}" if each.cure else ""
        print(printable(f"{each.level:<8} {each.check:<{width}}  {each.said}{cure}"))
