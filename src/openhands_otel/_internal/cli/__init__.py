"""The command ``openhands-otel``: one module a command, imported only when it is the one to run.

A command module has ``configure(parser)`` and ``run(arguments) -> exit code``. What goes wrong in a way that a user
can mend is raised as CommandError and printed as one line on standard error.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

from openhands_otel._internal.terminal_text import printable
from openhands_otel._internal.version import __version__

PROGRAM = "openhands-otel"
PIPE_WIDTH = 160
"""Characters of a line where there is no terminal: what reads a pipe wants whole lines."""

COMMANDS = {
    "bundle": "make a folder that instruments every Python whose PYTHONPATH names it, with nothing installed there",
    "canvas": "the page of what was spent inside Agent Canvas: install, uninstall, status",
    "demo": "watch a real OpenHands agent's cost rise: no key, no Docker, no network",
    "doctor": "find the broken link: versions, environment, address, token, TLS; a probe sent and read back",
    "forget": "erase what was spent by a service, in a conversation, under a label or in a period, and whose it was",
    "import": "send what processes wrote into files to a viewer: in any order, from any machine, counted once",
    "notices": "send a test message to each target that a viewer tells what needs a person",
    "run": "run a command under auto-instrumentation: openhands-otel run -- CMD ...",
    "view": "receive telemetry and show it: embedded collector and live page",
    "report": "what was spent: by day, model, conversation or label, over any time, from every source there is",
    "spool": "what could not be delivered and lies on this disk: list, send, drop",
    "status": "one line about now, for prompts and status bars: spent today, by the hour, who needs you",
    "token": "who may send to a viewer or look at it: give out tokens by name, list them, take them back",
    "watch": "show a viewer's numbers in this terminal, or once as JSON",
}


class CommandError(Exception):
    """What happened and what to do, in one line; ``code`` becomes the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class CommandModule(Protocol):
    """Shape of a command module."""

    def configure(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, arguments: argparse.Namespace) -> int: ...


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message} (see '{self.prog} --help')", code=2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` names; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]
        # A shell's >&- closes it: then nobody reads, and that is all.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # Where a terminal knows few characters, the others are shown by number: better than no line at all.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except CommandError as error:
        print(f"{PROGRAM}: {printable(str(error))}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        # Else the interpreter tries to write the rest at its end, and says so once more.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        print(f"{PROGRAM}: what there is to say cannot be written: {error.strerror}", file=sys.stderr)
        return 1


def _dispatch(words: list[str]) -> int:
    about = "What OpenHands agents spend, seen live, exactly, anywhere."
    parser = _OneLineParser(prog=PROGRAM, description=about, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = next((word for word in words if not word.startswith("-")), None)
    modules: dict[str, CommandModule] = {}
    for name, summary in COMMANDS.items():
        description = summary[0].upper() + summary[1:] + "."
        command = commands.add_parser(name, help=summary, description=description, allow_abbrev=False)
        if name == named:
            modules[name] = _load(name)
            modules[name].configure(command)
    arguments = parser.parse_args(words)
    return modules[arguments.command].run(arguments)


def _load(name: str) -> CommandModule:
    try:
        return cast(CommandModule, importlib.import_module(f"{__name__}.{name}"))
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "openhands_otel":
            raise
        raise CommandError(
            f"'{name}' needs the package '{error.name}': pip install 'openhands-otel[otlp,viewer]'"
        ) from None
