"""The ends of a process, and its forks: what to do so that nothing is lost and no exit takes long.

* Normal exit, ``sys.exit``, an uncaught exception, SIGINT: ``atexit``. By then Python starts no thread any more (3.12),
  those that run go on. Handlers that were registered before ours are called after it, and may still spend.
* SIGTERM would end Python without ``atexit``. Where the default handler stands, ours flushes, puts the default back and
  sends the signal again, so that the exit status stays what it was. uvicorn saves a handler that it finds and calls it
  after its own shutdown.
* ``os.exec*`` ends a program and no handler of Python's is called; should it fail, the program goes on.
* A forked child calls ``after_fork``. On SIGTERM it waits much less than other processes: whoever ends several waits
  for all of them.
* Children of ``multiprocessing`` skip ``atexit`` and run the finalizers of ``multiprocessing.util``, from which they
  take their parent's out at their start; what is registered to run after that puts ours in. They get the default
  SIGTERM back: workers of a pool wait for a semaphore that one of them may have died with, and a handler written in
  Python is called only when the wait ends. Seen: one in sixty pools was never terminated.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from openhands_otel._internal.guard import guarded
from openhands_otel._internal.launch.doors import before_exec

SIGTERM_IN_CHILD_S = 0.2
LATE_PRIORITY = -100
"""Exit priority behind those of multiprocessing's own queues and children, which may still bring events."""


def main_has_returned() -> bool:
    """Whether the interpreter has begun to end: then ``atexit`` may call nobody who comes now."""
    return not threading.main_thread().is_alive()


class ProcessEnd:
    """Calls ``stop`` (or ``flush``, where the process goes on for longer) and ``after_fork`` while watching.

    Both are given seconds; over the whole end of the process they are ``patience_s`` at most.
    """

    def __init__(
        self,
        stop: Callable[[float], object],
        flush: Callable[[float], object],
        after_fork: Callable[[], object],
        patience_s: float,
        takes_sigterm: bool = True,
    ) -> None:
        self._takes_sigterm = takes_sigterm
        self._stop = stop
        self._flush = flush
        self._after_fork = after_fork
        self._patience_s = patience_s
        self._watching = False
        self._fork_hook = False
        self._worker_hook = False
        self._forked = False
        self._exec_patience_s = patience_s
        """Of its own: an ``exec`` that fails, as most do on the way through PATH, leaves the end its time."""

    def watch(self) -> None:
        """Begin to watch."""
        if self._watching:
            return
        self._watching = True
        atexit.register(self._on_exit)
        before_exec.append(self._on_exec)
        self._take_sigterm()
        if not self._fork_hook and hasattr(os, "register_at_fork"):
            # Cannot be taken back, so it is registered once and asks whether we still watch.
            self._fork_hook = True
            os.register_at_fork(after_in_child=self._in_child)
        self._join_worker()

    def forget(self) -> None:
        """Stop watching."""
        if not self._watching:
            return
        self._watching = False
        atexit.unregister(self._on_exit)
        before_exec.remove(self._on_exec)
        self._give_sigterm_back()

    def _take_sigterm(self) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if self._takes_sigterm and in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def _give_sigterm_back(self) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        # Two accesses of a bound method are equal, not identical.
        if in_main_thread and signal.getsignal(signal.SIGTERM) == self._on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _on_exit(self) -> None:
        self.wait_for(self._stop)

    @guarded
    def _on_exec(self) -> None:
        began = time.monotonic()
        self._flush(self._exec_patience_s)
        self._exec_patience_s = max(0.0, self._exec_patience_s - (time.monotonic() - began))

    def _on_worker_exit(self) -> None:
        # Threads that are no daemons may outlive a worker's finalizers.
        if self._watching:
            self.wait_for(self._flush)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        try:
            self._patiently(self._stop, min(self._patience_s, SIGTERM_IN_CHILD_S) if self._forked else self._patience_s)
        finally:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def wait_for(self, end: Callable[[float], object]) -> None:
        """Give ``end`` the seconds that are left."""
        self._patiently(end, self._patience_s)

    def _patiently(self, end: Callable[[float], object], seconds: float) -> None:
        began = time.monotonic()
        end(seconds)
        self._patience_s = max(0.0, self._patience_s - (time.monotonic() - began))

    def _in_child(self) -> None:
        if not self._watching:
            return
        self._forked = True
        self._after_fork()
        self._join_worker()

    def _join_worker(self) -> None:
        """Have the finalizers of a worker call us: of one that has begun its work, or is about to."""
        util: Any = sys.modules.get("multiprocessing.util")
        if util is None:
            return
        if not self._worker_hook:
            self._worker_hook = True
            util.register_after_fork(self, ProcessEnd._register_finalizer)
        if sys.modules["multiprocessing.process"].parent_process() is not None:
            self._register_finalizer()

    def _register_finalizer(self) -> None:
        self._give_sigterm_back()
        util: Any = sys.modules["multiprocessing.util"]
        util.Finalize(None, self._on_worker_exit, exitpriority=LATE_PRIORITY)
