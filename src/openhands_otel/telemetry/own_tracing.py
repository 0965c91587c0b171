"""A TracerProvider of our own, with OpenTelemetry's exporters as the standard variables configure them.

It is not ended by ``atexit``: the process's end has one budget for metrics and spans together.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from requests.auth import AuthBase

from openhands_otel.telemetry.otlp_config import DEFAULT_TIMEOUT_S

DELAY_MS = 1000
"""How long spans wait for others where OTEL_BSP_SCHEDULE_DELAY says nothing: a killed process loses the last second."""


def own_provider(resource: Resource, token_file: Path | None) -> TracerProvider:
    """One that sends to where the variables say; its sampler is theirs too."""
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    delay = None if os.environ.get("OTEL_BSP_SCHEDULE_DELAY") else DELAY_MS
    provider.add_span_processor(BatchSpanProcessor(_exporter(token_file), schedule_delay_millis=delay))
    return provider


def _exporter(token_file: Path | None) -> SpanExporter:
    timeout = None if _setting("TIMEOUT") else DEFAULT_TIMEOUT_S
    if (_setting("PROTOCOL") or "").lower() == "grpc":
        return _grpc_exporter(token_file, timeout)
    session = requests.Session()
    if token_file is not None:
        session.auth = _Bearer(token_file)
    return HttpExporter(timeout=timeout, session=session)


def _grpc_exporter(token_file: Path | None, timeout: float | None) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    from openhands_otel.telemetry.fork_gate import fork_gate

    class GrpcExporter(OTLPSpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            with fork_gate.closed():
                return super().export(spans)

    headers = None if token_file is None else {"authorization": f"Bearer {token_file.read_text().strip()}"}
    return GrpcExporter(timeout=timeout, headers=headers)


class _Bearer(AuthBase):
    """Reads the token for each request, so that the file can be replaced."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, r: requests.PreparedRequest) -> Any:
        r.headers["authorization"] = f"Bearer {self._file.read_text().strip()}"
        return r


def _setting(name: str) -> str | None:
    for prefix in ("OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"):
        value = os.environ.get(prefix + name, "").strip()
        if value:
            return value
    return None
