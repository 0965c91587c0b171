"""Keeps on disk what is not acknowledged, from the first failed delivery on until everything is.

A thread of its own writes the file each second if anything has changed: the flusher may be waiting for an answer that
never comes, and a killed process is to lose a second at most. For the same reason an answer that is late by half a
second counts as a failure until it comes. Where no thread can be had any more, at the interpreter's end, whoever asks
writes.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass

from opentelemetry.instrumentation.utils import suppress_instrumentation

from openhands_otel._internal.background_task import BackgroundTask
from openhands_otel._internal.clock import now_ns
from openhands_otel._internal.export.spool.destination import Destination
from openhands_otel._internal.export.spool.file import ACKNOWLEDGED, MARK, Owed, Spool, SpooledRequest, encode, owed
from openhands_otel._internal.export.spool.folder import SPOOL_SUFFIX, LockedFile, Unusable, make_room, usable_folder
from openhands_otel._internal.export.transport import Outcome
from openhands_otel._internal.guard import note_error
from openhands_otel._internal.ledger.intake import Intake
from openhands_otel._internal.log import logger
from openhands_otel._internal.metrics.request_builder import RequestBuilder
from openhands_otel._internal.money import dollars
from openhands_otel._internal.process.replays import Replays

EVERY_S = 1.0
PATIENCE_S = 0.5
"""How long an answer may take before what was sent is written down."""
LARGEST_SHARE = 0.05
"""Of one core, that writing may take: a file that takes longer to write is written less often."""


@dataclass(frozen=True, slots=True)
class Whose:
    """Of which process a spool is, and for whom."""

    instance: str
    service: str
    destination: Destination


class SpoolKeeper:
    """One process's file. The flusher calls ``sending`` and ``sent``; any thread may call the rest.

    Once something was delivered, ``replays`` sends what other processes have left.
    """

    def __init__(self, sender: RequestBuilder, intake: Intake, whose: Whose, replays: Replays) -> None:
        self._replays = replays
        self._look_due = True
        """Whether to look for others' spools after the next delivery that leaves nothing to say."""
        self._sender = sender
        self._intake = intake
        self._whose = whose
        self._writing = threading.Lock()
        self._bell = threading.Event()
        """Rung where the thread is to look sooner than it would."""
        self._has_work = threading.Event()
        """Stands while something is on its way, or is not delivered: while it does not, the thread sleeps."""
        self._sent_at: float | None = None
        """When what is on its way was sent (monotonic)."""
        self._file: LockedFile | None = None
        self._down = False
        self._has_thread = False
        self._closed = False
        self._reason = ""
        self._refused_in_part = ""
        self._started = 0
        self._written: object = None
        """What stood when it was written last."""
        self._owed = Owed()
        self._told = Owed()
        """What the last line about it said: an end may be tried more than once."""
        self._trouble = ""
        """Why there is no file, or only an old one."""

    def sending(self) -> None:
        """A request is sent now."""
        self._sent_at = time.monotonic()
        if not self._has_work.is_set():
            self._has_work.set()
        if not self._has_thread:
            self._start()

    def sent(self, outcome: Outcome, all_of_it: bool, heartbeat: bool) -> None:
        """A request was delivered or was not; ``all_of_it``: nothing is left to say."""
        self._sent_at = None
        if heartbeat or not outcome.delivered:
            self._look_due = True
        if not outcome.delivered:
            self._failed(outcome.reason)
            return
        self._delivered(outcome.reason, all_of_it)
        if all_of_it and self._look_due:
            self._look_due = False
            self._replays.look()

    def _failed(self, reason: str) -> None:
        if self._down and self._reason == reason:
            return
        with self._writing:
            self._begin(reason)
        self._bell.set()

    def _delivered(self, complaint: str, all_of_it: bool) -> None:
        """With ``complaint``, not all points of it were taken."""
        self._refused_in_part = complaint or self._refused_in_part
        if not (all_of_it and self._down):
            return
        with self._writing:
            self._down = False
            self._written = None
            if not self._sender.refused and self._file is not None:
                self._file.remove()
                self._file = None

    def write(self) -> None:
        """Write now what has changed; raises nothing."""
        with self._writing:
            self._write()

    def close(self, timeout_s: float, for_good: bool = True) -> None:
        """The process, or its pipeline, ends: write what is left, say where it lies, leave it to others.

        Unless it is ``for_good``, something may come yet. For any thread, also in a signal handler: it takes no lock
        that the handler may have interrupted.
        """
        if self._closed or not (self._down or self._refused_in_part or self._sender.refused):
            return
        deadline = time.monotonic() + timeout_s
        BackgroundTask("SpoolKeeper.close", lambda: self._close(for_good)).wait_until(deadline)

    def abandon(self) -> None:
        """In a forked child: the file is the parent's."""
        if self._file is not None:
            self._file.release()

    def _start(self) -> None:
        self._has_thread = True
        # At the interpreter's end there are none any more.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._run, name="openhands-otel-spool", daemon=True).start()

    def _run(self) -> None:
        with suppress_instrumentation():
            pause_s = PATIENCE_S
            while not self._closed:
                self._has_work.wait()
                self._bell.wait(pause_s)
                self._bell.clear()
                began = time.thread_time()
                self._look()
                pause_s = max(EVERY_S, (time.thread_time() - began) / LARGEST_SHARE) if self._down else PATIENCE_S

    def _look(self) -> None:
        with self._writing:
            self._has_work.clear()
            sent_at = self._sent_at
            if sent_at is not None and time.monotonic() - sent_at >= PATIENCE_S and not self._down:
                self._begin("there is no answer yet")
            if self._down or sent_at is not None:
                self._has_work.set()
            self._write()

    def _begin(self, reason: str) -> None:
        self._reason = reason
        self._down = True
        self._started = self._started or now_ns()
        self._has_work.set()

    def _close(self, for_good: bool) -> None:
        with suppress_instrumentation(), self._writing:
            if self._closed:
                return
            self._write(last=True)
            self._say_farewell()
            if for_good:
                self._closed = True
                self._has_work.set()
                self._bell.set()
                if self._file is not None:
                    self._file.release()

    def _write(self, last: bool = False) -> None:
        in_part = last and not self._down and bool(self._refused_in_part)
        # What is closed is others' to send.
        if self._closed or not (self._down or in_part or (last and self._sender.refused)):
            return
        try:
            with self._intake.lock:
                self._intake.drain()
                standing = (self._intake.applied, self._reason, in_part)
                if standing == self._written:
                    return
                # After a refusal of some points, nobody knows of which.
                parts = self._sender.spool(everything=in_part) if self._down or in_part else self._sender.refused
                if in_part:
                    parts = [part for part in parts if part.kind != ACKNOWLEDGED]
            self._owed = owed(parts)
            self._save(parts, self._refused_in_part if in_part or not self._down else "")
            self._written = standing
            self._trouble = ""
        except (OSError, Unusable) as error:
            self._note_trouble(error)
        except Exception as error:
            note_error("SpoolKeeper.write", error)

    def _save(self, parts: list[SpooledRequest], refused: str) -> None:
        if not (self._owed.cost or self._owed.calls):
            # Nobody's money: the end of a status, say.
            if self._file is not None:
                self._file.remove()
                self._file = None
            return
        spool = Spool(
            instance=self._whose.instance,
            service=self._whose.service,
            pid=os.getpid(),
            destination=self._whose.destination,
            reason=self._reason or refused,
            started=self._started or now_ns(),
            written=now_ns(),
            owed=self._owed,
            refused=refused,
            parts=parts,
        )
        folder = usable_folder()
        file = self._file or LockedFile(folder / f"{self._whose.instance}{SPOOL_SUFFIX}")
        size = len(encode(spool))
        if make_room(folder, size, file.path) < size:
            spool = spool.without(MARK, ACKNOWLEDGED)
        file.write(spool)
        self._file = file

    def _note_trouble(self, error: OSError | Unusable) -> None:
        what = str(error) if isinstance(error, Unusable) else f"it cannot be written ({error.strerror})"
        if not self._trouble:
            logger.warning("what is not delivered is not kept on disk: %s", what)
        self._trouble = what

    def _say_farewell(self) -> None:
        if not (self._owed.cost or self._owed.calls) or self._owed == self._told:
            return
        self._told = self._owed
        what = f"{dollars(self._owed.cost)} of {self._owed.calls} calls"
        where, why = self._whose.destination.shown, self._reason or self._refused_in_part
        if self._file is None:
            logger.warning("%s did not reach %s (%s) and is lost: %s", what, where, why, self._trouble or "no spool")
            return
        kept = f"kept in {self._file.path}"
        if self._trouble:
            kept = f"only in part {kept}: {self._trouble}"
        if self._down:
            logger.warning("%s did not reach %s (%s); %s until somebody sends there again", what, where, why, kept)
        else:
            logger.warning("of %s some was refused by %s (%s); %s", what, where, why, kept)
