"""The one thread that takes events into the ledger and sends what changed.

It sleeps while nothing happens. An event wakes it; it takes in whatever else arrives within the window, chooses what
has changed of the fleet's and the conversations' series under the ledger's lock, and sends it in one request outside of
it. Only this thread records histograms, encodes and sends, so none of that can hold an agent up. Its own spans
and metrics are suppressed (it would otherwise trace its exports).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Protocol

from opentelemetry.instrumentation.utils import suppress_instrumentation

from openhands_otel._internal.clock import now_ns
from openhands_otel._internal.export.delivery_log import DeliveryLog
from openhands_otel._internal.export.transport import Outcome
from openhands_otel._internal.guard import note_error
from openhands_otel._internal.ledger.intake import Intake, Taken, Wake
from openhands_otel._internal.metrics.self_observation import SelfObservation
from openhands_otel._internal.process.schedule import Schedule

INSIST_S = 0.15
"""Pause between tries to deliver the last request."""
LONGEST_DOZE_S = 1.0
"""While a flush is held back, events wait in the queue: taken in together they cost half. Not for ever, though."""
PAUSE_AFTER_ERROR_S = 0.05
LEAST_TIMEOUT_S = 0.05
MOST_REQUESTS = 100
"""Requests that one flush may take beyond its first, so that it ends whatever happens meanwhile."""


class Sender(Protocol):
    """What a flush does; see ``metrics/request_builder.py``."""

    def prepare(self, everything: bool, last: bool, complete: bool) -> Callable[[float], Outcome]:
        """Choose what to send, under the ledger's lock; the returned function sends it within a time.

        Unless it is to be ``complete``, distributions wait.
        """
        ...

    @property
    def beat_in_s(self) -> float | None:
        """In how long something is to be said whether or not anything has changed; None: no time is set."""
        ...

    @property
    def has_more(self) -> bool:
        """Whether the last delivery left something to say (more conversations, the ends of closed ones)."""
        ...


class Watcher(Protocol):
    """Who keeps what is not delivered; see ``spool_keeper.py``."""

    def sending(self) -> None:
        """A request is sent now."""
        ...

    def sent(self, outcome: Outcome, all_of_it: bool, heartbeat: bool) -> None:
        """A request was delivered or was not; ``all_of_it``: nothing is left to say."""
        ...

    def write(self) -> None:
        """Have on disk what is not delivered, now."""
        ...


class Flusher:
    """Owns the thread. ``settle`` is called after events were taken in, before anything is chosen to be sent.

    It says whether distributions of ours have changed.
    """

    def __init__(
        self,
        intake: Intake,
        sender: Sender | None,
        settle: Callable[[], bool],
        schedule: Schedule,
        observation: SelfObservation,
        timeout_s: float,
        watcher: Watcher | None = None,
    ) -> None:
        self._watcher = watcher
        self._intake = intake
        self._sender = sender
        self._settle = settle
        self._schedule = schedule
        self._observation = observation
        self._timeout_s = timeout_s
        self._stopping = False
        self._ended = False
        self._used = False
        self._reached = False
        """Whether a collector has ever taken something: where there never was one, nobody waits for it."""
        self._log = DeliveryLog("metrics", "they are kept, trying again quietly")
        self._cpu_at = 0.0
        self._until: float | None = None
        """Until when (monotonic) a turn may take that is not made by the thread."""
        self._taking_turns = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="openhands-otel-flusher", daemon=True)
        self.alone = False
        """Whether no thread could be had: then whoever asks does the work."""

    def start(self) -> None:
        """Start the thread."""
        try:
            self._thread.start()
        except RuntimeError:
            # Python has begun to end.
            self.alone = True

    @property
    def due(self) -> bool:
        """Whether it is time to send, by the schedule."""
        return self._schedule.wait_s(time.monotonic()) <= 0

    def flush(self, timeout_s: float, last: bool = False) -> bool:
        """Have everything sent that was put until now; False if that failed or did not end in time.

        ``last``: this may be the end, and if it is not, what follows says so. Safe in a signal handler: the queue takes
        no Python lock, and the Event is nobody else's.
        """
        return self.answered(self.ask(timeout_s, last=last))

    def stop(self, timeout_s: float) -> bool:
        """As ``flush``, and end the thread. A signal's handler may call this while the interrupted thread does."""
        if not self._stopping:
            self._stopping = True
            return self.answered(self.ask(timeout_s, stop=True, last=True))
        deadline = time.monotonic() + timeout_s
        while not self.ended and time.monotonic() < deadline:
            time.sleep(0.002)
        return self.ended

    @property
    def ended(self) -> bool:
        """Whether nothing more will be sent."""
        return self._ended

    def ask(self, timeout_s: float, stop: bool = False, last: bool = False) -> Wake:
        """Ask for everything to be sent, and do not wait."""
        wake = Wake(stop, last, until=time.monotonic() + timeout_s)
        self._intake.ask(wake)
        return wake

    def answered(self, wake: Wake) -> bool:
        """Whether all was delivered by then."""
        if threading.current_thread() is self._thread or self._ended:
            return wake.delivered
        if not self._thread.is_alive():
            self._take_turns(wake)
        return wake.done.wait(max(0.0, wake.until - time.monotonic())) and wake.delivered

    def _take_turns(self, wake: Wake) -> None:
        """Do the thread's work here. Whoever comes meanwhile, or interrupts us, waits as for the thread."""
        if not self._taking_turns.acquire(blocking=False):
            return
        try:
            self._until = wake.until
            with suppress_instrumentation():
                while not (wake.done.is_set() or self._ended):
                    self._guarded_turn()
        finally:
            self._taking_turns.release()

    def _run(self) -> None:
        with suppress_instrumentation():
            while not self._ended:
                self._guarded_turn()

    def _guarded_turn(self) -> None:
        try:
            self._turn()
        except BaseException as error:
            # It is our thread: not even SystemExit is for anybody else.
            note_error("Flusher", error)
            time.sleep(PAUSE_AFTER_ERROR_S)

    def _turn(self) -> None:
        wait_s = self._schedule.wait_s(time.monotonic())
        if not self._schedule.pending:
            self._intake.wait(wait_s)
        elif wait_s > 0:
            self._intake.doze(min(wait_s, LONGEST_DOZE_S))
        taken = self._intake.take()
        try:
            self._answer(taken)
        finally:
            # Whoever waits is not kept waiting by an error of ours, and one who ends has ended.
            self._ended = self._ended or any(wake.stop for wake in taken.wakes)
            for wake in taken.wakes:
                wake.done.set()

    def _answer(self, taken: Taken) -> None:
        now = time.monotonic()
        if self._settle_guarded():
            self._schedule.want_distributions(now)
        for since, urgent in ((taken.urgent_since, True), (taken.lazy_since, False)):
            if since is not None:
                self._used = True
                # A busy agent keeps this thread from the interpreter for milliseconds: they are part of the window.
                age_s = (now_ns() - since) / 1e9
                self._schedule.want(now - min(max(age_s, 0.0), 1.0), urgent)
        last = [wake.until for wake in taken.wakes if wake.last]
        # A process in which nothing happened has nothing to say at its end.
        delivered = True
        if (taken.wakes and self._used) or self._schedule.wait_s(now) <= 0:
            complete = bool(taken.wakes) or self._schedule.has_distributions(now)
            delivered = self._send_all(self._schedule.is_heartbeat(now), bool(last), complete)
            self._intake.go_on()
            if last and not delivered and self._reached:
                delivered = self._insist(max(last))
        if taken.wakes and not delivered and self._watcher is not None:
            self._watcher.write()
        for wake in taken.wakes:
            wake.delivered = delivered

    def _settle_guarded(self) -> bool:
        try:
            return self._settle()
        except Exception as error:
            # One value that cannot be recorded holds no others up.
            note_error("Flusher", error)
            return True

    def _send_all(self, everything: bool, last: bool, complete: bool) -> bool:
        outcome = self._send(everything, last, complete)
        for _ in range(MOST_REQUESTS):
            if not outcome.delivered or self._sender is None or not self._sender.has_more:
                return outcome.delivered
            # Still the last words, if they were: whoever hears them is not to take what follows for a return.
            outcome = self._send(False, last, complete)
        self._schedule.want(time.monotonic(), urgent=False)
        return False

    def _insist(self, until: float) -> bool:
        """The last request failed: try again while somebody waits, for a collector that was there may be restarting."""
        while time.monotonic() + INSIST_S < until:
            time.sleep(INSIST_S)
            if self._send_all(everything=False, last=True, complete=True):
                return True
        return False

    def _send(self, everything: bool, last: bool, complete: bool) -> Outcome:
        with self._intake.lock if self._sender is not None else nullcontext():
            send = self._sender.prepare(everything, last, complete) if self._sender is not None else None
        if self._watcher is not None:
            self._watcher.sending()
        outcome = Outcome(True) if send is None else self._try(send)
        # What was taken in since the last flush is part of what this one costs.
        now_s = time.thread_time()
        cpu_s, self._cpu_at = now_s - self._cpu_at, now_s
        self._observation.flushes += 1
        self._observation.flush_cpu_s += cpu_s
        if outcome.delivered:
            self._reached = True
            self._schedule.flushed(time.monotonic(), cpu_s, everything, complete)
        else:
            self._observation.failed_exports += 1
            self._schedule.failed(time.monotonic(), outcome.retry_after_s, complete)
        if self._sender is not None:
            self._schedule.beat_in(self._sender.beat_in_s, time.monotonic())
        self._log.note(outcome)
        if self._watcher is not None and self._sender is not None:
            self._watcher.sent(outcome, not self._sender.has_more, everything)
        return outcome

    def _try(self, send: Callable[[float], Outcome]) -> Outcome:
        try:
            return send(self._timeout_s if self._until is None else self._limited_s(self._until))
        except Exception as error:
            note_error("Transport.send", error)
            return Outcome(False, type(error).__name__)

    def _limited_s(self, until: float) -> float:
        return max(LEAST_TIMEOUT_S, min(self._timeout_s, until - time.monotonic()))
