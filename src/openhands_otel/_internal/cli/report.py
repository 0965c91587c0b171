"""``openhands-otel report``: what was spent, by anything, over any time, from every source there is."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from openhands_otel._internal.cli import PIPE_WIDTH, CommandError
from openhands_otel._internal.host.state_folder import history_file
from openhands_otel._internal.host.token_file import TokenFileError, read_token
from openhands_otel._internal.report import comparison, documents
from openhands_otel._internal.report.errors import SourceError
from openhands_otel._internal.report.evaluation import ATTEMPT, INSTANCE_LABEL, joined, read_evaluation
from openhands_otel._internal.report.focus import BY, as_focus
from openhands_otel._internal.report.sources import Sources, described
from openhands_otel._internal.report.table import table
from openhands_otel._internal.spend.conditions import Condition, ConditionError
from openhands_otel._internal.spend.grouping import UNITS
from openhands_otel._internal.spend.periods import ALL, PeriodError, between
from openhands_otel._internal.spend.questions import SpendQuestion
from openhands_otel._internal.spend.rows import Dimension, Unit
from openhands_otel._internal.spend.zones import ZoneError, zone_of
from openhands_otel._internal.terminal_text import printable
from openhands_otel.settings import SettingsError, ViewerSettings, load

COMPARE: Final = "compare"
_DEFAULT_BY: Final = (Unit.DAY, Dimension.MODEL)
_DEFAULT_LAST: Final = "7d"
_DEFAULT_HOST: Final = "127.0.0.1"


class _Once(argparse.Action):
    """A source of which there is one: of two the first would be left out without a word."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: object, option: str | None = None
    ) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option} is given twice, and two may hold the same dollars: name one of them")
        setattr(namespace, self.dest, values)


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.usage = "%(prog)s [options]\n       %(prog)s compare A B [options]"
    parser.add_argument(
        "words",
        nargs="*",
        metavar="compare A B",
        help="two conversations (the beginning of an id), LABEL=VALUE or periods (2026-11, yesterday) side by side",
    )
    asked_for = parser.add_argument_group("what")
    asked_for.add_argument(
        "--by",
        action="append",
        metavar="NAME,...",
        help="hour, day, week, month, conversation, run, model, provider, role, agent, service, a label;"
        " several are nested (day,model)",
    )
    asked_for.add_argument("--since", metavar="TIME", help="2026-11-20, 2026-11-20T14:00, 2026-11, yesterday, 7d")
    asked_for.add_argument("--until", metavar="TIME", help="the same; a day, week or month is included")
    asked_for.add_argument("--last", metavar="LENGTH", help=f"12h, 30d, 2w, 3m, {ALL} ({_DEFAULT_LAST})")
    asked_for.add_argument("--timezone", metavar="NAME", help="whose days and hours (this machine's)")
    asked_for.add_argument(
        "--where", action="append", default=[], metavar="NAME=PATTERN", help="only these: model=gpt-5*, team!=payments"
    )
    asked_for.add_argument(
        "--top", type=int, metavar="N", help="the N dearest of each group, and the others as one row"
    )
    asked_for.add_argument(
        "--evaluation",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="join with an evaluation's output.jsonl, by the labels instance and attempt",
    )
    shape = parser.add_argument_group("how").add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="JSON, whose shape is documented and versioned")
    shape.add_argument("--csv", action="store_true", help="CSV, safe to open in a spreadsheet")
    shape.add_argument("--markdown", action="store_true", help="Markdown, such as for a job's summary")
    shape.add_argument("--focus", action="store_true", help="FOCUS rows (CSV), for FinOps tools")
    source = parser.add_argument_group("from where (unless given: this machine's viewer and OpenHands' own files)")
    source.add_argument("--viewer", action=_Once, metavar="URL", help="a viewer")
    source.add_argument("--database", type=Path, action=_Once, metavar="FILE", help="a viewer's database")
    source.add_argument("--prometheus", action=_Once, metavar="URL", help="a Prometheus that agents send to")
    source.add_argument(
        "--files", type=Path, action="append", default=[], metavar="PATH", help="files of metrics (OPENHANDS_OTEL_FILE)"
    )
    source.add_argument(
        "--openhands", type=Path, action="append", default=[], metavar="DIR", help="OpenHands' own conversations"
    )
    source.add_argument("--token-file", type=Path, metavar="FILE", help="file with the bearer token to show")
    source.add_argument("--verbose", action="store_true", help="name the files that could not be read")


def run(arguments: argparse.Namespace) -> int:
    """Print the report."""
    try:
        text = _report(arguments)
    except (SourceError, PeriodError, ConditionError, ZoneError, TokenFileError, SettingsError) as error:
        raise CommandError(str(error)) from None
    print(text)
    return 0


