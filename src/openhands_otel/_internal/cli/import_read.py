"""``openhands-otel import --openhands``: hands to a viewer what OpenHands' own files say of the time before us."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from openhands_otel._internal.asking import endpoints
from openhands_otel._internal.asking.steps import Question
from openhands_otel._internal.cli import CommandError
from openhands_otel._internal.exact import ExactSum
from openhands_otel._internal.host.token_file import TokenFileError, read_token
from openhands_otel._internal.money import dollars
from openhands_otel._internal.openhands_files.finding import default_roots
from openhands_otel._internal.openhands_files.reading import Reading, presence_of, read
from openhands_otel._internal.spend.handover import Handover, handovers
from openhands_otel._internal.terminal_text import printable
from openhands_otel.client import DEFAULT_URL, StatsClient, StatsError

_MOST_LINES = 5
_TIMEOUT_S = 60.0


class _Importer(StatsClient):
    def hand_over(self, handover: Handover) -> None:
        self._run(Question(endpoints.IMPORT, body=handover.model_dump_json(exclude_defaults=True)))


def import_read(folders: Sequence[Path], url: str | None, token_file: Path | None) -> None:
    """Read what OpenHands left below some folders, or in its own, and have a viewer keep it. Raises CommandError."""
    roots = list(folders) or default_roots()
    if not roots:
        raise CommandError(
            "OpenHands has left no conversations where it keeps them: name a folder with --openhands DIR"
        )
    if url is not None and not urlsplit(url).scheme:
        raise CommandError(f"{url} is no address of a viewer: it should look like {DEFAULT_URL}", code=2)
    try:
        token = None if token_file is None else read_token(token_file, "--token-file")
        with _Importer(url or DEFAULT_URL, token, timeout_s=_TIMEOUT_S) as viewer:
            reading = _hand_over(roots, viewer)
            where = viewer.url
    except (StatsError, TokenFileError) as error:
        raise CommandError(str(error)) from None
    for path, reason in reading.skipped[:_MOST_LINES]:
        print(f"{printable(str(path), 300)}: {printable(reason, 300)}", file=sys.stderr)
    if (more := len(reading.skipped) - _MOST_LINES) > 0:
        print(f"and {more} more that could not be read", file=sys.stderr)
    cost = ExactSum(part for row in reading.rows for part in row.amount.cost.parts).value
    calls = sum(row.amount.calls for row in reading.rows)
    what = f"{dollars(cost)} of {calls} calls in {len(reading.conversations)} conversations"
    print(f"read {what} from OpenHands' files (a lower bound), handed to {where}")


def _hand_over(roots: Sequence[Path], viewer: _Importer) -> Reading:
    told = (each for each in viewer.presence() if not each.read)
    presence = presence_of((each.conversation_id, each.since, each.until) for each in told)
    reading = read(roots, presence=presence)
    modified = {name: about.modified for name, about in reading.conversations.items()}
    for handover in handovers(reading.rows, modified, presence):
        viewer.hand_over(handover)
    return reading
