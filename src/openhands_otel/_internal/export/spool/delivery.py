"""Sends spools, request by request, and leaves on disk what its destination refuses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from openhands_otel._internal.export.spool.destination import Destination
from openhands_otel._internal.export.spool.file import MARK, NotASpool, Spool
from openhands_otel._internal.export.spool.folder import Busy, LockedFile, entries
from openhands_otel._internal.export.transport import Outcome
from openhands_otel._internal.log import logger

Send = Callable[[bytes], Outcome]
"""Sends one request."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one spool. ``left`` is why it is on disk still; empty if it is not."""

    spool: Spool
    left: str = ""
    refused: bool = False
    """Whether it was, by whom it was meant for."""


def waiting_for(folder: Path, matches: Callable[[Destination], bool], complained: set[Path]) -> list[Path]:
    """Spools for a destination, oldest first, that nobody is at and that were not refused there.

    What cannot be read is named once, in a line; ``complained`` remembers.
    """
    found: list[tuple[int, Path]] = []
    for entry in entries(folder, whole=False):
        if entry.spool is None:
            if not entry.living and entry.path not in complained:
                complained.add(entry.path)
                logger.warning("the spool %s is left alone: %s", entry.path, entry.problem)
        elif not entry.living and not entry.spool.refused and matches(entry.spool.destination):
            found.append((entry.spool.started, entry.path))
    return [path for _, path in sorted(found)]


class Delivery:
    """One spool on its way. ``steps`` sends a request at a time; afterwards ``outcome`` says what became of it.

    Raises Busy, NotASpool or OSError where it cannot be had.
    """

    def __init__(self, path: Path, send: Send) -> None:
        self._file = LockedFile.take(path)
        self._send = send
        try:
            self._spool = self._file.read()
        except BaseException:
            self._file.release()
            raise
        self.outcome = Sent(self._spool, "it was not sent to the end")

    def steps(self) -> Iterator[None]:
        """Send one request with each step."""
        complaint = ""
        try:
            for part in self._spool.to_send:
                outcome = self._send(part.body)
                if not (outcome.delivered or outcome.refused):
                    self.outcome = Sent(self._spool, outcome.reason)
                    return
                # Quarter-hours that are too old for a back end are no loss: the newest values hold their money.
                if outcome.reason and part.kind != MARK:
                    complaint = outcome.reason
                yield
            self._settle(complaint)
        finally:
            self._file.release()

    def _settle(self, complaint: str) -> None:
        if not complaint:
            self._file.remove()
            self.outcome = Sent(self._spool)
            return
        self.outcome = Sent(self._spool, f"refused: {complaint}", refused=True)
        try:
            self._file.write(replace(self._spool, refused=complaint, written=time.time_ns()))
        except OSError as error:
            logger.warning("the spool %s cannot be marked as refused (%s)", self._file.path, error.strerror)


def deliver(path: Path, send: Send) -> Sent | None:
    """Send one spool; None where somebody else is at it, or has been."""
    try:
        delivery = Delivery(path, send)
    except (Busy, FileNotFoundError, NotASpool):
        return None
    for _ in delivery.steps():
        pass
    return delivery.outcome
