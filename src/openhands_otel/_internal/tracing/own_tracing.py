"""A TracerProvider of our own, whose spans go the way of the metrics: same variables, certificates, token, messages.

It is not ended by ``atexit``: the process's end has one budget for metrics and spans together.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from google.protobuf.message import Message
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import DEFAULT_ON

from openhands_otel._internal.export.config_file import standard
from openhands_otel._internal.export.delivery_log import DeliveryLog
from openhands_otel._internal.export.open_transport import open_transport
from openhands_otel._internal.export.otlp_config import LEAST_TIMEOUT_S, read_otlp_config
from openhands_otel._internal.export.pieces import pieces_of
from openhands_otel._internal.export.span_sender import PATIENCE_S, SpanSender
from openhands_otel._internal.export.transport import DELIVERED, Outcome, Transport

FIRST_PAUSE_S: Final = 0.2


def own_provider(
    resource: Resource, token_file: Path | None, own_only: bool = False
) -> tuple[TracerProvider, SpanSender]:
    """One that sends to where the variables say, and what sends for it; its sampler is theirs too, a file's all spans.

    ``own_only``: on this machine, to no other user's process.
    """
    # The SDK reads a sampler's variables by itself, and a file stands in their place.
    sampler = None if standard().file is None else DEFAULT_ON
    provider = TracerProvider(resource=resource, sampler=sampler, shutdown_on_exit=False)
    config = read_otlp_config(token_file=token_file, signal="traces", own_only=own_only)
    # Where nobody has named a place, nobody need be there.
    level = logging.INFO if own_only else logging.WARNING
    exporter = OwnSpanExporter(open_transport(config), config.timeout_s, level)
    sender = SpanSender(exporter)
    if not sender.start():
        exporter.hurry(PATIENCE_S)
    provider.add_span_processor(sender)
    return provider, sender


class OwnSpanExporter(SpanExporter):
    """Sends a batch; tries again within the time that a request may take, and then lets go of it."""

    def __init__(self, transport: Transport, timeout_s: float, level: int = logging.WARNING) -> None:
        self._transport = transport
        self._timeout_s = timeout_s
        self._ended = threading.Event()
        self._log = DeliveryLog("spans", "those of this time are lost", refusal="spans: %s", level=level)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Never raises an Exception."""
        try:
            outcome = self._send(spans)
        except Exception as error:
            outcome = Outcome(False, f"{type(error).__name__} while sending")
        self._log.note(outcome)
        return SpanExportResult.SUCCESS if outcome.delivered else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Close the connection."""
        self._ended.set()
        self._transport.close()

    def hurry(self, timeout_s: float) -> None:
        """Take no longer for a batch: whoever ends a span has to wait for it."""
        self._timeout_s = min(self._timeout_s, timeout_s)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return True

    def _send(self, spans: Sequence[ReadableSpan]) -> Outcome:
        """Each piece for itself: what was taken is not sent again, nor does a refused one keep others back."""
        deadline = time.monotonic() + self._timeout_s
        complaint: Outcome | None = None
        for piece in pieces_of(encode_spans(spans)):
            outcome = self._send_piece(piece, deadline)
            if not outcome.delivered and not outcome.refused:
                return outcome
            if outcome.refused or (outcome.reason and complaint is None):
                complaint = outcome
        return complaint or DELIVERED

    def _send_piece(self, request: Message, deadline: float) -> Outcome:
        pause_s = FIRST_PAUSE_S
        while True:
            outcome = self._transport.send(request, max(deadline - time.monotonic(), LEAST_TIMEOUT_S))
            if outcome.delivered or outcome.refused:
                return outcome
            wait_s = pause_s if outcome.retry_after_s is None else outcome.retry_after_s
            if time.monotonic() + wait_s >= deadline or self._ended.wait(wait_s):
                return outcome
            pause_s *= 2
