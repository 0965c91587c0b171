"""Calls background subscribers: a bounded queue, and a thread of this package behind it.

What one of them raises, ``SystemExit`` included, ends with that call: it is counted and logged once, and the next
event is delivered. The thread is a daemon, so at the process's end somebody waits for what is in the queue
(``finish``), for a time; what has not been begun by then is taken out, counted and said in one line. Where no thread
can be had (Python refuses them once it has begun to end) whoever publishes does the work.
"""

from __future__ import annotations

import _thread
import queue
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Protocol

from openhands_otel._internal.guard import note_error
from openhands_otel._internal.log import logger
from openhands_otel._internal.once import Once
from openhands_otel.events import Event

QUEUE_SIZE = 10_000
"""Events that may wait; later ones are dropped and counted."""
THREAD_NAME = "openhands-otel-subscribers"


class BackgroundSubscriber(Protocol):
    """One who wants events on another thread."""

    def wants(self, event: Event) -> bool: ...

    def call(self, event: Event) -> None:
        """Whatever it raises is ours to deal with."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Mark:
    """Stands in the queue behind what was put before it."""

    reached: threading.Event = field(default_factory=threading.Event)


class Background:
    """The queue and the thread. ``put`` may be called in a finalizer or a signal's handler."""

    def __init__(self) -> None:
        # SimpleQueue.put may be called there; Queue.put may not.
        self._queue: queue.SimpleQueue[tuple[BackgroundSubscriber, Event] | _Mark] = queue.SimpleQueue()
        self._start_thread = Once()
        self._threads: set[int] = set()
        """Identifiers of the thread, and of those that do its work."""
        self._alone = False
        """Whether there is no thread."""
        self._left_s: float | None = None
        """Once the process ends: for how long one may still wait, in all."""
        self.hurry_s = 0.0
        """How long whoever publishes may still wait for what he publishes, in all."""
        self._counting = threading.RLock()
        self.dropped = 0

    def start(self) -> None:
        """Start the thread, now rather than with the first event."""
        if self._start_thread.claim():
            thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                self._alone = True

    def put(self, receiver: BackgroundSubscriber, event: Event) -> None:
        """Have ``receiver`` called with ``event``."""
        if self._queue.qsize() >= QUEUE_SIZE:
            self._drop(1)
            return
        self._queue.put((receiver, event))
        if self._start_thread.claim():
            try:
                # Not threading.Thread, which takes locks and waits.
                _thread.start_new_thread(self._run, ())
            except RuntimeError:
                self._alone = True
        if self._left_s is not None and not sys.is_finalizing():
            self.finish(self._left_s)
        elif self._alone:
            self.drain(0.0)
        elif self.hurry_s > 0.0:
            began = time.monotonic()
            self.drain(self.hurry_s)
            self.hurry_s -= time.monotonic() - began

    def drain(self, timeout_s: float) -> bool:
        """Wait until all that was put is delivered; False if that takes longer."""
        if _thread.get_ident() in self._threads:
            # Asked for inside of a callback.
            return False
        if self._alone:
            self._work_until(time.monotonic() + timeout_s)
            return self._queue.empty()
        if not self._start_thread.claimed:
            return True
        mark = _Mark()
        self._queue.put(mark)
        return mark.reached.wait(timeout_s)

    def finish(self, timeout_s: float) -> None:
        """The process ends: deliver, or count what is not delivered. What comes later is delivered as it comes."""
        self._left_s = timeout_s if self._left_s is None else min(timeout_s, self._left_s)
        began = time.monotonic()
        done = self.drain(self._left_s)
        self._left_s = max(0.0, self._left_s - (time.monotonic() - began))
        if not done:
            self._drop_rest()

    def _drop_rest(self) -> None:
        dropped = 0
        try:
            while True:
                item = self._queue.get_nowait()
                if isinstance(item, _Mark):
                    item.reached.set()
                elif item[0].wants(item[1]):
                    dropped += 1
        except queue.Empty:
            pass
        if dropped:
            self._drop(dropped)
            logger.warning(
                "%d events for background subscribers were dropped: at the end of the process they took too long",
                dropped,
            )

    def _drop(self, number: int) -> None:
        with self._counting:
            self.dropped += number

    def _run(self) -> None:
        self._threads.add(_thread.get_ident())
        while True:
            self._deliver(self._queue.get())

    def _work_until(self, until: float) -> None:
        """Do what the thread would do, until there is nothing left; the first is done in any case."""
        identifier = _thread.get_ident()
        self._threads.add(identifier)
        try:
            while True:
                self._deliver(self._queue.get_nowait())
                if self._left_s is not None and time.monotonic() >= until:
                    return
        except queue.Empty:
            return
        finally:
            self._threads.discard(identifier)

    def _deliver(self, item: tuple[BackgroundSubscriber, Event] | _Mark) -> None:
        try:
            if isinstance(item, _Mark):
                item.reached.set()
                return
            receiver, event = item
            if receiver.wants(event):
                receiver.call(event)
        except BaseException as error:
            # Of a thread of ours: nobody else is there to be ended by it.
            note_error("background subscriber", error)
