"""Opens the way to a collector that a configuration names: HTTP or gRPC, whose library is imported only then."""

from __future__ import annotations

from openhands_otel._internal.export.otlp_config import OtlpConfig
from openhands_otel._internal.export.pieces import InPieces
from openhands_otel._internal.export.transport import Transport


def open_transport(config: OtlpConfig) -> Transport:
    """Transport for ``config``. Nothing is sent yet, and no file is read."""
    if config.protocol == "grpc":
        from openhands_otel._internal.export.grpc_transport import GrpcTransport

        return InPieces(GrpcTransport(config))
    from openhands_otel._internal.export.http_transport import HttpTransport

    return InPieces(HttpTransport(config))