def _report(arguments: argparse.Namespace) -> str:
    settings = load(ViewerSettings)
    zone = zone_of(arguments.timezone if arguments.timezone is not None else settings.timezone)
    words, now = arguments.words, time.time()
    sources = _sources(arguments, settings)
    if not words:
        text = _one(arguments, sources, zone, now)
    elif words[0] == COMPARE and len(words) == 3:
        text = _two(arguments, sources, zone, now)
    else:
        cure = "write 'report compare A B'" if words[0] == COMPARE else f"'{printable(words[0], 40)}' is no option"
        raise CommandError(f"{cure} (see 'openhands-otel report --help')", code=2)
    if arguments.verbose:
        for line in described(sources.skipped):
            print(printable(line), file=sys.stderr)
    return text


def _one(arguments: argparse.Namespace, sources: Sources, zone: ZoneInfo, now: float) -> str:
    names = _names(arguments.by)
    if arguments.focus:
        if arguments.top is not None:
            raise CommandError("--focus has all rows: leave out --top", code=2)
        names = tuple(dict.fromkeys([*BY, *(name for name in names or () if name not in UNITS)]))
    evaluation = None
    if arguments.evaluation:
        names = names or (INSTANCE_LABEL, ATTEMPT)
        if INSTANCE_LABEL not in names or arguments.top is not None:
            raise CommandError(
                f"--evaluation joins by the label '{INSTANCE_LABEL}', without --top: add it to --by", code=2
            )
        evaluation = read_evaluation(arguments.evaluation)
        sources.skipped += evaluation.skipped
    since, until = _period(arguments, zone, now, _DEFAULT_LAST)
    question = SpendQuestion(names or _DEFAULT_BY, zone, since, until, _conditions(arguments), _top(arguments.top))
    spend = sources.answer(question)
    if evaluation is not None:
        spend = joined(spend, evaluation)
    if arguments.json:
        return documents.as_json(spend)
    if arguments.csv:
        return documents.as_csv(spend)
    if arguments.markdown:
        return documents.as_markdown(spend)
    return as_focus(spend) if arguments.focus else table(spend, _width())


def _two(arguments: argparse.Namespace, sources: Sources, zone: ZoneInfo, now: float) -> str:
    unusable = next((name for name in ("by", "top", "focus", "evaluation") if getattr(arguments, name)), None)
    if unusable is not None:
        raise CommandError(f"compare has no --{unusable}", code=2)
    since, until = _period(arguments, zone, now, ALL)
    # A Prometheus does not know conversations; elsewhere they tell how many there were, and how they ended.
    by = () if arguments.prometheus else (Dimension.CONVERSATION,)
    base = SpendQuestion(by, zone, since, until, _conditions(arguments))
    sides: list[comparison.Side] = []
    for name in arguments.words[1:]:
        side = comparison.Side(name, sources.answer(comparison.question_of(name, base, now)))
        comparison.check(side, zone)
        sides.append(side)
    one, other = sides
    if arguments.json:
        return comparison.as_json(one, other)
    if arguments.csv:
        return comparison.as_csv(one, other)
    if arguments.markdown:
        return comparison.as_markdown(one, other)
    return comparison.as_table(one, other, _width())


def _names(given: Sequence[str] | None) -> tuple[str, ...]:
    """Of ``--by``, in order, each once."""
    if given is None:
        return ()
    names = [name.strip() for each in given for name in each.split(",")]
    if not all(names):
        raise CommandError("--by has an empty name: write names with commas between them, as in day,model", code=2)
    return tuple(dict.fromkeys(names))


def _top(given: int | None) -> int | None:
    if given is not None and given < 1:
        raise CommandError("--top is a number of rows from 1 on", code=2)
    return given


def _conditions(arguments: argparse.Namespace) -> tuple[Condition, ...]:
    return tuple(map(Condition.of, arguments.where))


def _period(
    arguments: argparse.Namespace, zone: ZoneInfo, now: float, otherwise: str
) -> tuple[float | None, float | None]:
    """Begin and end; ``otherwise`` is the last that is meant where nothing is said."""
    last = arguments.last
    if last is None and arguments.since is None and arguments.until is None:
        last = otherwise
    return between(arguments.since, arguments.until, last, now, zone, option="--")


def _sources(arguments: argparse.Namespace, settings: ViewerSettings) -> Sources:
    token = None if arguments.token_file is None else read_token(arguments.token_file)
    return Sources(
        viewer=arguments.viewer,
        database=arguments.database,
        prometheus=arguments.prometheus,
        files=arguments.files,
        folders=arguments.openhands,
        token=token,
        machine_viewer=f"http://{_DEFAULT_HOST}:{settings.port or 4318}",
        machine_database=settings.database or _history_file(),
    )


def _history_file() -> Path | None:
    try:
        return history_file()
    except RuntimeError:
        return None


def _width() -> int:
    """Of the terminal."""
    return shutil.get_terminal_size((PIPE_WIDTH, 24)).columns
