"""``OTEL_CONFIG_FILE``, OpenTelemetry's declarative configuration: what a file says, in the words of the variables.

As the specification has it a file stands in the place of all ``OTEL_*`` variables: they hold only where it refers to
them. Honoured is what is used here: ``disabled``, the resource's attributes, of each provider the first OTLP exporter.
All else that is configured in it is named once. A file that cannot be used is one line of log, and then nothing is
sent: to whom, only the file could say.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, cast
from urllib.parse import quote

from openhands_otel._internal.export.config_tree import ConfigFileError, Tree, read_tree
from openhands_otel._internal.log import logger
from openhands_otel._internal.terminal_text import printable
from openhands_otel.semconv import STABILITY_OPT_IN

CONFIG_FILE: Final = "OTEL_CONFIG_FILE"
NOTHING: Final = {"OTEL_METRICS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": "none"}
Attribute = str | bool | int | float | list[str] | list[bool] | list[int] | list[float]

DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
_PLAIN: Final = (DISABLED, STABILITY_OPT_IN)
"""Variables of instrumentations, not of the SDK: a file leaves them in force."""
_TLS: Final = {"ca_file": "CERTIFICATE", "cert_file": "CLIENT_CERTIFICATE", "key_file": "CLIENT_KEY"}
_OLDER_TLS: Final = {
    "certificate_file": "CERTIFICATE",
    "client_certificate_file": "CLIENT_CERTIFICATE",
    "client_key_file": "CLIENT_KEY",
}
"""As file formats before 1.0 had it, beside the endpoint."""
_NO_LIMIT_S: Final = 86_400
_BATCH: Final = {
    "schedule_delay": "OTEL_BSP_SCHEDULE_DELAY",
    "max_queue_size": "OTEL_BSP_MAX_QUEUE_SIZE",
    "max_export_batch_size": "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
}
_said: set[str] = set()


@dataclass(frozen=True, slots=True)
class Standard:
    """What OpenTelemetry's own configuration says: the environment, or a file in its place."""

    environ: Mapping[str, str]
    """Variables, those that stand for the file included."""
    file: Path | None = None
    attributes: Mapping[str, Attribute] | None = None
    """Of the Resource, where a file says them all."""
    where: Mapping[str, str] = field(default_factory=dict[str, str])
    """Where in the file stands what a variable stands for."""
    unused: tuple[str, ...] = ()
    """What is configured in it and not used here."""
    problem: str | None = None
    """Why the file cannot be used."""


def standard(environ: Mapping[str, str] | None = None) -> Standard:
    """What holds now; a file is read anew when it changed. What there is to say of it is logged once in a process."""
    env = os.environ if environ is None else environ
    named = env.get(CONFIG_FILE, "").strip()
    if not named:
        return Standard(env)
    try:
        found = os.stat(named)
        stamp = (found.st_ino, found.st_ctime_ns, found.st_size)
    except (OSError, ValueError):
        stamp = None
    return _of_file(named, stamp, frozenset(env.items()))


