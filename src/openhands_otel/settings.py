"""The settings of this package, read once from ``OPENHANDS_OTEL_*``. No other module reads those variables.

OpenTelemetry's own ``OTEL_*`` variables say where telemetry goes: endpoint, headers, protocol, certificates, resource.

Since 0.1.0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from openhands_otel._internal.labels import CANVAS_TAGS, LABEL_LIMIT, NAMES, is_name, labels_of, read_labels, read_names
from openhands_otel.semconv import BudgetScope, NoticeKind

# fmt: off
__all__ = [
    "Budgets", "Settings", "SettingsError", "Traces", "ViewerSettings", "load",
]
# fmt: on

Traces = Literal["auto", "otlp", "own", "laminar", "off"]


def _budgets(given: object) -> object:
    """``day=20,team=100`` as a mapping."""
    if not isinstance(given, str):
        return given
    budgets: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in given.split(","))):
        scope, _, amount = (word.strip() for word in part.partition("="))
        if scope not in set(BudgetScope):
            raise ValueError(f"'{part}' is not {', '.join(BudgetScope)} with an amount, as in day=20,team=100")
        try:
            budgets[scope] = float(amount)
        except ValueError:
            raise ValueError(f"'{part}' has no amount of dollars, as in {scope}=20") from None
        if not (math.isfinite(budgets[scope]) and budgets[scope] > 0):
            raise ValueError(f"'{part}' is no amount above 0")
    return budgets


_USUAL_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|[0-9a-f:.]*:[0-9a-f:.]*")


def _origin(given: str) -> str:
    """As it is, if a browser would name a page's origin so: any other would never be the one that asks."""
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    host = parts.hostname or ""
    named = f"[{host}]" if ":" in host else host
    exact = f"{parts.scheme}://{named}" + ("" if port in (None, _USUAL_PORTS.get(parts.scheme)) else f":{port}")
    if parts.scheme not in _USUAL_PORTS or not _HOST.fullmatch(host) or given != exact:
        raise ValueError(f"'{given}' is no origin of one page, as in http://localhost:8000: no path, no pattern")
    return given


def _absolute(given: Path) -> Path:
    """As it is now: the process may go elsewhere."""
    try:
        return given.expanduser().absolute()
    except RuntimeError:
        return given.absolute()


Budgets = Annotated[Mapping[BudgetScope, float], NoDecode, BeforeValidator(_budgets)]


_SENDABLE = re.compile(r"user_id|enduser\.id|host\.name|workspace|tags\.[a-z0-9]{1,63}")


class SettingsError(ValueError):
    """A setting has a value that cannot be used; the message is one line that names the variable."""


