"""OTLP over gRPC on one channel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub

from openhands_otel.telemetry.fork_gate import fork_gate
from openhands_otel.telemetry.otlp_config import OtlpConfig
from openhands_otel.telemetry.transport import USER_AGENT, Credentials, Outcome, outcome_of_response

CHANNEL_OPTIONS = (
    ("grpc.primary_user_agent", USER_AGENT),
    # The channel's own reconnect back-off grows to two minutes; ours ends at five seconds. Its minimum is left alone:
    # that is also what a connection may take to come about, and a far collector with TLS needs its time.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


class GrpcTransport:
    """Calls the metrics service at the configured address."""

    def __init__(self, config: OtlpConfig) -> None:
        self._target = config.endpoint
        self._credentials = Credentials(config)
        compression = grpc.Compression.Gzip if config.gzip else grpc.Compression.NoCompression
        if config.insecure:
            self._channel = grpc.insecure_channel(config.endpoint, CHANNEL_OPTIONS, compression)
        else:
            self._channel = grpc.secure_channel(config.endpoint, _tls(config), CHANNEL_OPTIONS, compression)
        # The generated stub is untyped.
        self._export: Callable[..., ExportMetricsServiceResponse] = MetricsServiceStub(self._channel).Export  # pyright: ignore

    def send(self, request: ExportMetricsServiceRequest, timeout_s: float) -> Outcome:
        """Call once."""
        try:
            metadata = tuple(self._credentials.headers().items())
            with fork_gate.closed():
                response = self._export(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            return Outcome(False, f"{self._target} answered {error.code().name}")
        except OSError as error:
            return Outcome(False, f"cannot read the token file ({error.strerror})")
        return outcome_of_response(response)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


def _tls(config: OtlpConfig) -> grpc.ChannelCredentials:
    def content(path: str | None) -> bytes | None:
        return None if path is None else Path(path).read_bytes()

    return grpc.ssl_channel_credentials(
        content(config.certificate), content(config.client_key), content(config.client_certificate)
    )
