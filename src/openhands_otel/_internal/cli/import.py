"""``openhands-otel import``: sends the files of ``OPENHANDS_OTEL_FILE``, and spools, to a viewer or collector."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from openhands_otel._internal.cli import CommandError
from openhands_otel._internal.cli.sending import add_destination, replay_config, sender_to
from openhands_otel._internal.export.otlp_file.reading import NotTaken, files_below, requests_in
from openhands_otel._internal.export.spool.delivery import Send
from openhands_otel._internal.export.spool.file import NEWEST, Owed, SpooledRequest, owed
from openhands_otel._internal.money import dollars
from openhands_otel._internal.terminal_text import printable

_MOST_LINES = 5
"""Of one file, that say what is wrong with it."""
_SHOWN = 300


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "paths", nargs="*", type=Path, metavar="PATH", help="a file, or a folder with files at any depth; in any order"
    )
    parser.add_argument(
        "--openhands",
        nargs="?",
        action="append",
        type=Path,
        const=None,
        default=[],
        metavar="DIR",
        help="what OpenHands' own files say, of the time before us too: in DIR, or where it keeps them",
    )
    add_destination(parser, "viewer or collector (OTEL_EXPORTER_OTLP_ENDPOINT, else the viewer of this machine)")


def run(arguments: argparse.Namespace) -> int:
    """Send all files; what came before counts once."""
    if not (arguments.paths or arguments.openhands):
        raise CommandError("name files or folders to import, or --openhands for OpenHands' own conversations", code=2)
    failed = _import_files(arguments) if arguments.paths else 0
    if arguments.openhands:
        try:
            from openhands_otel._internal.cli.import_read import import_read
        except ModuleNotFoundError as error:
            raise CommandError(f"--openhands needs '{error.name}': pip install 'openhands-otel[viewer]'") from None
        import_read([path for path in arguments.openhands if path], arguments.endpoint, arguments.token_file)
    return failed


def _import_files(arguments: argparse.Namespace) -> int:
    config = replay_config(arguments)
    if config.problem:
        raise CommandError(config.problem, code=2)
    send = sender_to(config)
    failed = 0
    files = [file for path in arguments.paths for file in _files(path)]
    for path in dict.fromkeys(files):
        troubles, sent = _import(path, send)
        failed |= bool(troubles)
        name = printable(str(path), _SHOWN)
        for trouble in troubles[:_MOST_LINES]:
            print(f"{name}: {printable(trouble, _SHOWN)}", file=sys.stderr)
        if (more := len(troubles) - _MOST_LINES) > 0:
            print(f"{name}: and {more} more of the kind", file=sys.stderr)
        if sent is not None:
            print(f"imported {name}: {dollars(sent.cost)} of {sent.calls} calls to {config.shown}")
    if not files:
        raise CommandError("there is nothing to import: files end in .jsonl or .spool")
    return failed


def _files(path: Path) -> list[Path]:
    try:
        return files_below(path)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from None


def _import(path: Path, send: Send) -> tuple[list[str], Owed | None]:
    """What went wrong, and what was sent; None where nothing was."""
    troubles: list[str] = []
    parts: list[SpooledRequest] = []
    for found in requests_in(path):
        if isinstance(found, NotTaken):
            troubles.append(str(found))
            continue
        body = found.SerializeToString()
        outcome = send(body)
        if not (outcome.delivered or outcome.refused):
            raise CommandError(f"{path} was not imported to its end: {outcome.reason}; import it again, it counts once")
        if outcome.reason:
            troubles.append(outcome.reason)
        if outcome.delivered:
            parts.append(SpooledRequest(NEWEST, 0, body))
    return troubles, owed(parts) if parts else None
