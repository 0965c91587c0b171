"""OTLP over gRPC on one channel."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Protocol, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from openhands_otel._internal import fork_gate
from openhands_otel._internal.export.answers import LONGEST_RETRY_AFTER_S
from openhands_otel._internal.export.causes import unusable_file
from openhands_otel._internal.export.otlp_config import OtlpConfig, stranger_in
from openhands_otel._internal.export.transport import (
    USER_AGENT,
    Credentials,
    Outcome,
    rejection_in,
    told_rejection,
    with_beat,
)
from openhands_otel._internal.host.network import proxy_for
from openhands_otel._internal.host.token_file import TokenFileError
from openhands_otel.semconv import BEAT_HEADER

Option = tuple[str, str | int]

CHANNEL_OPTIONS: tuple[Option, ...] = (
    ("grpc.primary_user_agent", USER_AGENT),
    # The channel's own reconnect back-off grows to two minutes; ours ends at five seconds. Its minimum is left alone:
    # that is also what a connection may take to come about, and a far collector with TLS needs its time.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
)
COMPRESSIONS = {
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
    None: grpc.Compression.NoCompression,
}
STUBS = {"metrics": MetricsServiceStub, "traces": TraceServiceStub}

_Files = tuple[bytes | None, bytes | None, bytes | None]


class _Export(Protocol):
    """A stub's method; the generated ones are untyped."""

    def with_call(
        self, request: Message, *, timeout: float, metadata: tuple[tuple[str, str], ...]
    ) -> tuple[Message, grpc.Call]: ...


class GrpcTransport:
    """Calls a signal's service at the configured address."""

    def __init__(self, config: OtlpConfig) -> None:
        self._config = config
        self._credentials = Credentials(config)
        self._channel: grpc.Channel | None = None
        self._export: _Export | None = None
        self._files: _Files | None = None

    def send(self, request: Message, timeout_s: float) -> Outcome:
        """Call once."""
        problem = self._config.problem or stranger_in(self._config)
        if problem is not None:
            return Outcome(False, problem)
        try:
            metadata = tuple(self._credentials.headers().items())
            export = self._open()
            with fork_gate.grpc_calls.closed():
                response, call = export.with_call(request, timeout=timeout_s, metadata=metadata)
                told = cast(dict[str, object], dict(cast(Any, call.initial_metadata()) or ()))
        except grpc.RpcError as error:
            return self._failed(error)
        except TokenFileError as error:
            return Outcome(False, str(error))
        except _UnusableFile as problem:
            return Outcome(False, f"cannot reach {self._config.shown}: {problem}")
        return with_beat(told_rejection(self._credentials, *rejection_in(response)), told.get(BEAT_HEADER))

    def close(self) -> None:
        """Close the channel."""
        channel, self._channel, self._export = self._channel, None, None
        if channel is not None:
            channel.close()

    def _open(self) -> _Export:
        """Made when it is needed, and again when that failed: a certificate may come later than we do."""
        if self._export is not None:
            return self._export
        config, compression = self._config, COMPRESSIONS[self._config.compression]
        options = (*CHANNEL_OPTIONS, *_proxy_options(config))
        if config.insecure:
            self._channel = grpc.insecure_channel(config.endpoint, options, compression)
        else:
            problem = unusable_file(config)
            if problem is not None:
                raise _UnusableFile(problem)
            self._files = _read(config)
            authorities, key, certificates = self._files
            tls = grpc.ssl_channel_credentials(authorities, key, certificates)
            self._channel = grpc.secure_channel(config.endpoint, tls, options, compression)
        export = cast(_Export, STUBS[config.signal](self._channel).Export)  # pyright: ignore
        self._export = export
        return export

    def _failed(self, error: grpc.RpcError) -> Outcome:
        code: str = error.code().name
        details = self._credentials.told(_last_error(error.details() or ""))
        if code == "UNAVAILABLE" and self._files is not None:
            self._look_at_files_again()
        if code == "DEADLINE_EXCEEDED" and details.lower() in ("deadline exceeded", ""):
            return Outcome(False, f"no answer from {self._config.shown} in time")
        reached = "cannot reach" if code == "UNAVAILABLE" else "no success at"
        said = f"{reached} {self._config.shown}: {code}" + (f", {details}" if details else "")
        return Outcome(
            False, said + _advice(self._config, code, details), _retry_after(error), code == "INVALID_ARGUMENT"
        )

    def _look_at_files_again(self) -> None:
        """A channel keeps what it was made with; certificates are replaced while processes live."""
        try:
            changed = _read(self._config) != self._files
        except OSError:
            return
        if changed:
            self.close()


