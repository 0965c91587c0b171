"""What both OTLP receivers do with a body: decode all of it and then take it, or refuse it and change nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Final

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from openhands_otel._internal.collector.access import EVERYTHING
from openhands_otel._internal.collector.archive.journal import JournalEntry
from openhands_otel._internal.collector.points.decode import (
    MalformedRequest,
    TooLarge,
    count_logs,
    count_spans,
    decode_metrics,
)
from openhands_otel._internal.collector.points.refusals import Refusals
from openhands_otel._internal.collector.receive.decompress import IDENTITY, decompress
from openhands_otel._internal.collector.store import Store, Unavailable
from openhands_otel._internal.host.named_tokens import Grant
from openhands_otel._internal.terminal_text import printable

METRICS_SIGNAL: Final = "metrics"
SIGNALS: Final = (METRICS_SIGNAL, "traces", "logs")

_IN_THREAD_FROM: Final = 256 * 1024
"""Bytes from which reading a body would hold up the others for milliseconds."""
_COMPRESSED_IN_THREAD_FROM: Final = 16 * 1024
_LARGE_AT_ONCE: Final = 2
"""A body of 20 MiB takes some hundred while it is read."""


class NotTheirs(Exception):
    """A request is about a service for which its sender's token is not; the message is one line."""


def _check(grant: Grant, services: Iterable[str]) -> None:
    """Raises NotTheirs where one of these is not the bearer's. A request is taken whole or not at all."""
    if grant.service is not None and (others := set(services) - {grant.service}):
        other = printable(min(others), 80)
        raise NotTheirs(f"the token '{grant.name}' is for service {printable(grant.service, 80)}, not for {other}")


class Receiver:
    """Takes the bodies of export requests."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)

    @property
    def store(self) -> Store:
        return self._store

    async def take(
        self,
        signal: str,
        body: bytes,
        json: bool,
        received: int,
        coding: str = IDENTITY,
        replayed: bool = False,
        heard: Callable[[list[str]], object] = len,
        grant: Grant = EVERYTHING,
    ) -> Message:
        """Take one request and return the response; raises MalformedRequest, TooLarge, and NotTheirs by ``grant``.

        ``replayed``: see ``Store.receive``. Otherwise ``heard`` is told which processes speak.
        """
        counts = self._store.counts
        if signal == "traces":
            counts.spans += await self._read(count_spans, body, json, coding)
            response: Message = ExportTraceServiceResponse()
        elif signal == "logs":
            counts.log_records += await self._read(count_logs, body, json, coding)
            response = ExportLogsServiceResponse()
        else:
            response = await self._take_metrics(JournalEntry(body, received, json, replayed, coding), heard, grant)
        counts.requests += 1
        return response

    async def _take_metrics(
        self, entry: JournalEntry, heard: Callable[[list[str]], object], grant: Grant
    ) -> ExportMetricsServiceResponse:
        refusals, processes = await self._receive(entry, grant)
        self._store.note(entry)
        if not entry.replayed:
            heard(processes)
        response = ExportMetricsServiceResponse()
        if refusals.count:
            response.partial_success.rejected_data_points = refusals.count
            response.partial_success.error_message = refusals.reason
        return response

    async def take_again(self) -> None:
        """Take what an earlier run acknowledged and may not have saved; before anybody else is heard."""
        for entry in self._store.journal.entries():
            with contextlib.suppress(MalformedRequest, TooLarge, Unavailable):
                await self._receive(entry)
        self._store.begin_to_watch()

    async def _receive(self, entry: JournalEntry, grant: Grant = EVERYTHING) -> tuple[Refusals, list[str]]:
        decoded = await self._read(decode_metrics, entry.body, entry.json, entry.coding)
        _check(grant, {update.instance.service for update in decoded.updates})
        processes = [update.instance.key for update in decoded.updates]
        return await self._store.receive(decoded, entry.received, entry.replayed), processes

    async def _read[T](self, reader: Callable[[bytes, bool], T], body: bytes, json: bool, coding: str) -> T:
        """Undo the compression and read what comes out; what is small here and now, and few large ones at once."""
        if len(body) < (_IN_THREAD_FROM if coding == IDENTITY else _COMPRESSED_IN_THREAD_FROM):
            plain = decompress(body, coding)
            if len(plain) < _IN_THREAD_FROM:
                return reader(plain, json)
        async with self._large:
            return await asyncio.to_thread(lambda: reader(decompress(body, coding), json))
