"""Where metrics and spans go and how, read from OpenTelemetry's standard variables.

The variables of a signal (``OTEL_EXPORTER_OTLP_METRICS_*``, ``..._TRACES_*``) win over ``OTEL_EXPORTER_OTLP_*``, as the
specification has it. Two things differ from the SDK's exporters: a request may take 2 s where no timeout is given (they
take 10), and a ``http/json`` protocol is sent as ``http/protobuf``. Timeouts are in seconds, as everywhere in
OpenTelemetry Python.

Files that variables name (certificates, keys, the token) are not looked at here: they may come later.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypedDict
from urllib.parse import unquote, urlsplit, urlunsplit

from openhands_otel._internal.export.config_file import Standard, standard
from openhands_otel._internal.host.neighbours import stranger_at
from openhands_otel._internal.host.network import without_secrets
from openhands_otel._internal.log import logger
from openhands_otel._internal.terminal_text import printable
from openhands_otel.semconv import BOTH_GENAI, NEWEST_GENAI, STABILITY_OPT_IN, GenAINames

Signal = Literal["metrics", "traces"]
Protocol = Literal["http/protobuf", "grpc"]
Temporality = Literal["cumulative", "delta", "lowmemory"]
Exporter = Literal["otlp", "none"]
Compression = Literal["gzip", "deflate"]

GENERAL = "OTEL_EXPORTER_OTLP_"
ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
DEFAULT_TIMEOUT_S = 2.0
LEAST_TIMEOUT_S: Final = 0.05
LONGEST_TIMEOUT_S: Final = 86_400.0
"""Sockets take no number that is much larger."""
EXPORTERS: Final[Mapping[str, Protocol | None]] = {
    "otlp": None,
    "otlp_proto_http": "http/protobuf",
    "otlp_proto_grpc": "grpc",
}
"""Names of exporters that OpenTelemetry Python knows for OTLP, with the protocol that is in the name."""

_METRICS: Final = "OTEL_EXPORTER_OTLP_METRICS_"
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")


@dataclass(frozen=True, slots=True)
class OtlpConfig:
    """One destination. ``endpoint`` is the full URL (HTTP) or ``host:port`` (gRPC), never with a user in it.

    What may hold a secret (query, headers) does not show in ``repr``.
    """

    signal: Signal = "metrics"
    exporter: Exporter = "otlp"
    protocol: Protocol = "http/protobuf"
    endpoint: str = field(default="http://localhost:4318/v1/metrics", repr=False)
    insecure: bool = True
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    timeout_s: float = DEFAULT_TIMEOUT_S
    compression: Compression | None = None
    certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    temporality: Temporality = "cumulative"
    exponential_histograms: bool = False
    exemplars: bool = True
    names: GenAINames = GenAINames.TODAY
    """Which generation of GenAI names is sent."""
    token_file: Path | None = None
    own_only: bool = False
    """Nobody has said where to send: then no other user's process gets anything, though it listen where ours would."""
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    """Which variable a value came from, by the variable's last part: ``{"CERTIFICATE": "OTEL_EXPORTER_OTLP_..."}``."""
    problem: str | None = None
    """Why nothing can be sent with this; one line that names the variable, or the place in a file."""

    @property
    def shown(self) -> str:
        """The endpoint as it may stand in a log."""
        return printable(without_secrets(self.endpoint) if self.protocol == "http/protobuf" else self.endpoint, 200)

    def variable(self, name: str) -> str:
        """The variable that said ``name``, or the one to say it with."""
        return self.variables.get(name, GENERAL + name)