def names_openhands(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's list of instrumentations that are not to be started has ours."""
    named = [name.strip() for name in environ.get(DISABLED, "").split(",")]
    return "openhands" in named or "*" in named


@lru_cache(maxsize=2)
def _of_file(named: str, stamp: object, given: frozenset[tuple[str, str]]) -> Standard:
    """Asked for a dozen times at a start. ``stamp``: another one whenever the file is another."""
    file, env = Path(named), dict(given)
    others = {name: value for name, value in env.items() if not name.startswith("OTEL_") or name in _PLAIN}
    try:
        found = _Reading(read_tree(file, env), file)
    except ConfigFileError as error:
        problem = f"{CONFIG_FILE}={printable(named, 200)} cannot be used, nothing is sent: {printable(str(error), 300)}"
        _say_once(problem, logging.WARNING)
        return Standard(others | NOTHING, file, {}, problem=problem)
    if found.unused:
        used = "resource, disabled and the OTLP exporters are"
        _say_once(
            f"{printable(named, 200)}: not used by openhands-otel: {', '.join(found.unused)} ({used})", logging.INFO
        )
    return Standard(others | found.variables, file, found.attributes, found.where, tuple(found.unused))


def _say_once(line: str, level: int) -> None:
    if line not in _said:
        _said.add(line)
        logger.log(level, "%s", line)


class _Reading:
    """Translates one file; see the module's docstring. Raises ConfigFileError."""

    def __init__(self, tree: Tree, file: Path) -> None:
        self._file = printable(file.name, 100)
        self.variables: dict[str, str] = {}
        self.where: dict[str, str] = {}
        self.unused: list[str] = []
        self.attributes: dict[str, Attribute] = {}
        given = dict(tree)
        given.pop("file_format", None)
        if given.pop("disabled", None) is True:
            self.variables["OTEL_SDK_DISABLED"] = "true"
        self._resource(_mapping(given.pop("resource", None), "resource"))
        self._metrics(_mapping(given.pop("meter_provider", None), "meter_provider"))
        self._traces(_mapping(given.pop("tracer_provider", None), "tracer_provider"))
        self._instrumentation(given)
        self._leave(given)

    def _leave(self, given: Mapping[str, Any], path: str = "") -> None:
        self.unused += [printable(f"{path}{name}", 80) for name, value in given.items() if value is not None]

    def _resource(self, resource: Tree) -> None:
        for pair in str(resource.pop("attributes_list", None) or "").split(","):
            name, separator, value = pair.partition("=")
            if separator and name.strip():
                self.attributes[name.strip()] = value.strip()
        for each in _list(resource.pop("attributes", None), "resource.attributes"):
            attribute = _mapping(each, "resource.attributes")
            if attribute.get("value") is not None:
                self.attributes[str(attribute.get("name"))] = _typed(attribute["value"], attribute.get("type"))
        self._leave(resource, "resource.")

    def _metrics(self, provider: Tree) -> None:
        exemplars = provider.pop("exemplar_filter", None)
        if exemplars is not None:
            self.variables["OTEL_METRICS_EXEMPLAR_FILTER"] = str(exemplars)
        readers = _list(provider.pop("readers", None), "meter_provider.readers")
        self._exporters("metrics", "meter_provider.readers", readers)
        self._leave(provider, "meter_provider.")

    def _traces(self, provider: Tree) -> None:
        processors = _list(provider.pop("processors", None), "tracer_provider.processors")
        self._exporters("traces", "tracer_provider.processors", processors)
        self._leave(provider, "tracer_provider.")

    def _exporters(self, signal: Literal["metrics", "traces"], path: str, parts: list[Any]) -> None:
        """Take the first OTLP exporter of a provider's readers or processors."""
        switch = f"OTEL_{signal.upper()}_EXPORTER"
        self.variables[switch] = "none"
        for number, part in enumerate(parts):
            for kind, content in _mapping(part, path).items():
                here = f"{path}[{number}].{kind}"
                settings = _mapping(content, here)
                exporter = _mapping(settings.pop("exporter", None), here)
                otlp = next((name for name in ("otlp_http", "otlp_grpc", "otlp") if name in exporter), None)
                if otlp is None or self.variables[switch] == "otlp":
                    self.unused += [f"{here}.exporter.{name}" for name in exporter] or [here]
                    continue
                self.variables[switch] = "otlp"
                self._otlp(signal, f"{here}.exporter.{otlp}", otlp, _mapping(exporter[otlp], here))
                if signal == "traces":
                    self._batch(settings)
                self._leave(settings, f"{here}.")

    def _batch(self, settings: Tree) -> None:
        for name, variable in _BATCH.items():
            value = settings.pop(name, None)
            if value is not None:
                self.variables[variable] = str(value)

    def _otlp(self, signal: str, path: str, kind: str, exporter: Tree) -> None:
        found = dict(self._transport(kind, exporter)) | dict(_tls(exporter, path)) | dict(_headers(exporter, path))
        found |= {
            "ENDPOINT": exporter.pop("endpoint", None),
            "COMPRESSION": exporter.pop("compression", None),
            "TIMEOUT": _seconds(exporter.pop("timeout", None), path),
        }
        if signal == "metrics":
            found["TEMPORALITY_PREFERENCE"] = str(exporter.pop("temporality_preference", None) or "").replace("_", "")
            found["DEFAULT_HISTOGRAM_AGGREGATION"] = exporter.pop("default_histogram_aggregation", None)
        for name, value in found.items():
            if value not in (None, ""):
                variable = f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}"
                self.variables[variable] = str(value)
                self.where[variable] = f"{name.lower()} of {path} in {self._file}"
        self._leave(exporter, f"{path}.")

    def _transport(self, kind: str, exporter: Tree) -> Iterator[tuple[str, object]]:
        encoding, protocol = exporter.pop("encoding", None), exporter.pop("protocol", None)
        if kind == "otlp_grpc":
            yield "PROTOCOL", "grpc"
        elif kind == "otlp_http":
            yield "PROTOCOL", f"http/{encoding or 'protobuf'}"
        else:
            yield "PROTOCOL", protocol

    def _instrumentation(self, given: Tree) -> None:
        name = "instrumentation/development"
        instrumentation = _mapping(given.pop(name, None), name)
        general = _mapping(instrumentation.pop("general", None), name)
        opted = general.pop("stability_opt_in_list", None)
        if opted is not None:
            self.variables[STABILITY_OPT_IN] = str(opted)
        self._leave(general, f"{name}.general.")
        self._leave(instrumentation, f"{name}.")


