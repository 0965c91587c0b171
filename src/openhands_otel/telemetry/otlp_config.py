"""Where metrics go and how, read from OpenTelemetry's standard variables.

``OTEL_EXPORTER_OTLP_METRICS_*`` wins over ``OTEL_EXPORTER_OTLP_*``, as the specification has it. Two things differ
from the SDK's exporters: a request may take 2 s where no timeout is given (they take 10, and retry inside), and a
``http/json`` protocol is sent as ``http/protobuf``. Timeouts are in seconds, as everywhere in OpenTelemetry Python.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

logger = logging.getLogger("openhands_otel")

Protocol = Literal["http/protobuf", "grpc"]
Temporality = Literal["cumulative", "delta", "lowmemory"]
Exporter = Literal["otlp", "none"]

GENERAL = "OTEL_EXPORTER_OTLP_"
METRICS = "OTEL_EXPORTER_OTLP_METRICS_"
DEFAULT_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class OtlpConfig:
    """One destination for metrics. ``endpoint`` is the full URL (HTTP) or ``host:port`` (gRPC)."""

    exporter: Exporter = "otlp"
    protocol: Protocol = "http/protobuf"
    endpoint: str = "http://localhost:4318/v1/metrics"
    insecure: bool = True
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    timeout_s: float = DEFAULT_TIMEOUT_S
    gzip: bool = False
    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    temporality: Temporality = "cumulative"
    exponential_histograms: bool = False
    exemplars: bool = True
    token_file: Path | None = None


def read_otlp_config(environ: Mapping[str, str] | None = None, token_file: Path | None = None) -> OtlpConfig:
    """Destination that the environment names. What cannot be used is replaced by the default, with one warning."""
    env = os.environ if environ is None else environ

    def setting(name: str) -> str | None:
        return env.get(METRICS + name, "").strip() or env.get(GENERAL + name, "").strip() or None

    protocol = _protocol(setting("PROTOCOL"))
    endpoint, insecure = _endpoint(env, protocol, setting("INSECURE"))
    return OtlpConfig(
        exporter=_exporter(env.get("OTEL_METRICS_EXPORTER", "")),
        protocol=protocol,
        endpoint=endpoint,
        insecure=insecure,
        headers=_headers(setting("HEADERS")),
        timeout_s=_timeout(setting("TIMEOUT")),
        gzip=(setting("COMPRESSION") or "").lower() == "gzip",
        certificate=setting("CERTIFICATE"),
        client_certificate=setting("CLIENT_CERTIFICATE"),
        client_key=setting("CLIENT_KEY"),
        temporality=_temporality(env.get(METRICS + "TEMPORALITY_PREFERENCE", "")),
        exponential_histograms=env.get(METRICS + "DEFAULT_HISTOGRAM_AGGREGATION", "").strip().lower()
        == "base2_exponential_bucket_histogram",
        exemplars=_exemplars(env.get("OTEL_METRICS_EXEMPLAR_FILTER", "")),
        token_file=token_file,
    )


def _protocol(given: str | None) -> Protocol:
    match (given or "http/protobuf").lower():
        case "grpc":
            return "grpc"
        case "http/protobuf":
            return "http/protobuf"
        case other:
            logger.warning("OTLP protocol %r is not supported for metrics: sending http/protobuf", other)
            return "http/protobuf"


def _endpoint(env: Mapping[str, str], protocol: Protocol, insecure: str | None) -> tuple[str, bool]:
    own = _url(METRICS + "ENDPOINT", env)
    general = _url(GENERAL + "ENDPOINT", env)
    if protocol == "http/protobuf":
        url = own or f"{(general or 'http://localhost:4318').rstrip('/')}/v1/metrics"
        return url, not url.lower().startswith("https:")
    given = own or general or "http://localhost:4317"
    parts = urlsplit(given)
    target = parts.netloc or given
    if parts.scheme == "https":
        return target, False
    if insecure is not None:
        return target, insecure.lower() == "true"
    return target, parts.scheme == "http"


def _url(variable: str, env: Mapping[str, str]) -> str:
    given = env.get(variable, "").strip()
    try:
        _ = urlsplit(given).port
    except ValueError:
        # Not its value: a URL may hold a password.
        logger.warning("%s is no URL and is not used: write one such as http://localhost:4318", variable)
        return ""
    return given


def _headers(given: str | None) -> dict[str, str]:
    headers: dict[str, str] = {}
    for pair in (given or "").split(","):
        name, separator, value = pair.partition("=")
        if separator and name.strip():
            headers[unquote(name.strip()).lower()] = unquote(value.strip())
        elif pair.strip():
            logger.warning("an OTLP header without '=' was left out: write name=value, separated by commas")
    return headers


def _timeout(given: str | None) -> float:
    if given is None:
        return DEFAULT_TIMEOUT_S
    try:
        seconds = float(given)
        if not math.isfinite(seconds):
            raise ValueError
        return max(0.05, seconds)
    except ValueError:
        logger.warning("OTLP timeout %r is not a number of seconds: using %g", given, DEFAULT_TIMEOUT_S)
        return DEFAULT_TIMEOUT_S


def _temporality(given: str) -> Temporality:
    match given.strip().lower():
        case "delta":
            return "delta"
        case "lowmemory":
            return "lowmemory"
        case _:
            return "cumulative"


def _exemplars(given: str) -> bool:
    match given.strip().lower():
        case "always_off":
            return False
        case "" | "trace_based" | "always_on":
            # Always on is no different here: a value of no sampled span would lead nowhere.
            return True
        case other:
            logger.warning("OTEL_METRICS_EXEMPLAR_FILTER=%s is not known: using trace_based", other)
            return True


def _exporter(given: str) -> Exporter:
    names = {name.strip().lower() for name in given.split(",") if name.strip()} or {"otlp"}
    if "otlp" in names:
        return "otlp"
    if names != {"none"}:
        logger.warning(
            "OTEL_METRICS_EXPORTER=%s: openhands-otel sends OTLP only, its metrics are not exported", given.strip()
        )
    return "none"
