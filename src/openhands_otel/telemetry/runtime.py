"""The process's pipeline over the process's life: started when OpenHands is imported, renewed in a forked child.

In a child the parent's threads are gone, and its ledger, queue and connections are the parent's. What the child spends
is counted from 0 under an instance id of its own. A child that never calls OpenHands (a tool on its way to ``exec``,
say) pays for a few empty objects: its pipeline starts when the first event comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from openhands_otel.account import ConversationSnapshot
from openhands_otel.bus import Bus
from openhands_otel.clock import process_clock
from openhands_otel.guard import guarded
from openhands_otel.settings import Settings
from openhands_otel.telemetry.pipeline import Pipeline
from openhands_otel.telemetry.process_end import ProcessEnd
from openhands_otel.telemetry.traces import Traces

MakePipeline = Callable[[Pipeline | None], Pipeline]
"""Makes one that is not started yet; in a forked child from its parent's."""


class Runtime:
    """Feeds the bus's events to a pipeline from ``start`` to ``stop``."""

    def __init__(self, bus: Bus, make_pipeline: MakePipeline, settings: Settings, traces: Traces) -> None:
        self._bus = bus
        self._traces = traces
        self._make_pipeline = make_pipeline
        self._exit_timeout_s = settings.exit_timeout_s
        self._pipeline: Pipeline | None = None
        self._inherited: list[Pipeline] = []
        """Pipelines of a forked process's ancestors: to end them would touch connections that they still use."""
        self._end = ProcessEnd(
            stop=self._stop_pipeline,
            flush=self._last_flush,
            after_fork=self._after_fork,
            patience_s=settings.exit_timeout_s,
        )
        self._remove_sink: Callable[[], None] | None = None
        self._unstarted = [None]
        """Whoever takes it out is the one who starts."""
        self._stopped = False

    def start(self) -> None:
        """Build the pipeline and let events in; once, whoever else asks for it at the same time or later."""
        try:
            self._unstarted.pop()
        except IndexError:
            return
        pipeline = self._make_pipeline(None)
        pipeline.start()
        self._pipeline = pipeline
        self._traces.start(pipeline.resource)
        self._listen(pipeline)
        self._end.watch()
        if self._stopped:
            # Meanwhile, by another thread, which found nothing to end.
            self.stop()

    def stop(self) -> None:
        """Send what is left and end the pipeline."""
        self._stopped = True
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is None:
            return
        self._end.forget()
        if self._remove_sink is not None:
            self._remove_sink()
        self._stop_both(pipeline, self._exit_timeout_s)

    def flush(self, timeout_s: float, last: bool = False) -> bool:
        """Send all that happened until now; False if that failed or took longer. ``last``: the end may follow."""
        if self._pipeline is None:
            return True
        deadline = time.monotonic() + timeout_s
        traces_flushed = self._traces.flush()
        done = self._pipeline.flush(timeout_s, last)
        return traces_flushed.wait_until(deadline) and done

    def snapshot(self, conversation_id: str) -> ConversationSnapshot | None:
        """What this process knows of one conversation."""
        return None if self._pipeline is None else self._pipeline.snapshot(conversation_id)

    def _stop_pipeline(self, timeout_s: float) -> None:
        if self._pipeline is not None:
            self._stop_both(self._pipeline, timeout_s)

    def _last_flush(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        self.flush(timeout_s, last=True)
        if self._pipeline is not None:
            self._pipeline.say_farewell(deadline, for_good=False)

    def _stop_both(self, pipeline: Pipeline, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        traces_stopped = self._traces.stop()
        pipeline.stop(timeout_s)
        traces_stopped.wait_until(deadline)

    @guarded
    def _after_fork(self) -> None:
        process_clock.start_over()
        self._bus.restart_after_fork()
        if self._pipeline is None or self._remove_sink is None:
            return
        self._remove_sink()
        self._pipeline.abandon()
        self._inherited.append(self._pipeline)
        self._pipeline = self._make_pipeline(self._pipeline)
        self._pipeline.start_when_used()
        self._traces.restart_after_fork(self._pipeline.resource)
        self._listen(self._pipeline)

    def _listen(self, pipeline: Pipeline) -> None:
        sink = self._traces.sink(pipeline.put, pipeline.wants_spans)
        self._remove_sink = self._bus.add_sink(sink, self._traces.captures_content, self._traces.around_call)
