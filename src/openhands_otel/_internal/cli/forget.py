"""``openhands-otel forget``: erases from a viewer's history what somebody does not want to be known any more."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from openhands_otel._internal.cli import CommandError
from openhands_otel._internal.cli.view import default_database
from openhands_otel._internal.collector.archive.forgetting import ErasureRequest
from openhands_otel._internal.collector.archive.forgotten import Erasure
from openhands_otel._internal.collector.archive.questions import erasures_from_file
from openhands_otel._internal.collector.archive.schema import UnusableDatabase
from openhands_otel._internal.collector.erasing import copies_of, erase
from openhands_otel._internal.collector.points.decode import MalformedRequest, MetricsUpdate, TooLarge, decode_metrics
from openhands_otel._internal.collector.points.series import Attributes
from openhands_otel._internal.collector.points.values import amount
from openhands_otel._internal.collector.state.placing import Cube, conversation_measure, place_of
from openhands_otel._internal.export.spool.file import Spool
from openhands_otel._internal.export.spool.folder import Busy, LockedFile, SpoolEntry, Unusable, entries, spool_folder
from openhands_otel._internal.money import ROUNDING, dollars
from openhands_otel._internal.spend.reading import BadQuestion, read_question
from openhands_otel._internal.terminal_text import printable
from openhands_otel.semconv import CONVERSATION_COST, CONVERSATION_ID, COST, LABEL_PREFIX, Metric
from openhands_otel.settings import SettingsError, ViewerSettings, load


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--service", metavar="NAME", help="what this service spent")
    parser.add_argument("--conversation", metavar="ID", help="what this conversation spent")
    parser.add_argument(
        "--label",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="what has this label; several times: all of them",
    )
    parser.add_argument(
        "--since", metavar="TIME", help="from here on, as `report` names times: 2026-11-20, 7d, today ..."
    )
    parser.add_argument("--until", metavar="TIME", help="until then; a day, week or month as a whole")
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and leave it")
    parser.add_argument("--yes", action="store_true", help="without a question")
    parser.add_argument("--database", metavar="FILE", type=Path, help="history to erase from (that of `view`)")
    parser.add_argument("--list", action="store_true", help="what was ever erased, and when")


def run(arguments: argparse.Namespace) -> int:
    """Erase what all of the options together name."""
    try:
        settings = load(ViewerSettings, database=arguments.database)
        database = settings.database or default_database()
        if arguments.list:
            return _list(erasures_from_file(database))
        request = _request(arguments, settings.timezone)
        spools = list(_spools(request))
        found = erase(database, request, dry_run=True)
        if not (found.rows or spools):
            print(printable(f"Nothing of that is in {database}."))
            return 0
        if arguments.dry_run or not arguments.yes:
            waiting = f", and {len(spools)} spools tell of it" if spools else ""
            print(printable(f"This would erase {_what(found)} in {database}{waiting}."))
        if arguments.dry_run:
            return 0
        if not (arguments.yes or _agreed()):
            print("Nothing was erased.")
            return 1
        done = erase(database, request)
    except (SettingsError, UnusableDatabase, BadQuestion) as error:
        raise CommandError(str(error)) from None
    print(printable(f"Erased {_what(done)} in {database}."))
    kept = sum([not _drop(entry, whole) for entry, whole in spools])
    for path in copies_of(database):
        print(printable(f"{path} is a copy of what was there before: delete it, it may say the same"), file=sys.stderr)
    return 1 if kept else 0


def _request(arguments: argparse.Namespace, zone: str | None) -> ErasureRequest:
    labels: list[tuple[str, str]] = []
    for text in arguments.label:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise CommandError(f"{printable(text, 80)} is no label: write NAME=VALUE", code=2)
        labels.append((name, value))
    asked = {name: [text] for name in ("since", "until") if (text := getattr(arguments, name)) is not None}
    times = read_question(asked, zone)
    request = ErasureRequest(arguments.service, arguments.conversation, tuple(labels), times.since, times.until)
    if request == ErasureRequest():
        raise CommandError("say what is to be erased: --service, --conversation, --label, --since or --until", code=2)
    return request


def _what(erasure: Erasure) -> str:
    return f"{dollars(erasure.cost)} of {erasure.calls} calls ({erasure.rows} rows)"


def _agreed() -> bool:
    if not (sys.stdin and sys.stdin.isatty()):
        raise CommandError("nobody can be asked here: add --yes to erase it", code=2)
    return input("It cannot be brought back. Erase it? [y/N] ").strip().lower() in ("y", "yes")


def _list(done: list[Erasure]) -> int:
    for each in done:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.at))
        print(printable(f"{when}  {_what(each)}  {each.asked}"))
    if not done:
        print("Nothing was ever erased.")
    return 0


# ---------------------------------------------------------------- spools


def _spools(request: ErasureRequest) -> Iterator[tuple[SpoolEntry, bool]]:
    """Spools that tell of what is to be erased, each with whether of nothing else."""
    try:
        found = entries(spool_folder(), whole=True)
    except Unusable:
        return
    for entry in found:
        if entry.spool is not None:
            meant = list(_meant(entry.spool, request))
            if any(meant):
                yield entry, all(meant) and not request.periodic


def _meant(spool: Spool, request: ErasureRequest) -> Iterator[bool]:
    """Of each process, or of each conversation with its labels, that a spool tells of: whether it is meant.

    Of a process too where it spent more than its conversations: that is of no conversation, and nobody else has it.
    """
    for part in spool.parts:
        try:
            updates = decode_metrics(part.body, json=False).updates
        except (MalformedRequest, TooLarge):
            continue
        for update in updates:
            who, spent = update.instance, _labels_of_spend(update)
            beside = _cost(update, COST) > _cost(update, CONVERSATION_COST) + ROUNDING
            if beside or (not spent and request.conversation is None):
                holds = request.holds_for(place_of(Cube.FLEET, "", who.resource, who.service, ()))
                yield holds and request.conversation is None
            for conversation, labels in spent.items():
                places = (place_of(Cube.CONVERSATIONS, "", who.resource, who.service, own) for own in labels or [()])
                yield from (request.holds_for(each) and request.conversation in (None, conversation) for each in places)


def _cost(update: MetricsUpdate, metric: Metric) -> float:
    return math.fsum(
        amount(point.value) for point in update.points if point.metric.name == metric.name and point.value is not None
    )


def _labels_of_spend(update: MetricsUpdate) -> dict[str, set[Attributes]]:
    """The conversations that are named, each with the labels that stand on what was spent there."""
    found: dict[str, set[Attributes]] = {}
    for point in update.points:
        conversation = str(dict(point.attributes).get(CONVERSATION_ID, ""))
        if not conversation:
            continue
        labels = found.setdefault(conversation, set())
        if conversation_measure(point.metric.name, point.attributes):
            labels.add(tuple(pair for pair in point.attributes if pair[0].startswith(LABEL_PREFIX)))
    return found


def _drop(entry: SpoolEntry, whole: bool) -> bool:
    name = printable(entry.id, 20)
    if not whole:
        print(f"the spool {name} tells of others too and stays: 'openhands-otel spool drop {name}'", file=sys.stderr)
        return False
    try:
        LockedFile.take(entry.path).remove()
    except Busy:
        print(f"the spool {name} is in use and stays: its process lives, or somebody sends it", file=sys.stderr)
        return False
    except OSError as error:
        print(f"the spool {name} cannot be dropped: {error.strerror}", file=sys.stderr)
        return False
    print(f"dropped the spool {name}")
    return True
