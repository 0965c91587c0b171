"""What both OTLP receivers do with a body: decode all of it and then take it, or refuse it and change nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from openhands_otel._internal.collector.access import FULL_GRANT
from openhands_otel._internal.collector.archive.journal import JournalEntry
from openhands_otel._internal.collector.points.decode import (
    MalformedRequest,
    TooLarge,
    count_logs,
    decode_metrics,
)
from openhands_otel._internal.collector.points.refusals import Refusals
from openhands_otel._internal.collector.receive.decompress import IDENTITY, decompress
from openhands_otel._internal.collector.receive.span_intake import SpanIntake
from openhands_otel._internal.collector.spans.decode import decode_spans
from openhands_otel._internal.collector.store import Store
from openhands_otel._internal.host.named_tokens import Grant
from openhands_otel._internal.terminal_text import printable

METRICS_SIGNAL: Final = "metrics"
SIGNALS: Final = (METRICS_SIGNAL, "traces", "logs")

_IN_THREAD_FROM: Final = 256 * 1024
"""Bytes from which reading a body would hold up the others for milliseconds."""
_COMPRESSED_IN_THREAD_FROM: Final = 16 * 1024
_SPANS_IN_THREAD_FROM: Final = 8 * 1024
"""Of spans more is read of each byte than of points."""
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

    def __init__(self, store: Store, spans: SpanIntake) -> None:
        self._store = store
        self._spans = spans
        self._spans_at_once = asyncio.Semaphore(1)
        """Of their own: metrics never wait for spans."""
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
        grant: Grant = FULL_GRANT,
    ) -> Message:
        """Take one request and return the response; raises MalformedRequest, TooLarge, and NotTheirs by ``grant``.

        ``replayed``: see ``Store.receive``. Otherwise ``heard`` is told which processes speak.
        """
        counts = self._store.counts
        if signal == "traces":
            response: Message = await self._take_spans(body, received, json, coding, grant)
        elif signal == "logs":
            found = await self._read(count_logs, body, json, coding)
            counts.log_records += found
            response = ExportLogsServiceResponse()
        else:
            response = await self._take_metrics(JournalEntry(body, received, json, replayed, coding), heard, grant)
        counts.requests += 1
        return response

    async def _take_spans(
        self, body: bytes, received: int, json: bool, coding: str, grant: Grant
    ) -> ExportTraceServiceResponse:
        with self._spans.place(len(body)):
            read = partial(decode_spans, received=received)
            decoded = await self._read(read, body, json, coding, _SPANS_IN_THREAD_FROM, self._spans_at_once)
            _check(grant, (span.service for span in decoded.spans))
            await self._spans.keep(decoded, received / 1e9)
        self._store.counts.spans += decoded.count
        response = ExportTraceServiceResponse()
        if decoded.refusals.count:
            self._store.refuse(decoded.refusals)
            response.partial_success.rejected_spans = decoded.refusals.count
            response.partial_success.error_message = decoded.refusals.reason
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
        """Take what an earlier run acknowledged and may not have saved; before anybody else is heard.

        Raises Unavailable where that cannot be: it stays in the journal then.
        """
        for entry in self._store.journal.entries():
            with contextlib.suppress(MalformedRequest, TooLarge):
                await self._receive(entry)
        self._store.begin_to_watch()

    async def _receive(self, entry: JournalEntry, grant: Grant = FULL_GRANT) -> tuple[Refusals, list[str]]:
        decoded = await self._read(decode_metrics, entry.body, entry.json, entry.coding)
        _check(grant, (update.instance.service for update in decoded.updates))
        processes = [update.instance.key for update in decoded.updates]
        return await self._store.receive(decoded, entry.received, entry.replayed), processes

    async def _read[T](
        self,
        reader: Callable[[bytes, bool], T],
        body: bytes,
        json: bool,
        coding: str,
        in_thread_from: int = _IN_THREAD_FROM,
        at_once: asyncio.Semaphore | None = None,
    ) -> T:
        """Undo the compression and read what comes out; what is small here and now, and few large ones at once."""
        if len(body) < min(in_thread_from, _COMPRESSED_IN_THREAD_FROM if coding != IDENTITY else in_thread_from):
            plain = decompress(body, coding)
            if len(plain) < in_thread_from:
                return reader(plain, json)
        async with at_once or self._large:
            return await asyncio.to_thread(lambda: reader(decompress(body, coding), json))