def read_otlp_config(
    environ: Mapping[str, str] | None = None,
    token_file: Path | None = None,
    signal: Signal = "metrics",
    own_only: bool = False,
) -> OtlpConfig:
    """Destination that the environment names; ``own_only``: or that stands there for want of a name.

    Unless ``environ`` is given, a file that OTEL_CONFIG_FILE names stands in its place. What can be done without is
    replaced by the default, with one warning; what cannot is each export's ``problem``.
    """
    settings = standard() if environ is None else Standard(environ)
    env, where = settings.environ, settings.where
    variables: dict[str, str] = {}

    def setting(name: str) -> str | None:
        for variable in (f"{GENERAL}{signal.upper()}_{name}", GENERAL + name):
            value = env.get(variable, "").strip()
            if value:
                variables[name] = where.get(variable, variable)
                return value
        return None

    exporter, named = _exporter(env.get(f"OTEL_{signal.upper()}_EXPORTER", ""), signal)
    protocol = named or _protocol(setting("PROTOCOL"), variables)
    address = _endpoint(settings, signal, protocol, setting("INSECURE"), variables)
    headers, bad_header = _headers(setting("HEADERS"), variables)
    return OtlpConfig(
        signal=signal,
        exporter=exporter,
        protocol=protocol,
        endpoint=address.endpoint,
        insecure=address.insecure,
        headers=address.headers | headers,
        timeout_s=_timeout(setting("TIMEOUT"), variables),
        compression=_compression(setting("COMPRESSION"), variables),
        certificate=setting("CERTIFICATE"),
        client_certificate=setting("CLIENT_CERTIFICATE"),
        client_key=setting("CLIENT_KEY"),
        **(_of_metrics(env) if signal == "metrics" else _OfMetrics()),
        token_file=token_file,
        own_only=own_only or "ENDPOINT" not in variables,
        variables=variables,
        problem=address.problem or bad_header,
    )


class _OfMetrics(TypedDict, total=False):
    temporality: Temporality
    exponential_histograms: bool
    exemplars: bool
    names: GenAINames


def _of_metrics(env: Mapping[str, str]) -> _OfMetrics:
    aggregation = env.get(_METRICS + "DEFAULT_HISTOGRAM_AGGREGATION", "").strip().lower()
    return {
        "temporality": _temporality(env.get(_METRICS + "TEMPORALITY_PREFERENCE", "")),
        "exponential_histograms": aggregation == "base2_exponential_bucket_histogram",
        "exemplars": _exemplars(env.get("OTEL_METRICS_EXEMPLAR_FILTER", "")),
        "names": names_asked(env),
    }


def names_asked(env: Mapping[str, str]) -> GenAINames:
    """Which generation of GenAI names OpenTelemetry's own switch asks for; its other words are others' business."""
    words = {word.strip() for word in env.get(STABILITY_OPT_IN, "").split(",")}
    if BOTH_GENAI in words:
        return GenAINames.BOTH
    return GenAINames.NEWEST if NEWEST_GENAI in words else GenAINames.TODAY


def _protocol(given: str | None, variables: Mapping[str, str]) -> Protocol:
    match (given or "http/protobuf").lower():
        case "grpc":
            return "grpc"
        case "http/protobuf":
            return "http/protobuf"
        case _:
            logger.warning(
                "%s=%s is not supported: sending http/protobuf", variables["PROTOCOL"], printable(given or "", 40)
            )
            return "http/protobuf"


@dataclass(frozen=True, slots=True)
class _Address:
    endpoint: str
    insecure: bool
    headers: dict[str, str] = field(repr=False)
    problem: str | None = None


def _endpoint(
    settings: Standard, signal: Signal, protocol: Protocol, insecure: str | None, variables: dict[str, str]
) -> _Address:
    own = _url(f"{GENERAL}{signal.upper()}_ENDPOINT", settings, variables)
    general = "" if own else _url(GENERAL + "ENDPOINT", settings, variables)
    if protocol == "http/protobuf":
        url, headers = _without_user(own or general or "http://localhost:4318")
        parts = urlsplit(url)
        if not own:
            url = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/v1/{signal}"))
        problem = None
        if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
            problem = (
                f"{variables['ENDPOINT']} is no URL with http:// or https:// in front, as in http://localhost:4318"
            )
        return _Address(url, parts.scheme.lower() != "https", headers, problem)
    given, headers = _without_user(own or general or "http://localhost:4317")
    parts = urlsplit(given)
    target = parts.netloc or given
    if parts.scheme == "https":
        return _Address(target, False, headers)
    if insecure is not None:
        return _Address(target, insecure.lower() == "true", headers)
    return _Address(target, parts.scheme == "http", headers)


