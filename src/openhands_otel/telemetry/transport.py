"""Sends one OTLP metrics request, once, and says how it went.

The SDK's exporters can't be used for this: they encode the SDK's own data classes, which have no field for the
NoRecordedValue flag, retry inside for up to ten seconds, and log several lines for each failure. Here a request is
tried once; when to try again is the flusher's affair. Configuration, HTTP and gRPC are those of the standard
variables (``otlp_config.py``), ``requests`` and ``grpcio``.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from openhands_otel.telemetry.otlp_config import OtlpConfig
from openhands_otel.version import __version__

USER_AGENT = f"openhands-otel/{__version__}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request. ``reason`` is one line; ``retry_after_s`` is what the receiver asked for."""

    delivered: bool
    reason: str = ""
    retry_after_s: float | None = None
    refused: bool = False
    """The receiver has seen it and does not want it: the same request would fare no better."""


DELIVERED = Outcome(delivered=True)


class Transport(Protocol):
    """A way to a collector."""

    def send(self, request: ExportMetricsServiceRequest, timeout_s: float) -> Outcome:
        """Send ``request`` once; never raises an Exception."""
        ...

    def close(self) -> None: ...


def open_transport(config: OtlpConfig) -> Transport:
    """Transport for ``config``. Nothing is sent yet."""
    if config.protocol == "grpc":
        from openhands_otel.telemetry.grpc_transport import GrpcTransport

        return GrpcTransport(config)
    from openhands_otel.telemetry.http_transport import HttpTransport

    return HttpTransport(config)


class Credentials:
    """Headers of each request: those that were configured, and the token that a file holds now."""

    def __init__(self, config: OtlpConfig) -> None:
        self._headers = dict(config.headers)
        self._file: Path | None = config.token_file

    def headers(self) -> dict[str, str]:
        """Header names are in lower case. Raises OSError if the token's file cannot be read."""
        if self._file is None:
            return dict(self._headers)
        return self._headers | {"authorization": f"Bearer {self._file.read_text().strip()}"}


def outcome_of_response(response: ExportMetricsServiceResponse) -> Outcome:
    """A response may say that some points were refused; the rest is delivered, and sending again would not help."""
    partial = response.partial_success
    if partial.rejected_data_points:
        reason = " ".join(partial.error_message.split())[:200]
        return Outcome(True, f"the receiver rejected points: {reason or 'it does not say why'}")
    return DELIVERED


def body_of(request: ExportMetricsServiceRequest, compress: bool) -> bytes:
    """Serialized request."""
    body = request.SerializeToString()
    return gzip.compress(body, compresslevel=1) if compress else body
