"""Sends one OTLP request, of metrics or of spans, once, and says how it went.

The SDK's exporters can't be used for metrics: they encode the SDK's own data classes, which have no field for the
NoRecordedValue flag, retry inside for up to ten seconds, and log several lines for each failure. Spans go the same way,
so that certificates, proxies, tokens and messages are the same for both. Here a request is tried once; when to try
again is the caller's affair.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import unquote_plus

from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from openhands_otel._internal.export.otlp_config import Compression, OtlpConfig
from openhands_otel._internal.host.state_folder import unasked_token
from openhands_otel._internal.host.token_file import read_token
from openhands_otel._internal.terminal_text import printable
from openhands_otel._internal.version import __version__

USER_AGENT = f"openhands-otel/{__version__}"

RESPONSES = {"metrics": ExportMetricsServiceResponse, "traces": ExportTraceServiceResponse}
REASON_LENGTH = 200
"""Characters of what a receiver says that are told."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request. ``reason`` is one line; ``retry_after_s`` is what the receiver asked for."""

    delivered: bool
    reason: str = ""
    retry_after_s: float | None = None
    refused: bool = False
    """The receiver has seen it and does not want it: the same request would fare no better."""
    beat_s: float | None = None
    """How often it would like to hear of us."""


DELIVERED = Outcome(delivered=True)


class Transport(Protocol):
    """A way to a collector."""

    def send(self, request: Message, timeout_s: float) -> Outcome:
        """Send ``request`` once; never raises an Exception."""
        ...

    def close(self) -> None: ...


class Credentials:
    """Headers of each request: those that were configured, and the token that a file holds now."""

    def __init__(self, config: OtlpConfig) -> None:
        self._headers = dict(config.headers)
        self._shown = [*self._headers.values(), *_values_in_query(config.endpoint)]
        """What a receiver is shown beside the token."""
        self._file = config.token_file
        self._token = ""
        # Where the kernel does not tell a viewer whose we are, this does; unless somebody has named another.
        self._own_token = None if "authorization" in self._headers else unasked_token(config.endpoint)

    def headers(self) -> dict[str, str]:
        """Header names are in lower case. Raises TokenFileError."""
        if self._file is None and self._own_token is None:
            return dict(self._headers)
        if self._file is not None:
            self._token = read_token(self._file, "OPENHANDS_OTEL_TOKEN_FILE")
        else:
            self._token = self._own_token or ""
        return self._headers | {"authorization": f"Bearer {self._token}"}

    def told(self, text: str, limit: int = REASON_LENGTH) -> str:
        """What a receiver said, in one printable line; it may repeat what it was shown, which stays out."""
        for value in (self._token, *self._shown):
            for secret in (value, value.partition(" ")[2]):
                if len(secret) >= 4:
                    text = text.replace(secret, "***")
        return printable(" ".join(text.split()), limit)


def _values_in_query(endpoint: str) -> Iterator[str]:
    """As they are written, and as they are meant."""
    for pair in endpoint.partition("?")[2].partition("#")[0].split("&"):
        value = pair.partition("=")[2] or pair
        yield from (value, unquote_plus(value))


def with_beat(outcome: Outcome, asked: object) -> Outcome:
    """``outcome``, and what a viewer asks for in ``semconv.BEAT_HEADER``."""
    try:
        beat_s = float(str(asked))
    except ValueError:
        return outcome
    return replace(outcome, beat_s=beat_s) if 0 < beat_s < math.inf else outcome


def told_rejection(credentials: Credentials, rejected: int, message: str) -> Outcome:
    """Some of a request may be refused; the rest is delivered, and sending again would not help."""
    if rejected:
        what = f"the receiver rejected points: {credentials.told(message) or 'it does not say why'}"
        return Outcome(True, what)
    return Outcome(True, f"the receiver warns: {credentials.told(message)}") if message.strip() else DELIVERED


def rejection_in(response: Message) -> tuple[int, str]:
    """How much was rejected, and why, of a response to metrics or to spans."""
    partial = getattr(response, "partial_success", None)
    rejected = getattr(partial, "rejected_data_points", 0) or getattr(partial, "rejected_spans", 0)
    return rejected, getattr(partial, "error_message", "")


def body_of(request: Message, compression: Compression | None) -> bytes:
    """Serialized request."""
    body = request.SerializeToString()
    match compression:
        case "gzip":
            return gzip.compress(body, compresslevel=1)
        case "deflate":
            return zlib.compress(body, 1)
        case None:
            return body
