"""The process's pipeline over the process's life: started when OpenHands is imported, renewed in a forked child.

In a child the parent's threads are gone, and its ledger, queue and connections are the parent's. What the child spends
is counted from 0 under an instance id of its own. A child that never calls OpenHands pays for one sleeping thread: the
new pipeline is built on it when the first event comes.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from openhands_otel.bus import Bus
from openhands_otel.events import Event
from openhands_otel.guard import guarded
from openhands_otel.ledger import ConversationSnapshot
from openhands_otel.settings import Settings
from openhands_otel.telemetry.pipeline import Pipeline
from openhands_otel.telemetry.process_end import ProcessEnd

logger = logging.getLogger("openhands_otel")

Build = Callable[[], Pipeline]


class Runtime:
    """Feeds the bus's events to a pipeline from ``start`` to ``stop``."""

    def __init__(self, bus: Bus, build: Build, settings: Settings) -> None:
        self._bus = bus
        self._build = build
        self._exit_timeout_s = settings.exit_timeout_s
        self._source: _Source | None = None
        self._end = ProcessEnd(flush=self._flush_at_end, after_fork=self._after_fork)
        self._remove_sink: Callable[[], None] | None = None

    def start(self) -> None:
        """Build the pipeline and let events in."""
        if self._source is not None:
            return
        pipeline = self._build()
        pipeline.start()
        self._source = _Source(pipeline)
        self._remove_sink = self._bus.add_sink(self._put)
        self._end.watch()

    def stop(self) -> None:
        """Send what is left and end the pipeline."""
        source, self._source = self._source, None
        if source is None:
            return
        self._end.forget()
        if self._remove_sink is not None:
            self._remove_sink()
        source.stop(self._exit_timeout_s)

    def flush(self, timeout_s: float) -> bool:
        """Send all that happened until now; False if that did not end in time."""
        return self._source is None or self._source.flush(timeout_s)

    def snapshot(self, conversation_id: str) -> ConversationSnapshot | None:
        """What this process knows of one conversation."""
        return None if self._source is None else self._source.snapshot(conversation_id)

    def _put(self, event: Event) -> None:
        source = self._source
        if source is not None:
            source.put(event)

    def _flush_at_end(self) -> None:
        if self._source is not None:
            self._source.stop(self._exit_timeout_s)

    @guarded
    def _after_fork(self) -> None:
        self._bus.restart_after_fork()
        if self._source is not None:
            self._source = _Source.later(self._build)


class _Source:
    """A pipeline, or a queue in front of one that is built when the first event comes (in a forked child)."""

    def __init__(self, pipeline: Pipeline | None) -> None:
        self._pipeline = pipeline
        self._waiting: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._expected = pipeline is not None
        self._stopped = False

    @classmethod
    def later(cls, build: Build) -> _Source:
        """A source whose pipeline is still to be built."""
        source = cls(None)
        threading.Thread(
            target=source._build_when_needed, args=(build,), name="openhands-otel-fork", daemon=True
        ).start()
        return source

    def put(self, event: Event) -> None:
        pipeline = self._pipeline
        if pipeline is not None:
            pipeline.put(event)
            return
        self._expected = True
        self._waiting.put(event)
        if self._pipeline is not None:
            # The builder may have looked for the last time just before.
            self._forward(self._pipeline)

    def flush(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        pipeline = self._built(deadline)
        return pipeline is None or pipeline.flush(max(0.0, deadline - time.monotonic()))

    def stop(self, timeout_s: float) -> bool:
        if self._stopped:
            return True
        self._stopped = True
        deadline = time.monotonic() + timeout_s
        pipeline = self._built(deadline)
        return pipeline is None or pipeline.stop(max(0.0, deadline - time.monotonic()))

    def snapshot(self, conversation_id: str) -> ConversationSnapshot | None:
        pipeline = self._built(time.monotonic() + 1.0)
        return None if pipeline is None else pipeline.snapshot(conversation_id)

    def _built(self, deadline: float) -> Pipeline | None:
        """The pipeline; None if there is none because nothing happened, or it is not ready in time."""
        while self._pipeline is None and self._expected and time.monotonic() < deadline:
            time.sleep(0.002)
        return self._pipeline

    def _build_when_needed(self, build: Build) -> None:
        first = self._waiting.get()
        pipeline = build()
        pipeline.start()
        pipeline.put(first)
        self._forward(pipeline)
        self._pipeline = pipeline
        self._forward(pipeline)

    def _forward(self, pipeline: Pipeline) -> None:
        try:
            while True:
                pipeline.put(self._waiting.get_nowait())
        except queue.Empty:
            pass
