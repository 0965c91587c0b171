"""Makes one OTLP request of what changed: fleet points from the SDK's reader, conversation points from the ledger.

Both stand in one ResourceMetrics. If the request fails everything in it is still to be delivered: the values are
totals, so the next request simply says the newer ones.

All points of a request have one stamp, and stamps only grow. Where the wall clock has fallen so far that they could not
(``clock.py``), the process goes on as another instance, from 0. What was sent under the id before and not acknowledged
may have arrived, so it stays with that id: it is sent once more, and then the ends of its series, before anything else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics, ScopeMetrics
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.metrics.export import ResourceMetrics as ResourceMetricsData
from opentelemetry.sdk.resources import Resource

from openhands_otel.clock import Clock, process_clock
from openhands_otel.telemetry.changed_points import ChangedPoints
from openhands_otel.telemetry.conversation_series import ConversationSeries
from openhands_otel.telemetry.intake import Intake
from openhands_otel.telemetry.resource import process_resource
from openhands_otel.telemetry.transport import DELIVERED, Outcome, Transport

MILLISECOND_NS = 1_000_000


class ChangeSender:
    """``reader`` is None in guest mode, where the application's provider exports the fleet's metrics itself."""

    def __init__(
        self,
        transport: Transport,
        resource: Resource,
        intake: Intake,
        series: ConversationSeries,
        reader: ChangedPoints | None,
        clock: Clock = process_clock,
    ) -> None:
        self._transport = transport
        self._resource = resource
        self._encoded_resource = _encoded(resource)
        self._intake = intake
        self._series = series
        self._reader = reader
        self._clock = clock
        self._epoch = clock.epoch
        self._stamped = 0
        self._first: deque[ExportMetricsServiceRequest] = deque()
        """What is to be delivered before anything newer."""
        self._unacknowledged = False
        """Whether the last request may or may not have arrived."""
        self._put_off = (False, False)
        """Whether everything, and whether the last things, were asked for while something else went first."""

    @property
    def has_more(self) -> bool:
        """Whether something is to be said after what was just delivered."""
        return bool(self._first or any(self._put_off) or self._series.has_more)

    def prepare(self, everything: bool, last: bool) -> Callable[[float], Outcome]:
        """Choose the points, and encode them when the returned function is called."""
        self._clock.watch()
        if self._epoch != self._clock.epoch:
            self._start_over()
        everything, last = everything or self._put_off[0], last or self._put_off[1]
        if self._first:
            self._put_off = everything, last
            return self._send_first
        self._put_off = (False, False)
        now = self._stamp()
        fleet = self._reader.select(everything, last, now) if self._reader is not None else None
        conversations = self._series.select(everything, now)

        def send(timeout_s: float) -> Outcome:
            outcome = self._send(fleet.data if fleet is not None else None, conversations.scope, timeout_s)
            with self._intake.lock:
                self._unacknowledged = not outcome.delivered
                if outcome.delivered:
                    if fleet is not None:
                        fleet.commit()
                    conversations.commit()
                else:
                    conversations.put_back()
            return outcome

        return send

    def _stamp(self) -> int:
        self._stamped = max(self._clock.now_ns(), self._stamped + MILLISECOND_NS)
        return self._stamped

    def _start_over(self) -> None:
        """Become another instance. Under the ledger's lock."""
        self._epoch = self._clock.epoch
        if not self._stamped:
            return
        if self._unacknowledged:
            self._say_what_is_left()
        self._say_first(None, self._series.start_over(self._stamped + MILLISECOND_NS))
        if self._reader is not None:
            self._reader.start_over()
        self._resource = process_resource(self._resource)
        self._encoded_resource = _encoded(self._resource)
        self._stamped = 0
        self._unacknowledged = False

    def _say_what_is_left(self) -> None:
        more = True
        while more:
            # The clock is behind already, and what was said last is later.
            self._stamped += MILLISECOND_NS
            fleet = self._reader.select(False, True, self._stamped) if self._reader is not None else None
            conversations = self._series.select(False, self._stamped)
            self._say_first(fleet.data if fleet is not None else None, conversations.scope)
            if fleet is not None:
                fleet.commit()
            conversations.commit()
            more = self._series.has_more

    def _say_first(self, fleet: MetricsData | None, conversations: ScopeMetrics | None) -> None:
        request = self._request(fleet, conversations)
        if request is not None:
            self._first.append(request)

    def _send_first(self, timeout_s: float) -> Outcome:
        outcome = self._transport.send(self._first[0], timeout_s)
        if not (outcome.delivered or outcome.refused):
            return outcome
        self._first.popleft()
        return Outcome(True, outcome.reason)

    def _send(self, fleet: MetricsData | None, conversations: ScopeMetrics | None, timeout_s: float) -> Outcome:
        try:
            request = self._request(fleet, conversations)
            return DELIVERED if request is None else self._transport.send(request, timeout_s)
        except Exception as error:
            return Outcome(False, f"{type(error).__name__} while sending")

    def _request(
        self, fleet: MetricsData | None, conversations: ScopeMetrics | None
    ) -> ExportMetricsServiceRequest | None:
        request = ExportMetricsServiceRequest() if fleet is None else encode_metrics(fleet)
        if not request.resource_metrics:
            request.resource_metrics.append(ResourceMetrics())
        # Not the provider's, which keeps the instance id that it was made with.
        request.resource_metrics[0].resource.CopyFrom(self._encoded_resource)
        if conversations is not None:
            request.resource_metrics[0].scope_metrics.append(conversations)
        return request if request.resource_metrics[0].scope_metrics else None


def _encoded(resource: Resource) -> ResourceMessage:
    empty = ResourceMetricsData(resource=resource, scope_metrics=[], schema_url="")
    return encode_metrics(MetricsData([empty])).resource_metrics[0].resource
