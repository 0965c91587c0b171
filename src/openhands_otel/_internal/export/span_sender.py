"""Sends ended spans in batches: a queue, and a thread of this package behind it.

OpenTelemetry's own batch processor does that too, but whoever waits for it cannot say for how long, is not told what
was lost, and at the process's end has to send by himself or start a thread, which Python then refuses. This one is
asked, as the flusher of the metrics is, and whoever asks waits as long as he has time. Size of queue and batch, and how
long a span waits for others, are those of the standard variables (``OTEL_BSP_*``).
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from openhands_otel._internal.export.config_file import standard
from openhands_otel._internal.guard import note_error
from openhands_otel._internal.log import logger

DELAY_MS: Final = 1000
"""How long spans wait for others where OTEL_BSP_SCHEDULE_DELAY says nothing: a killed process loses the last second."""
QUEUE_SIZE: Final = 2048
BATCH_SIZE: Final = 512
PATIENCE_S: Final = 2.0
LARGEST: Final = 86_400_000
"""Of those variables: milliseconds that are a day, or more spans than find room."""


@dataclass(slots=True, eq=False)
class FlushRequest:
    """Somebody wants everything sent that has ended by now."""

    until: float
    """Monotonic time until which he waits."""
    stop: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    delivered: bool = False


class SpanSender(SpanProcessor):
    """Takes ended spans; for any thread, also in a signal's handler."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._delay_s = _setting("OTEL_BSP_SCHEDULE_DELAY", DELAY_MS) / 1000
        self._most = _setting("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_SIZE)
        self._batch = min(_setting("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_SIZE), self._most)
        self._waiting: deque[ReadableSpan] = deque()
        self._bell: queue.SimpleQueue[FlushRequest | None] = queue.SimpleQueue()
        self._lost = False
        """Whether anything was, since somebody asked last."""
        self._full = False
        self._ended = False
        self._working = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="openhands-otel-spans", daemon=True)

    def start(self) -> bool:
        """Start the thread; False where none can be had, and whoever ends a span sends it."""
        try:
            self._thread.start()
        except RuntimeError:
            return False
        return True

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing to do yet."""

    def on_end(self, span: ReadableSpan) -> None:
        """Keep it for the next batch."""
        context = span.get_span_context()
        if context is None or not context.trace_flags.sampled:
            return
        if self._ended or len(self._waiting) >= self._most:
            self._lost = True
            if not self._full:
                self._full = True
                logger.warning("spans are dropped: more than %d wait to be sent", self._most)
            return
        self._waiting.append(span)
        if not self._thread.is_alive():
            self._work(lambda: None)
        elif len(self._waiting) >= self._batch:
            self._bell.put(None)

    def ask(self, timeout_s: float, stop: bool = False) -> FlushRequest:
        """Ask for everything to be sent, and do not wait."""
        asked = FlushRequest(time.monotonic() + timeout_s, stop)
        self._bell.put(asked)
        return asked

    def answered(self, asked: FlushRequest) -> bool:
        """Whether all was delivered by then."""
        if not self._thread.is_alive() and not self._ended:
            self._work(lambda: self._next(0.0))
        return asked.done.wait(max(0.0, asked.until - time.monotonic())) and asked.delivered

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """As OpenTelemetry has it."""
        return self.answered(self.ask(timeout_millis / 1000))

    def shutdown(self) -> None:
        """As OpenTelemetry has it."""
        self.answered(self.ask(PATIENCE_S, stop=True))

    def _run(self) -> None:
        with suppress_instrumentation():
            while not self._ended:
                self._turn(self._next(self._delay_s))

    def _work(self, wait: Callable[[], list[FlushRequest] | None]) -> None:
        """Do the thread's work here; whoever comes meanwhile leaves it to us."""
        if not self._working.acquire(blocking=False):
            return
        try:
            with suppress_instrumentation():
                self._turn(wait() or [])
        finally:
            self._working.release()

    def _next(self, timeout_s: float) -> list[FlushRequest]:
        """Sleep until spans are due or somebody asks."""
        asked: list[FlushRequest] = []
        try:
            first = self._bell.get(timeout=timeout_s)
            while True:
                if first is not None:
                    asked.append(first)
                first = self._bell.get_nowait()
        except queue.Empty:
            return asked

    def _turn(self, asked: list[FlushRequest]) -> None:
        self._ended = self._ended or any(each.stop for each in asked)
        try:
            self._send_all()
            if self._ended:
                self._exporter.shutdown()
        except BaseException as error:
            # It is our thread: not even SystemExit is for anybody else.
            self._lost = True
            note_error("SpanSender", error)
        for each in asked:
            each.delivered = not self._lost
            each.done.set()
        if asked:
            self._lost = False

    def _send_all(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
            if self._exporter.export(batch) is not SpanExportResult.SUCCESS:
                self._lost = True
        self._full = False


def _setting(name: str, otherwise: int) -> int:
    """A whole number above 0, as far as there is any use in it; what is none is ``otherwise``."""
    try:
        value = min(float(standard().environ.get(name, "")), LARGEST)
    except ValueError:
        return otherwise
    return int(value) if value >= 1 else otherwise
