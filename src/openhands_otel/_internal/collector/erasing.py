"""Has a file forget something while no viewer is at it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from openhands_otel._internal.collector.absent import Unavailable
from openhands_otel._internal.collector.archive.database import Lost
from openhands_otel._internal.collector.archive.forgetting import ErasureRequest
from openhands_otel._internal.collector.archive.forgotten import Erasure
from openhands_otel._internal.collector.archive.history import Archive
from openhands_otel._internal.collector.archive.schema import UnusableDatabase
from openhands_otel._internal.collector.housekeeping import Housekeeping
from openhands_otel._internal.collector.receive.receiver import Receiver
from openhands_otel._internal.collector.receive.span_intake import SpanIntake
from openhands_otel._internal.collector.store import CONVERSATION_LIMIT, Store


def erase(database: Path, request: ErasureRequest, dry_run: bool = False) -> Erasure:
    """Have a file forget what is asked for; in a dry run tell only what that would come to.

    Raises UnusableDatabase where there is no such file, a viewer has it, or it cannot be written.
    """
    if not database.exists():
        raise UnusableDatabase(f"there is no {database}: a viewer that keeps its history there makes it")
    try:
        return asyncio.run(_erase(database, request, dry_run))
    except (sqlite3.Error, OSError, Lost, Unavailable) as error:
        raise UnusableDatabase(
            f"{database} cannot be written ({error}): see that nobody reads it and that there is room, and try again"
        ) from None


async def _erase(database: Path, request: ErasureRequest, dry_run: bool) -> Erasure:
    archive = Archive(database)
    try:
        store = Store(archive)
        store.restore(await archive.open())
        # A viewer that was killed may have taken what is not in the database yet.
        housekeeping = Housekeeping(store, CONVERSATION_LIMIT, retention_s=0.0)
        await Receiver(store, SpanIntake(store, 0.0, 0)).take_again()
        await housekeeping.stop()
        if any(True for _ in store.journal.entries()):
            raise UnusableDatabase(
                f"what the last viewer took cannot be saved in {database}: start `openhands-otel view` to see why"
            )
        return await archive.forget(request, dry_run)
    finally:
        await archive.close()


def copies_of(database: Path) -> list[Path]:
    """Files beside it that have what it held once: of an older layout, damaged, replaced."""
    database = database.resolve()
    kinds = ("layout-", "damaged-", "replaced-")
    names = [f"{database.name}.{kind}" for kind in kinds]
    return sorted(path for path in database.parent.iterdir() if path.name.startswith(tuple(names)))
