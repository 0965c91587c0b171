"""``openhands-otel token``: gives out, lists and takes back the tokens of a viewer, each by a name of its own."""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import datetime
from pathlib import Path

from openhands_otel._internal.cli import CommandError
from openhands_otel._internal.host.named_tokens import (
    TOKEN_NAME,
    Grant,
    Right,
    TokensError,
    add,
    read,
    revoke,
    tokens_file,
)
from openhands_otel._internal.terminal_text import printable
from openhands_otel.settings import SettingsError, ViewerSettings, load


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    adding = actions.add_parser("add", help="make one, and print it this once")
    adding.add_argument("name", metavar="NAME", help="whose it is, as in ci or alice@laptop")
    adding.add_argument("--send", action="store_true", help="it may send telemetry")
    adding.add_argument("--look", action="store_true", help="it may look at the page, the API and /metrics")
    adding.add_argument("--service", metavar="NAME", help="of this service (service.name) alone")
    adding.add_argument("--out", type=Path, metavar="FILE", help="write it into a new file instead of printing it")
    listing = actions.add_parser("list", help="who has one, for what, since when")
    listing.add_argument("--json", action="store_true", help="as JSON")
    revoking = actions.add_parser("revoke", help="take one back: it is refused within a second")
    revoking.add_argument("name", metavar="NAME", help="as 'list' shows it")
    for action in (adding, listing, revoking):
        action.add_argument(
            "--file", type=Path, metavar="FILE", help="the viewer's file of tokens (one in your state directory)"
        )


def run(arguments: argparse.Namespace) -> int:
    """Do one of the three."""
    try:
        path: Path = arguments.file or _default()
        if arguments.action == "add":
            return _add(path, arguments)
        if arguments.action == "revoke":
            revoke(path, arguments.name)
            print(f"The token '{printable(arguments.name, 80)}' is revoked.")
            return 0
        return _list(read(path), arguments.json)
    except TokensError as error:
        raise CommandError(str(error)) from None


def _default() -> Path:
    try:
        return load(ViewerSettings).tokens_file or tokens_file()
    except SettingsError as error:
        raise CommandError(str(error)) from None
    except RuntimeError:
        raise CommandError("there is no home directory to keep tokens in: set XDG_STATE_HOME or --file") from None


def _add(path: Path, arguments: argparse.Namespace) -> int:
    rights = frozenset(right for right in Right if getattr(arguments, right))
    if not rights:
        raise CommandError("say what it is for: --send, --look, or both", code=2)
    if not TOKEN_NAME.fullmatch(arguments.name):
        raise CommandError("a name has up to 64 letters, digits, and . _ @ - behind the first", code=2)
    if arguments.service is not None and not arguments.service.strip():
        raise CommandError("--service wants a name", code=2)
    if arguments.out is not None and arguments.out.exists():
        raise CommandError(f"{arguments.out} is there already: choose another file", code=2)
    secret = add(path, arguments.name, rights, arguments.service)
    described = Grant(arguments.name, rights, arguments.service).described
    if arguments.out is None:
        print(f"The token '{arguments.name}' may {described}. It is shown this once:", file=sys.stderr)
        print(secret)
        return 0
    try:
        descriptor = os.open(arguments.out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secret + "\n")
    except OSError as error:
        revoke(path, arguments.name)
        raise CommandError(f"{arguments.out} cannot be written: {error.strerror}; no token was made") from None
    print(printable(f"The token '{arguments.name}' may {described}. It is in {arguments.out}, and nowhere else."))
    return 0


def _list(grants: list[Grant], as_json: bool) -> int:
    if as_json:
        print(
            json.dumps(
                [
                    {
                        "name": each.name,
                        "rights": sorted(each.rights),
                        "service": each.service,
                        "created": each.created,
                    }
                    for each in grants
                ],
                indent=2,
            )
        )
        return 0
    if not grants:
        print("No token was given out: openhands-otel token add NAME --send | --look")
        return 0
    rows = [(each.name, each.described, f"{datetime.fromtimestamp(each.created):%Y-%m-%d %H:%M}") for each in grants]
    widths = [max(len(row[column]) for row in (("name", "may", ""), *rows)) for column in range(2)]
    for name, may, since in (("name", "may", "since"), *rows):
        print(printable(f"{name:{widths[0]}}  {may:{widths[1]}}  {since}"))
    return 0