def _url(variable: str, settings: Standard, variables: dict[str, str]) -> str:
    given = settings.environ.get(variable, "").strip()
    variable = settings.where.get(variable, variable)
    try:
        _ = urlsplit(given).port
    except ValueError:
        # Not its value: a URL may hold a password.
        logger.warning("%s is no URL and is not used: write one such as http://localhost:4318", variable)
        return ""
    if given:
        variables["ENDPOINT"] = variable
    return given


def _without_user(url: str) -> tuple[str, dict[str, str]]:
    """A user and password in a URL are a header, and nothing else of ours is to see them."""
    parts = urlsplit(url)
    user, separator, host = parts.netloc.rpartition("@")
    if not separator:
        return url, {}
    encoded = base64.b64encode(unquote(user).encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), {"authorization": f"Basic {encoded}"}


def _headers(given: str | None, variables: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
    """The headers, and what is wrong with one that cannot be sent. Of a value nothing is ever told."""
    headers: dict[str, str] = {}
    problem = None
    for pair in (given or "").split(","):
        name, separator, value = (unquote(part.strip()).strip() for part in pair.partition("="))
        if separator and name:
            headers[name.lower()] = value
            if not (_HEADER_NAME.fullmatch(name.lower()) and value.isascii() and (value.isprintable() or not value)):
                problem = (
                    f"{variables['HEADERS']} has a header that cannot be sent: only printable ASCII characters can"
                )
        elif pair.strip():
            logger.warning(
                "%s: a header without '=' was left out: write name=value, separated by commas", variables["HEADERS"]
            )
    return headers, problem


def _timeout(given: str | None, variables: Mapping[str, str]) -> float:
    if given is None:
        return DEFAULT_TIMEOUT_S
    try:
        seconds = float(given)
        if not math.isfinite(seconds):
            raise ValueError
        return min(max(LEAST_TIMEOUT_S, seconds), LONGEST_TIMEOUT_S)
    except ValueError:
        logger.warning(
            "%s=%s is not a number of seconds: using %g", variables["TIMEOUT"], printable(given, 40), DEFAULT_TIMEOUT_S
        )
        return DEFAULT_TIMEOUT_S


def _compression(given: str | None, variables: Mapping[str, str]) -> Compression | None:
    match (given or "none").lower():
        case "gzip":
            return "gzip"
        case "deflate":
            return "deflate"
        case "none":
            return None
        case other:
            logger.warning("%s=%s is not known: sending without", variables["COMPRESSION"], printable(other, 40))
            return None


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
            logger.warning("OTEL_METRICS_EXEMPLAR_FILTER=%s is not known: using trace_based", printable(other, 40))
            return True


def _exporter(given: str, signal: Signal) -> tuple[Exporter, Protocol | None]:
    """Whether there is to be one, and the protocol if its name says so."""
    names = exporter_names(given)
    for name in names:
        if name in EXPORTERS:
            return "otlp", EXPORTERS[name]
    # Whether there are spans without one is decided elsewhere (traces.py).
    if names != ["none"] and signal == "metrics":
        logger.warning(
            "OTEL_METRICS_EXPORTER=%s: openhands-otel sends OTLP only, its metrics are not exported",
            printable(given.strip(), 80),
        )
    return "none", None


def exporter_names(given: str) -> list[str]:
    """The names in a variable such as OTEL_TRACES_EXPORTER, in order."""
    return [name.strip().lower() for name in given.split(",") if name.strip()] or ["otlp"]


def stranger_in(config: OtlpConfig) -> str | None:
    """Why nothing is sent: where nobody told us to send somebody else listens. Asked before each request."""
    if not config.own_only:
        return None
    parts = urlsplit(config.endpoint if config.protocol == "http/protobuf" else f"//{config.endpoint}")
    try:
        stranger = stranger_at(parts.hostname or "", parts.port or 0)
    except ValueError:
        return None
    if stranger is None:
        return None
    return f"{stranger}: nothing is sent there, unless {config.variable('ENDPOINT')} names it"