class _UnusableFile(Exception):
    """One line that names it."""


def _read(config: OtlpConfig) -> _Files:
    def content(path: str | None) -> bytes | None:
        return None if path is None else Path(path).read_bytes()

    return content(config.certificate), content(config.client_key), content(config.client_certificate)


def _proxy_options(config: OtlpConfig) -> tuple[Option, ...]:
    """gRPC reads the environment its own way, and would take a proxy to loopback too."""
    target = config.endpoint.rpartition("/")[2]
    if target.startswith("unix:") or config.endpoint.startswith("unix"):
        return (("grpc.enable_http_proxy", 0),)
    address = target.partition(":")[2] if target.startswith(("dns:", "ipv4:", "ipv6:")) else target
    proxy = proxy_for(f"{'http' if config.insecure else 'https'}://{address}", "grpc")
    if proxy is None:
        return (("grpc.enable_http_proxy", 0),)
    return (("grpc.http_proxy", proxy),)


def _last_error(details: str) -> str:
    """Of gRPC's chain of reasons that which is new: "failed to connect to all addresses; last error: ..."."""
    last = details.rpartition("last error: ")[2]
    return re.sub(r"^(UNKNOWN|UNAVAILABLE): |ipv[46]:(%5B)?[\w.:%]+: |; RPC response:.*", "", last)


def _advice(config: OtlpConfig, code: str, details: str) -> str:
    port = config.endpoint.rpartition(":")[2]
    if "CERTIFICATE_VERIFY_FAILED" in details and "ostname" not in details:
        return f" (set {config.variable('CERTIFICATE')})"
    if "WRONG_VERSION_NUMBER" in details:
        return f" (is TLS spoken there? if not, write http:// in {config.variable('ENDPOINT')})"
    if (
        port == "4318"
        or "http1.x" in details
        or "parsing HTTP/2" in details
        or "received http2 header with status" in details.lower()
    ):
        return " (is gRPC spoken there? OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or name the port for gRPC, 4317)"
    if "Socket closed" in details or "GOAWAY" in details:
        return (
            f" (is TLS wanted there? then write https:// in {config.variable('ENDPOINT')})" if config.insecure else ""
        )
    if code == "UNIMPLEMENTED":
        return f" (nothing there takes {config.signal} over gRPC)"
    if code == "UNAUTHENTICATED" and config.token_file is None:
        return f" (set OPENHANDS_OTEL_TOKEN_FILE, or a header in {config.variable('HEADERS')})"
    return ""


def _retry_after(error: grpc.RpcError) -> float | None:
    """What the receiver asks for, in the place that gRPC has for it, or in the one that some gateways use."""
    for key, value in cast(Any, error.trailing_metadata()) or ():
        info = RetryInfo()
        try:
            if key == "google.rpc.retryinfo-bin":
                info.ParseFromString(value)
            elif key == "grpc-status-details-bin":
                details = [
                    each for each in Status.FromString(value).details if each.Is(cast(Any, RetryInfo.DESCRIPTOR))
                ]
                if not details:
                    continue
                details[0].Unpack(info)
            else:
                continue
        except (DecodeError, TypeError):
            continue
        delay = info.retry_delay
        return min(max(delay.seconds + delay.nanos / 1e9, 0.0), LONGEST_RETRY_AFTER_S)
    return None
