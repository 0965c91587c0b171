"""``openhands-otel notices``: whether those whom a viewer tells what needs a person can be told."""

from __future__ import annotations

import argparse
import asyncio

from openhands_otel._internal.cli import CommandError
from openhands_otel._internal.collector.notices.targets import Target, TargetError, targets_of
from openhands_otel._internal.terminal_text import printable
from openhands_otel.settings import SettingsError, ViewerSettings, load

TEST = "This is a test: what needs you will be told here."


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("test", help="send a message to each target of OPENHANDS_OTEL_VIEWER_NOTIFY and _NOTIFY_FILE")


def run(arguments: argparse.Namespace) -> int:
    """Send one to each; the exit code is 1 if one could not be told."""
    try:
        targets = targets_of(load(ViewerSettings))
    except (SettingsError, TargetError) as error:
        raise CommandError(str(error)) from None
    if not targets:
        raise CommandError("there is no target: name some in OPENHANDS_OTEL_VIEWER_NOTIFY (see docs/notices.md)")
    told = asyncio.run(_tell(targets))
    for target, taken in zip(targets, told, strict=True):
        print(printable(f"{target.name}: {'sent' if taken else 'NOT sent: is its URL right, and can it be reached?'}"))
    return 0 if all(told) else 1


async def _tell(targets: list[Target]) -> list[bool]:
    return await asyncio.gather(*(target.send(TEST) for target in targets))
