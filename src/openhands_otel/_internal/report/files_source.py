"""Spend from files of ``OPENHANDS_OTEL_FILE`` and from spools: what a viewer would say that had imported them all.

So they are given to one without a network and without a file, which knows that the same point may come twice, and late.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from openhands_otel._internal.collector.absent import Unavailable
from openhands_otel._internal.collector.archive.history import Archive
from openhands_otel._internal.collector.archive.questions import answer
from openhands_otel._internal.collector.archive.spend import Present, presence
from openhands_otel._internal.collector.housekeeping import DATES_KEPT_S, Housekeeping
from openhands_otel._internal.collector.points.decode import MalformedRequest, TooLarge, decode_metrics
from openhands_otel._internal.collector.store import Store
from openhands_otel._internal.export.otlp_file.reading import NotTaken, files_below, requests_in
from openhands_otel._internal.report.errors import SourceError
from openhands_otel._internal.spend.questions import SpendQuestion
from openhands_otel._internal.spend.reading import BadQuestion
from openhands_otel.stats import Spend

_CONVERSATIONS: Final = 2_000
_SAVE_EVERY: Final = 200
"""Requests after which memory is made free."""


def ask_files(paths: Iterable[Path], question: SpendQuestion) -> tuple[Spend, list[Present], list[tuple[Path, str]]]:
    """What they say, who held which conversation when, and what of them was not taken. Raises SourceError."""
    try:
        files = [file for path in paths for file in files_below(path)]
    except OSError as error:
        raise SourceError(f"{error.filename} cannot be read: {error.strerror}") from None
    if not files:
        raise SourceError("there are no files of metrics in what --files names: they end in .jsonl or .spool")
    try:
        return asyncio.run(_ask(dict.fromkeys(files), question))
    except BadQuestion as error:
        raise SourceError(str(error)) from None


async def _ask(files: Iterable[Path], question: SpendQuestion) -> tuple[Spend, list[Present], list[tuple[Path, str]]]:
    archive = Archive(None)
    store = Store(archive)
    store.restore(await archive.open())
    keeper = Housekeeping(store, _CONVERSATIONS, DATES_KEPT_S)
    skipped: list[tuple[Path, str]] = []
    taken = 0
    for file in files:
        for found in requests_in(file):
            if isinstance(found, NotTaken):
                skipped.append((file, str(found)))
                continue
            try:
                refusals = await store.receive(
                    decode_metrics(found.SerializeToString(), json=False), time.time_ns(), replayed=True
                )
            except (MalformedRequest, TooLarge, Unavailable) as error:
                skipped.append((file, str(error)))
                continue
            if refusals.count:
                skipped.append((file, f"{refusals.count:,} of its points are refused"))
            taken += 1
            if taken % _SAVE_EVERY == 0:
                await _save(keeper)
    await _save(keeper)
    try:
        spent = await archive.read(lambda connection: answer(connection, question))
        return spent, await archive.read(presence), skipped
    finally:
        await archive.close()


async def _save(keeper: Housekeeping) -> None:
    while await keeper.save():
        pass
