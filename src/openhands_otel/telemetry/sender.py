"""Makes one OTLP request of what changed: fleet points from the SDK's reader, conversation points from the ledger.

Both stand in one ResourceMetrics. If the request fails everything in it is still to be delivered: the values are
totals, so the next request simply says the newer ones.
"""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics, ScopeMetrics
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.metrics.export import ResourceMetrics as ResourceMetricsData
from opentelemetry.sdk.resources import Resource

from openhands_otel.telemetry.changed_points import ChangedPoints
from openhands_otel.telemetry.conversation_series import ConversationSeries
from openhands_otel.telemetry.intake import Intake
from openhands_otel.telemetry.transport import DELIVERED, Outcome, Transport


class ChangeSender:
    """``reader`` is None in guest mode, where the application's provider exports the fleet's metrics itself."""

    def __init__(
        self,
        transport: Transport,
        resource: Resource,
        intake: Intake,
        series: ConversationSeries,
        reader: ChangedPoints | None,
    ) -> None:
        self._transport = transport
        self._resource = _encoded(resource)
        self._intake = intake
        self._series = series
        self._reader = reader

    @property
    def has_more(self) -> bool:
        """Whether something is to be said after what was just delivered."""
        return self._series.has_more

    def prepare(self, everything: bool, last: bool) -> Callable[[float], Outcome]:
        """Choose the points, and encode them when the returned function is called."""
        fleet = self._reader.select(everything, last) if self._reader is not None else None
        conversations = self._series.select(everything)

        def send(timeout_s: float) -> Outcome:
            outcome = self._send(fleet.data if fleet is not None else None, conversations.scope, timeout_s)
            with self._intake.lock:
                if outcome.delivered:
                    if fleet is not None:
                        fleet.commit()
                    conversations.commit()
                else:
                    conversations.put_back()
            return outcome

        return send

    def _send(self, fleet: MetricsData | None, conversations: ScopeMetrics | None, timeout_s: float) -> Outcome:
        try:
            request = self._request(fleet)
            if conversations is not None:
                request.resource_metrics[0].scope_metrics.append(conversations)
            if not request.resource_metrics[0].scope_metrics:
                return DELIVERED
            return self._transport.send(request, timeout_s)
        except Exception as error:
            return Outcome(False, f"{type(error).__name__} while sending")

    def _request(self, data: MetricsData | None) -> ExportMetricsServiceRequest:
        request = ExportMetricsServiceRequest() if data is None else encode_metrics(data)
        if not request.resource_metrics:
            request.resource_metrics.append(ResourceMetrics(resource=self._resource))
        return request


def _encoded(resource: Resource) -> ResourceMessage:
    empty = ResourceMetricsData(resource=resource, scope_metrics=[], schema_url="")
    return encode_metrics(MetricsData([empty])).resource_metrics[0].resource
