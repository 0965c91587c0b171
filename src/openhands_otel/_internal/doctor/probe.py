"""Sends one point by the way that metrics take. It stands in a scope of its own, which counts nowhere."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from openhands_otel._internal.doctor.finding import Finding, ok, problem
from openhands_otel._internal.export.open_transport import open_transport
from openhands_otel._internal.export.otlp_config import OtlpConfig
from openhands_otel._internal.version import __version__
from openhands_otel.semconv import PROBE, PROBE_ID, REPLAYED_HEADER, SCOPE_DOCTOR, SERVICE_INSTANCE_ID

Service = Mapping[str, str]
"""Attributes that say which service it is."""
_TIMEOUT_S: Final = 5.0
_TOKEN: Final = re.compile(r"answered 40[13]|UNAUTHENTICATED|PERMISSION_DENIED|token", re.IGNORECASE)


def new_name() -> str:
    """What tells this probe from any other."""
    return secrets.token_hex(8)


def send_probe(config: OtlpConfig, name: str, service: Service) -> list[Finding]:
    """What became of it: of the token, and of the probe, which is of the service that this environment names.

    A token may send of one service alone.
    """
    # Told after the event: a viewer then takes nobody for alive.
    transport = open_transport(replace(config, headers={**config.headers, REPLAYED_HEADER: "1"}))
    try:
        outcome = transport.send(_request(name, service), max(config.timeout_s, _TIMEOUT_S))
    finally:
        transport.close()
    if outcome.delivered and not outcome.reason:
        shown = config.token_file is not None or "authorization" in config.headers
        token = "what is shown is accepted" if shown else "none is shown, and none is asked for"
        return [ok("token", token), ok("probe", f"{config.shown} took it over {config.protocol}")]
    if not outcome.delivered and _TOKEN.search(outcome.reason):
        return [problem("token", outcome.reason, "name a file with a token that may send in OPENHANDS_OTEL_TOKEN_FILE")]
    cure = "an OTLP receiver for metrics has to listen there, by that protocol"
    return [problem("probe", outcome.reason, f"{cure} ({config.variable('ENDPOINT')}, {config.variable('PROTOCOL')})")]


def _request(name: str, service: Service) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    whose = request.resource_metrics.add()
    about = {**service, SERVICE_INSTANCE_ID: f"doctor-{name}"}
    whose.resource.attributes.extend(_pair(key, value) for key, value in about.items())
    scope = whose.scope_metrics.add()
    scope.scope.name, scope.scope.version = SCOPE_DOCTOR, __version__
    metric = scope.metrics.add(name=PROBE, unit="1", description="Sent by openhands-otel doctor; it counts nowhere.")
    point = metric.gauge.data_points.add(time_unix_nano=time.time_ns(), as_int=1)
    point.attributes.append(_pair(PROBE_ID, name))
    return request


def _pair(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))
