"""What both OTLP receivers do with a body: read all of it, then take it; or refuse it and keep what is held."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from openhands_otel.collector.decode import count_logs, count_spans, decode_metrics
from openhands_otel.collector.store import Store

SIGNALS: Final = ("metrics", "traces", "logs")

_IN_THREAD_FROM: Final = 256 * 1024
"""Bytes from which reading a body would hold up the others for milliseconds."""


class Receiver:
    """Takes the bodies of export requests."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def store(self) -> Store:
        return self._store

    async def take(self, signal: str, body: bytes, json: bool, received: int) -> Message:
        """Take one request and return the response; raises MalformedRequest."""
        counts = self._store.counts
        if signal == "traces":
            counts.spans += await _read(count_spans, body, json)
            response: Message = ExportTraceServiceResponse()
        elif signal == "logs":
            counts.log_records += await _read(count_logs, body, json)
            response = ExportLogsServiceResponse()
        else:
            response = await self._take_metrics(body, json, received)
        counts.requests += 1
        return response

    async def _take_metrics(self, body: bytes, json: bool, received: int) -> ExportMetricsServiceResponse:
        decoded = await _read(decode_metrics, body, json)
        refusals = await self._store.receive(decoded, received)
        response = ExportMetricsServiceResponse()
        if refusals.count:
            response.partial_success.rejected_data_points = refusals.count
            response.partial_success.error_message = refusals.reason
        return response


async def _read[T](reader: Callable[[bytes, bool], T], body: bytes, json: bool) -> T:
    if len(body) < _IN_THREAD_FROM:
        return reader(body, json)
    return await asyncio.to_thread(reader, body, json)
