"""The process's pipeline over the process's life: started when OpenHands is imported, renewed in a forked child.

In a child the parent's threads are gone, and its ledger, queue and connections are the parent's. What the child spends
is counted from 0 under an instance id of its own. A child that never calls OpenHands (a tool on its way to ``exec``,
say) pays for a few empty objects: its pipeline starts when the first event comes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from openhands_otel._internal.bus.dispatch import Bus
from openhands_otel._internal.clock import process_clock
from openhands_otel._internal.guard import guarded
from openhands_otel._internal.ledger.intake import URGENT
from openhands_otel._internal.once import Once
from openhands_otel._internal.process.pipeline import Pipeline
from openhands_otel._internal.process.process_end import ProcessEnd, main_has_returned
from openhands_otel._internal.tracing.traces import TracePipeline
from openhands_otel.events import UPDATES, Event, LLMCallEnded, ToolEnded
from openhands_otel.settings import Settings
from openhands_otel.stats import ConversationStats

URGENT_AT_END = URGENT | {LLMCallEnded, ToolEnded}
"""Events of a process that has all but ended of which each is sent at once."""

SUBSCRIBERS_SHARE = 0.85
"""Of the time at the end: what is left is for saying how many of their events were dropped."""

MakePipeline = Callable[[Pipeline | None], Pipeline]
"""Makes one that is not started yet; in a forked child from its parent's."""


class Runtime:
    """Feeds the bus's events to a pipeline from ``start`` to ``stop``."""

    def __init__(
        self,
        bus: Bus,
        make_pipeline: MakePipeline,
        settings: Settings,
        traces: TracePipeline,
        tells_in_detail: bool = False,
    ) -> None:
        self.tells_in_detail = tells_in_detail
        """Whether events are to say what only the newest GenAI names tell."""
        self._bus = bus
        self._traces = traces
        self._make_pipeline = make_pipeline
        self._exit_timeout_s = settings.exit_timeout_s
        self._pipeline: Pipeline | None = None
        self._inherited: list[Pipeline] = []
        """Pipelines of a forked process's ancestors: to end them would touch connections that they still use."""
        self._end = ProcessEnd(
            stop=self.finish,
            flush=self._last_flush,
            after_fork=self._after_fork,
            patience_s=settings.exit_timeout_s,
        )
        self._remove_sinks: list[Callable[[], None]] = []
        self._start = Once()
        self._stopped = False
        self._ending = False
        self._lost = False
        """Whether something was spent for which there is no pipeline."""

    def start(self) -> None:
        """Build the pipeline and let events in; once, whoever else asks for it at the same time or later."""
        if not self._start.claim():
            return
        try:
            self._begin(self._make_pipeline(None))
        except Exception:
            self._remove_sinks.append(self._bus.add_sink(self._note_lost))
            raise
        if self._stopped:
            # Meanwhile, by another thread, which found nothing to end.
            self.stop()

    def _begin(self, pipeline: Pipeline) -> None:
        pipeline.start()
        self._pipeline = pipeline
        self._traces.start(pipeline.resource)
        self._listen(pipeline)
        self._end.watch()
        if main_has_returned():
            # Nobody may be called at the end that has begun.
            self._send_each_at_once()

    def stop(self) -> bool:
        """Send what is left and end the pipeline; False if that failed or took too long."""
        self._stopped = True
        pipeline, self._pipeline = self._pipeline, None
        self._remove_all_sinks()
        if pipeline is None:
            return not self._lost
        self._end.forget()
        traces_stopped = self._traces.stop(self._exit_timeout_s)
        done = pipeline.stop(self._exit_timeout_s)
        return traces_stopped() and done

    def flush(self, timeout_s: float, last: bool = False) -> bool:
        """Send all that happened until now; False if that failed or took longer, or something was lost before.

        ``last``: the end may follow.
        """
        if self._pipeline is None:
            return not self._lost
        traces, metrics = self._traces.flush(timeout_s), self._pipeline.begin_flush(timeout_s, last)
        done = metrics()
        return traces() and done

    def finish(self, timeout_s: float) -> bool:
        """The process ends: as ``flush``, for spans that are open and for subscribers too.

        Nothing is taken apart, for handlers that are called later may spend. Each event of theirs is sent at once.
        """
        pipeline = self._pipeline
        if pipeline is None:
            return not self._lost
        deadline = time.monotonic() + timeout_s
        traces, metrics = self._traces.finish(timeout_s), pipeline.begin_flush(timeout_s, last=True)
        dropped = self._bus.dropped
        self._bus.finish(timeout_s * SUBSCRIBERS_SHARE)
        done = metrics()
        done = traces() and done
        if self._bus.dropped != dropped:
            pipeline.flush(max(0.0, deadline - time.monotonic()), last=True)
        pipeline.say_farewell(deadline, for_good=False)
        self._send_each_at_once()
        return done

    def _send_each_at_once(self) -> None:
        if not self._ending:
            self._ending = True
            self._remove_sinks.append(self._bus.add_sink(self._send_late))

    def _send_late(self, event: Event) -> None:
        # When Python takes itself apart no thread runs any more, and waiting for one would only hold it up.
        if type(event) in URGENT_AT_END and not sys.is_finalizing():
            self._end.wait_for(lambda timeout_s: self.flush(timeout_s, last=True))

    def _note_lost(self, event: Event) -> None:
        self._lost = self._lost or type(event) in UPDATES

    def snapshot(self, conversation_id: str) -> ConversationStats | None:
        """What this process knows of one conversation."""
        return None if self._pipeline is None else self._pipeline.snapshot(conversation_id)

    def _last_flush(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        self.flush(timeout_s, last=True)
        if self._pipeline is not None:
            self._pipeline.say_farewell(deadline, for_good=False)

    @guarded
    def _after_fork(self) -> None:
        process_clock.start_over()
        if self._pipeline is None:
            return
        self._remove_all_sinks()
        self._pipeline.abandon()
        self._inherited.append(self._pipeline)
        self._pipeline = self._make_pipeline(self._pipeline)
        self._pipeline.start_when_used()
        self._traces.restart_after_fork(self._pipeline.resource)
        self._listen(self._pipeline)

    def _listen(self, pipeline: Pipeline) -> None:
        sink = self._traces.sink(pipeline.put, pipeline.wants_spans)
        remove = self._bus.add_sink(sink, self._traces.content_sink(pipeline.put), self._traces.around_call)
        self._bus.keepers.add(self)
        self._remove_sinks.append(remove)

    def _remove_all_sinks(self) -> None:
        self._bus.keepers.discard(self)
        while self._remove_sinks:
            self._remove_sinks.pop()()
