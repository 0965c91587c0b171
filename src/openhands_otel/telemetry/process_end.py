"""The ends of a process, and its forks: what to do so that nothing is lost and nobody waits long.

* Normal exit, ``sys.exit``, an uncaught exception, SIGINT: ``atexit``.
* SIGTERM would end Python without ``atexit``. Where the default handler stands, ours flushes, puts the default back and
  sends the signal again, so that the exit status stays what it was. uvicorn saves a handler that it finds and calls it
  after its own shutdown.
* A forked child calls ``after_fork``; the parent's wait on SIGTERM is not its own. Children of ``multiprocessing`` skip
  ``atexit`` and run ``multiprocessing.util.Finalize``.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType


class ProcessEnd:
    """Calls ``flush`` when the process ends and ``after_fork`` in a forked child, while watching."""

    def __init__(self, flush: Callable[[], object], after_fork: Callable[[], object]) -> None:
        self._flush = flush
        self._after_fork = after_fork
        self._watching = False
        self._fork_hook = False

    def watch(self) -> None:
        """Begin to watch."""
        if self._watching:
            return
        self._watching = True
        atexit.register(self._flush)
        self._take_sigterm()
        if not self._fork_hook and hasattr(os, "register_at_fork"):
            # Cannot be taken back, so it is registered once and asks whether we still watch.
            self._fork_hook = True
            os.register_at_fork(after_in_child=self._in_child)

    def forget(self) -> None:
        """Stop watching."""
        if not self._watching:
            return
        self._watching = False
        atexit.unregister(self._flush)
        self._give_sigterm_back()

    def _take_sigterm(self) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def _give_sigterm_back(self) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        # Two accesses of a bound method are equal, not identical.
        if in_main_thread and signal.getsignal(signal.SIGTERM) == self._on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._flush()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _in_child(self) -> None:
        if not self._watching:
            return
        self._give_sigterm_back()
        self._after_fork()
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            util.Finalize(None, self._flush, exitpriority=0)