class Settings(BaseSettings):
    """What the instrumented process needs to know."""

    model_config = SettingsConfigDict(env_prefix="OPENHANDS_OTEL_", frozen=True, extra="ignore")

    enabled: bool = Field(default=True, description="False leaves OpenHands as it is.")
    flush_window_ms: float = Field(
        default=5.0, ge=0, le=1000, description="How long a change waits for others before it is sent, milliseconds."
    )
    flush_cpu_share: float = Field(
        default=0.02, gt=0, le=1, description="Share of one core that flushes may use on average."
    )
    heartbeat_s: float = Field(
        default=60.0, gt=0, le=3600, description="How often unchanged series are sent again, seconds."
    )
    exit_timeout_s: float = Field(
        default=1.5, ge=0, le=60, description="How long the process's end may wait for the last export, seconds."
    )
    series_limit: int = Field(
        default=1000, ge=10, description="Attribute sets per fleet metric; what comes after falls into one bucket."
    )
    conversation_limit: int = Field(
        default=10_000, ge=10, description="Open conversations with series of their own; later ones share one bucket."
    )
    token_file: Path | None = Field(
        default=None, description="File whose content is sent as bearer token with each export."
    )
    own_viewer_only: bool = Field(
        default=False, description="On this machine, send to no other user's process. `run` sets it for its default."
    )
    file: Annotated[Path, AfterValidator(_absolute)] | None = Field(
        default=None, description="Folder for metrics as files, to be imported; alone, unless an endpoint is named."
    )
    budgets: Budgets = Field(
        default={}, description="Dollars that may be spent, by scope, as in `day=20,team=100,experiment=500`."
    )
    labels: Annotated[Mapping[str, str], NoDecode] = Field(
        default={}, description="Labels of all that this process spends, as in `team=payments,project=checkout`."
    )
    fleet_labels: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Labels set in code that the fleet's cost, token and call counters have, by name."
    )
    send: Annotated[frozenset[str], NoDecode] = Field(
        default=frozenset(f"tags.{name}" for name in CANVAS_TAGS),
        description="What may be sent of people: user_id, enduser.id, host.name, workspace, tags.NAME; empty: nothing.",
    )
    remote_stats: str | None = Field(
        default=None, description="Viewer's URL that keeps the stats of a RemoteConversation in this process live."
    )
    traces: Traces = Field(default="auto", description="Whose spans there are: auto, otlp, own, laminar or off.")
    redact: str | None = Field(
        default=None, description="Further patterns to take out of captured content, separated by white space."
    )

    @field_validator("labels", mode="before")
    @classmethod
    def _read_labels(cls, given: object) -> object:
        """A mistake in the variable costs that label alone, one in code is told to whoever makes it."""
        return read_labels(given, "OPENHANDS_OTEL_LABELS") if isinstance(given, str) else given

    @field_validator("labels")
    @classmethod
    def _clean_labels(cls, given: Mapping[str, str]) -> Mapping[str, str]:
        for name in given:
            if not is_name(name):
                raise ValueError(f"'{name}' is no name: {NAMES}")
        if len(given) > LABEL_LIMIT:
            raise ValueError(f"{len(given)} labels, and no more than {LABEL_LIMIT} hold at a time")
        return dict(labels_of(given))

    @field_validator("fleet_labels", mode="before")
    @classmethod
    def _read_fleet_labels(cls, given: object) -> object:
        return read_names(given, "OPENHANDS_OTEL_FLEET_LABELS") if isinstance(given, str) else given

    @field_validator("send", mode="before")
    @classmethod
    def _read_send(cls, given: object) -> object:
        known = "it is none of user_id, enduser.id, host.name, workspace and tags.NAME, as in tags.team"
        return read_names(given, "OPENHANDS_OTEL_SEND", _SENDABLE, known) if isinstance(given, str) else given