def _tls(exporter: Tree, path: str) -> Iterator[tuple[str, object]]:
    tls = _mapping(exporter.pop("tls", None), path)
    for names, given in ((_OLDER_TLS, exporter), (_TLS, tls)):
        for name, variable in names.items():
            if given.get(name) is not None:
                yield variable, given.pop(name)
    for given in (exporter, tls):
        insecure = given.pop("insecure", None)
        if insecure is not None:
            yield "INSECURE", str(insecure).lower()


def _headers(exporter: Tree, path: str) -> Iterator[tuple[str, object]]:
    pairs = [str(exporter.pop("headers_list", None) or "")]
    for each in _list(exporter.pop("headers", None), path):
        header = _mapping(each, path)
        if header.get("value") is not None:
            pairs.append(f"{quote(str(header.get('name')), safe='')}={quote(str(header['value']), safe='')}")
    # The later one wins, and what is named apart wins over the list.
    yield "HEADERS", ",".join(pair for pair in pairs if pair)


def _seconds(milliseconds: object, path: str) -> float | None:
    if milliseconds is None:
        return None
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int | float):
        raise ConfigFileError(f"the timeout of {path} is no number of milliseconds")
    return milliseconds / 1000 if milliseconds else _NO_LIMIT_S


def _typed(value: object, kind: object) -> Attribute:
    if isinstance(value, list):
        return [_one(each, str(kind).removesuffix("_array")) for each in cast(list[object], value)]  # pyright: ignore
    return _one(value, kind)


def _one(value: object, kind: object) -> str | bool | int | float:
    try:
        match kind:
            case "int":
                return int(str(value))
            case "double":
                return float(str(value))
            case "bool":
                return value if isinstance(value, bool) else str(value).lower() == "true"
            case None if isinstance(value, bool | int | float):
                return value
            case _:
                return str(value)
    except ValueError:
        raise ConfigFileError(f"an attribute of the resource is no {kind}") from None


def _mapping(value: object, path: str) -> Tree:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigFileError(f"{path} is no mapping")
    return {str(name): each for name, each in cast(dict[object, Any], value).items()}


def _list(value: object, path: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ConfigFileError(f"{path} is no list")
    return cast(list[Any], value)
