"""What a process says of its own life: how often it is heard of, and farewell.

Two gauges. One says how often everything is repeated (``OPENHANDS_OTEL_HEARTBEAT_S``), so that whoever listens knows
when silence means something; it ends with the process's last request, and that is the farewell. The other is there
where a viewer answers us directly and asks for it: while a conversation is open something tiny is sent every few
seconds, so that a death is seen soon. A beat that fails costs nothing but the next one: nothing was in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from openhands_otel import semconv
from openhands_otel._internal.clock import now_ns
from openhands_otel._internal.export.transport import DELIVERED, Outcome
from openhands_otel._internal.metrics.points import Batch
from openhands_otel.semconv import Metric

BEAT_TIMEOUT_S = 3.0
SHORTEST_BEAT_S, LONGEST_BEAT_S = 1.0, 300.0
FIRST_BEAT_S = 0.2
"""After a viewer has asked, so soon it is told that there will be beats."""
EARLY = 0.9
"""A beat that comes a little early is none too many."""

ToldVitals = dict[Metric, float]


class Vitals:
    """Adds to requests. Used by the flusher's thread; ``is_busy``: whether a conversation is open."""

    def __init__(self, heartbeat_s: float, is_busy: Callable[[], bool] = lambda: False) -> None:
        self._heartbeat_s = heartbeat_s
        self._is_busy = is_busy
        self._asked_s: float | None = None
        self._busy = self._everything = self._last = False
        self._left = False
        """Whether farewell was said, and nothing since."""
        self._who = b""
        self._told: ToldVitals = {}
        self._saying: ToldVitals = {}
        self._spoke_at = 0.0

    def prepare(self, everything: bool, last: bool) -> None:
        """What the next request is for. Under the ledger's lock."""
        self._everything, self._last = everything, last
        self._busy = self._is_busy()

    @property
    def beat_in_s(self) -> float | None:
        """In how long something should be said, though nothing has changed; None: no beat is asked for."""
        beat_s = self._beat_s
        if beat_s is None:
            return None
        if semconv.BEAT_INTERVAL not in self._told:
            beat_s = FIRST_BEAT_S
        return self._spoke_at + beat_s - time.monotonic()

    def complete(
        self, request: ExportMetricsServiceRequest | None, resource: Resource
    ) -> ExportMetricsServiceRequest | None:
        """The request with vitals in it; one for them alone where they are due; None: there is nothing to say."""
        who = resource.SerializeToString(deterministic=True)
        if who != self._who:
            # Another instance: it has said nothing yet.
            self._who, self._told, self._left = who, {}, False
        if request is None and not (self._told and (self._everything or self._last or self._is_due)):
            return None
        self._saying = self._promises()
        points = self._points(alone=request is None)
        if points is not None:
            if request is None:
                request = ExportMetricsServiceRequest(resource_metrics=[pb.ResourceMetrics(resource=resource)])
            request.resource_metrics[0].scope_metrics.append(points)
        return request

    def settle(self, outcome: Outcome, alone: bool) -> Outcome:
        """What became of it; ``alone``: there was nothing else in it, so nothing is lost."""
        self._spoke_at = time.monotonic()
        if not outcome.delivered:
            return DELIVERED if alone else outcome
        self._told, self._left = self._saying, self._last
        beat_s = outcome.beat_s
        self._asked_s = None if beat_s is None else min(max(beat_s, SHORTEST_BEAT_S), LONGEST_BEAT_S)
        return outcome

    @property
    def _beat_s(self) -> float | None:
        return self._asked_s if self._busy and not self._last else None

    @property
    def _is_due(self) -> bool:
        left_s = self.beat_in_s
        return left_s is not None and left_s <= (1 - EARLY) * (self._beat_s or 0.0)

    def _promises(self) -> ToldVitals:
        if self._last:
            return {}
        promises = {semconv.HEARTBEAT_INTERVAL: self._heartbeat_s}
        if self._beat_s is not None:
            promises[semconv.BEAT_INTERVAL] = self._beat_s
        return promises

    def _points(self, alone: bool) -> pb.ScopeMetrics | None:
        batch = Batch(semconv.SCOPE_PROCESS, now_ns())
        for metric, value in self._saying.items():
            if self._everything or self._told.get(metric) != value or (alone and metric is semconv.BEAT_INTERVAL):
                batch.add("", (metric, ()), value, batch.now, 0)
        ended = [metric for metric in self._told if metric not in self._saying]
        if self._last and not (self._left or ended):
            # All that it had to say fits into one request, and that is the last.
            ended = [semconv.HEARTBEAT_INTERVAL]
        for metric in ended:
            batch.end("", (metric, ()), 0)
        return batch.message()