class ViewerSettings(BaseSettings):
    """What ``openhands-otel view`` needs to know; its options override these."""

    model_config = SettingsConfigDict(env_prefix="OPENHANDS_OTEL_VIEWER_", frozen=True, extra="ignore")

    host: str = Field(default="127.0.0.1", description="Address to listen on; anything but loopback needs a token.")
    port: int = Field(default=4318, ge=0, le=65535, description="OTLP/HTTP, page and API; 0 takes a free one.")
    grpc_port: int = Field(default=4317, ge=0, le=65535, description="OTLP/gRPC; 0 takes a free one.")
    also_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="A second port of OTLP/HTTP, page and API, on 127.0.0.1; none: no second one.",
    )
    database: Path | None = Field(
        default=None, description="SQLite file that keeps the history; none: one in your state directory."
    )
    token: SecretStr | None = Field(default=None, description="Bearer token that senders and viewers must show.")
    token_file: Path | None = Field(default=None, description="File that holds the token.")
    tokens_file: Path | None = Field(
        default=None, description="File of named tokens (`openhands-otel token`); none: one beside the history."
    )
    tls_cert_file: Path | None = Field(
        default=None, description="Certificate (PEM, its chain behind it): the viewer speaks TLS on both ports."
    )
    tls_key_file: Path | None = Field(default=None, description="The certificate's key (PEM).")
    public_url: str | None = Field(
        default=None, description="Where a reverse proxy shows the viewer; then everybody needs a token."
    )
    origins: Annotated[frozenset[str], NoDecode] = Field(
        default=frozenset(), description="Pages elsewhere that may read the API, as in `http://localhost:8000`."
    )
    trust_machine: bool = Field(
        default=False, description="On loopback, ask no process of this machine for a token, whoever's it is."
    )
    conversation_limit: int = Field(
        default=2_000, ge=10, description="Conversations held in memory; ended ones beyond it stay in the database."
    )
    retention_days: float = Field(
        default=30.0, gt=0, le=36_500, description="How long history is kept, days; totals are kept for ever."
    )
    spend_days: float = Field(
        default=400.0, gt=0, le=36_500, description="How long spend keeps its quarter-hour, days; its sums stay."
    )
    span_days: float = Field(default=7.0, gt=0, le=36_500, description="How long spans are kept, days.")
    span_mb: int = Field(
        default=500, ge=0, le=1_000_000, description="Room for spans, MB: the oldest give way; 0 keeps none."
    )
    trace_url: str | None = Field(
        default=None, description="Where a trace can be seen, as in http://jaeger:16686/trace/{trace_id}."
    )
    budgets: str | None = Field(
        default=None, description="US dollars by day, week or month: `day=60,month:team=payments=300`."
    )
    notify: SecretStr | None = Field(
        default=None, description="URLs of Apprise, separated by white space: who is told what needs a person."
    )
    notify_file: Path | None = Field(default=None, description="File with such URLs, one a line.")
    notices: Annotated[frozenset[NoticeKind] | None, NoDecode] = Field(
        default=None, description="What is told, of budget, burning, stuck, waiting, error, unpriced; none: all."
    )
    quiet: str | None = Field(default=None, description="Hours in which nobody is told anything: `22:00-07:00`.")
    burning_usd: float = Field(
        default=5.0, gt=0, description="US dollars spent without a tool call after which somebody is told."
    )
    timezone: str | None = Field(
        default=None, description="Whose days and hours are shown, as in Europe/Berlin; none: this machine's zone."
    )

    @field_validator("origins", mode="before")
    @classmethod
    def _read_origins(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        return frozenset(_origin(each.strip()) for each in given.split(",") if each.strip())

    @field_validator("notices", mode="before")
    @classmethod
    def _read_notices(cls, given: object) -> object:
        if not isinstance(given, str):
            return given
        names = [name.strip() for name in given.split(",") if name.strip()]
        for name in names:
            if name not in set(NoticeKind):
                raise ValueError(f"'{name}' is no kind of notice: there is {', '.join(NoticeKind)}")
        return frozenset(map(NoticeKind, names))

    @field_validator("quiet")
    @classmethod
    def _are_hours(cls, given: str | None) -> str | None:
        if given:
            from openhands_otel._internal.spend.quiet_hours import QuietHours

            QuietHours.parse(given)
        return given or None

    @field_validator("budgets")
    @classmethod
    def _are_budgets(cls, given: str | None) -> str | None:
        if given is not None:
            from openhands_otel._internal.spend.budgets import read_limits

            read_limits(given)
        return given

    @field_validator("public_url")
    @classmethod
    def _is_reachable(cls, given: str | None) -> str | None:
        parts = urlsplit(given or "")
        plain = parts.hostname and not (parts.query or parts.fragment or parts.username)
        if given and not (parts.scheme in {"http", "https"} and plain):
            raise ValueError("it must be where browsers reach the viewer, as in https://host.example/spend")
        return given or None

    @field_validator("trace_url")
    @classmethod
    def _leads_to_a_trace(cls, given: str | None) -> str | None:
        if given is not None and not (given.startswith(("http://", "https://")) and "{trace_id}" in given):
            raise ValueError("it must begin with http:// or https:// and have {trace_id} where the id goes")
        return given

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, given: str | None) -> str | None:
        if given is not None:
            # Only here, so that a process that shows nothing does not import it.
            from openhands_otel._internal.spend.zones import zone_of

            zone_of(given)
        return given


def load[S: BaseSettings](kind: type[S], **overrides: object) -> S:
    """Read settings from the environment.

    Args:
        kind: Settings or ViewerSettings. Further keywords are settings by name that win over the environment, unless
            they are None.

    Raises:
        SettingsError: A value cannot be used; the message is one line that names the variable.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return kind(**given)  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        problem = _one_line(kind, error)
    # Outside of the handler: pydantic's error holds what was given, and would travel along.
    raise SettingsError(problem)


def _one_line(kind: type[BaseSettings], error: ValidationError) -> str:
    prefix = kind.model_config.get("env_prefix", "")
    problems = [
        f"{prefix}{'_'.join(str(part) for part in problem['loc'])}".upper()
        + f": {problem['msg'].removeprefix('Value error, ')}"
        for problem in error.errors()
    ]
    return "; ".join(problems)
