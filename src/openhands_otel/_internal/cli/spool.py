"""``openhands-otel spool``: lists, sends and drops what processes could not deliver and left on this disk."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from openhands_otel._internal.cli import CommandError
from openhands_otel._internal.cli.sending import add_destination, replay_config, sender_to
from openhands_otel._internal.export.spool.delivery import deliver
from openhands_otel._internal.export.spool.folder import Busy, LockedFile, SpoolEntry, Unusable, entries, spool_folder
from openhands_otel._internal.money import dollars
from openhands_otel._internal.terminal_text import printable

_SHOWN = 200


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="what there is, to where, and why it is here")
    listing.add_argument("--json", action="store_true", help="as JSON")
    send = actions.add_parser("send", help="send it, to where it was meant for or elsewhere; sent twice counts once")
    _add_ids(send, "all but those of processes that live")
    add_destination(send, "where to send it instead, as in OTEL_EXPORTER_OTLP_ENDPOINT")
    drop = actions.add_parser("drop", help="delete it, without a question")
    _add_ids(drop, "none")
    drop.add_argument("--all", action="store_true", help="all but those of processes that live")


def _add_ids(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("ids", nargs="*", metavar="ID", help=f"as 'list' shows them ({default})")


def run(arguments: argparse.Namespace) -> int:
    """Do one of the three."""
    try:
        folder = spool_folder()
    except Unusable as error:
        raise CommandError(str(error)) from None
    found = entries(folder, whole=True)
    if arguments.action == "list":
        return _list(folder, found, arguments.json)
    if arguments.action == "drop":
        if not arguments.ids and not arguments.all:
            raise CommandError("name what is to be dropped, as 'openhands-otel spool list' shows it, or --all", code=2)
        return _drop(_named(found, arguments.ids))
    return _send(_named(found, arguments.ids), arguments)


def _named(found: Iterable[SpoolEntry], ids: list[str]) -> list[SpoolEntry]:
    if not ids:
        return [entry for entry in found if not entry.living]
    chosen: dict[Path, SpoolEntry] = {}
    for each in ids:
        matches = [entry for entry in found if each and entry.path.name.startswith(each)]
        if not matches:
            raise CommandError(f"there is no spool {printable(each, 80)}: 'openhands-otel spool list' shows them")
        chosen |= {entry.path: entry for entry in matches}
    return list(chosen.values())


def _list(folder: Path, found: list[SpoolEntry], as_json: bool) -> int:
    if as_json:
        print(json.dumps([_record(entry) for entry in found], indent=2))
        return 0
    if not found:
        print(f"Nothing waits in {folder}.")
        return 0
    for entry in found:
        print(_line(entry))
    waiting = [entry.spool.owed for entry in found if entry.spool is not None]
    cost, calls = sum(each.cost for each in waiting), sum(each.calls for each in waiting)
    print(f"{len(found)} spool{'s' * (len(found) > 1)}, {dollars(cost)} of {calls} calls, in {folder}")
    return 0


def _line(entry: SpoolEntry) -> str:
    spool = entry.spool
    if spool is None:
        return f"{printable(entry.id, 20)}  {_state(entry)}"
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(spool.written / 1e9))
    what = f"{dollars(spool.owed.cost)} of {spool.owed.calls} calls"
    words = (
        entry.id,
        when,
        f"{what:>24}",
        spool.service,
        f"to {spool.destination.shown}",
        _state(entry),
    )
    return "  ".join(printable(word, _SHOWN) for word in words)


def _state(entry: SpoolEntry) -> str:
    if entry.spool is None:
        return entry.problem
    if entry.living:
        return f"its process lives and goes on trying: {entry.spool.reason}"
    if entry.spool.refused:
        return f"refused: {entry.spool.refused}"
    return f"waits: {entry.spool.reason}"


def _record(entry: SpoolEntry) -> dict[str, object]:
    spool = entry.spool
    about: dict[str, object] = {"id": entry.id, "file": str(entry.path), "bytes": entry.size}
    if spool is None:
        return about | {"state": "damaged", "reason": entry.problem}
    return about | {
        "state": "living" if entry.living else "refused" if spool.refused else "waiting",
        "reason": spool.refused or spool.reason,
        "service": spool.service,
        "pid": spool.pid,
        "instance": spool.instance,
        "destination": spool.destination.shown,
        "accumulated_cost": spool.owed.cost,
        "llm_calls": spool.owed.calls,
        "started_unix_nano": spool.started,
        "written_unix_nano": spool.written,
    }


def _drop(chosen: list[SpoolEntry]) -> int:
    failed = 0
    for entry in chosen:
        name = printable(entry.id, 20)
        try:
            LockedFile.take(entry.path).remove()
        except Busy:
            print(f"{name} is in use: its process lives, or somebody sends it", file=sys.stderr)
            failed = 1
            continue
        except OSError as error:
            print(f"{name} cannot be dropped: {error.strerror}", file=sys.stderr)
            failed = 1
            continue
        spool = entry.spool
        what = entry.problem if spool is None else f"{dollars(spool.owed.cost)} of {spool.owed.calls} calls"
        print(f"dropped {name}: {what}")
    if not chosen:
        print("Nothing to drop.")
    return failed


def _send(chosen: list[SpoolEntry], arguments: argparse.Namespace) -> int:
    failed = 0
    for entry in chosen:
        name = printable(entry.id, 20)
        if entry.spool is None:
            print(f"{name} is left alone: {entry.problem}", file=sys.stderr)
            failed = 1
            continue
        config = replay_config(arguments, entry.spool.destination)
        sent = deliver(entry.path, sender_to(config))
        if sent is None:
            print(f"{name} is in use: its process lives, or somebody sends it", file=sys.stderr)
            failed = 1
        elif sent.left:
            print(f"{name} stays here: {printable(sent.left, 300)}", file=sys.stderr)
            failed = 1
        else:
            print(f"sent {name}: {dollars(sent.spool.owed.cost)} of {sent.spool.owed.calls} calls to {config.shown}")
    if not chosen:
        print("Nothing to send.")
    return failed
