"""What of an environment is known to surprise: switches, Laminar's and litellm's variables, proxies, netrc, bundles."""

from __future__ import annotations

import netrc
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from openhands_otel._internal.doctor.finding import Finding, note, ok, problem
from openhands_otel._internal.export.config_file import CONFIG_FILE, DISABLED, names_openhands, standard
from openhands_otel._internal.export.otlp_config import ENDPOINT, OtlpConfig, read_otlp_config
from openhands_otel._internal.host.network import bundle_for_everybody, is_this_machine, proxy_for, without_secrets
from openhands_otel._internal.terminal_text import printable
from openhands_otel.settings import Settings

_CHECK: Final = "environment"
_TRUE: Final = frozenset(("true", "1", "yes", "on"))
_LITELLMS: Final = ("OTEL_ENDPOINT", "OTEL_EXPORTER", "OTEL_HEADERS")
"""What litellm's own OpenTelemetry callback reads, and OpenTelemetry does not."""
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "GRPC_PROXY")


def check_environment(
    environ: Mapping[str, str], config: OtlpConfig, settings: Settings, complaints: list[str]
) -> list[Finding]:
    """Look at the variables; ``complaints`` are what reading them has said already."""
    found = [
        *(problem(_CHECK, each, "mend that variable") for each in complaints if each != standard().problem),
        *_switches(environ, config, settings),
        *_others(environ),
        *_ways(environ, config),
    ]
    return found or [ok(_CHECK, "nothing in it that is known to surprise")]


def _switches(environ: Mapping[str, str], config: OtlpConfig, settings: Settings) -> Iterator[Finding]:
    yield from _config_file(config)
    if not settings.enabled:
        yield problem(_CHECK, "OPENHANDS_OTEL_ENABLED turns us off", "unset it")
    of_file = standard().file is not None
    if standard().environ.get("OTEL_SDK_DISABLED", "").strip().lower() in _TRUE:
        switch = "'disabled' of the file" if of_file else "OTEL_SDK_DISABLED"
        yield problem(_CHECK, f"{switch} turns OpenTelemetry off", "set it to false" if of_file else "unset it")
    if names_openhands(environ):
        yield problem(_CHECK, f"{DISABLED} names openhands", "take it out of that list")
    if config.exporter == "none" and of_file:
        if standard().problem is None:
            said = "the file has no reader with an OTLP exporter: metrics go nowhere"
            yield problem(_CHECK, said, "add one under meter_provider.readers")
    elif config.exporter == "none":
        yield problem(_CHECK, "OTEL_METRICS_EXPORTER has no otlp in it: metrics go nowhere", "set it to otlp, or unset")
    if config.problem:
        yield problem(_CHECK, config.problem, "mend that variable")
    if settings.file is not None and not _writable(settings.file):
        shown = printable(str(settings.file), 200)
        yield problem(_CHECK, f"OPENHANDS_OTEL_FILE: {shown} cannot be written", "name a folder that can")
    if settings.file is not None and config.own_only:
        yield note(
            _CHECK,
            "OPENHANDS_OTEL_FILE alone: metrics go into files, and to nobody",
            f"name a viewer with {ENDPOINT}, or import the files: openhands-otel import DIR",
        )
    if settings.token_file is not None and "authorization" in config.headers:
        yield note(_CHECK, "the token of OPENHANDS_OTEL_TOKEN_FILE wins over the authorization header", "name one")


def _config_file(config: OtlpConfig) -> Iterator[Finding]:
    """What was read from where."""
    read = standard()
    if read.file is None:
        return
    if read.problem is not None:
        yield problem(_CHECK, read.problem, "mend the file, or unset the variable")
        return
    name = printable(str(read.file), 200)
    traces = read_otlp_config(signal="traces")
    ways = [f"{each.signal} to {each.shown} ({each.protocol})" for each in (config, traces) if each.exporter == "otlp"]
    named = f"{len(read.attributes or ())} attributes of the resource"
    yield ok(_CHECK, f"{CONFIG_FILE}={name} in the place of OTEL_* variables: {', '.join((*ways, named))}")
    if read.unused:
        yield note(_CHECK, f"not used of it: {printable(', '.join(read.unused), 400)}", "docs/configuration.md")


def _others(environ: Mapping[str, str]) -> Iterator[Finding]:
    if environ.get("LMNR_PROJECT_API_KEY", "").strip():
        yield note(
            _CHECK,
            "LMNR_PROJECT_API_KEY starts OpenHands' Laminar tracing, which sends prompts and answers to Laminar",
            "unset it unless that is meant (docs/traces.md)",
        )
    named = [name for name in _LITELLMS if environ.get(name, "").strip()]
    if named:
        yield note(
            _CHECK, f"{', '.join(named)}: of litellm's own callback, nobody else reads that", f"for us it is {ENDPOINT}"
        )


def _ways(environ: Mapping[str, str], config: OtlpConfig) -> Iterator[Finding]:
    url = _url(config)
    host = urlsplit(url).hostname or ""
    set_ = [name for name in _PROXIES if environ.get(name) or environ.get(name.lower())]
    proxy = proxy_for(url, "grpc" if config.protocol == "grpc" else None)
    if proxy is not None:
        shown = printable(without_secrets(proxy), 100)
        yield note(_CHECK, f"what is sent goes by way of the proxy {shown}", f"or not: NO_PROXY={host}")
    elif set_ and is_this_machine(host):
        yield note(_CHECK, f"{', '.join(set_)} is not used on the way to this machine")
    if _has_netrc(environ, host):
        yield note(_CHECK, f"~/.netrc has a password for {host}, which is not read", "use OPENHANDS_OTEL_TOKEN_FILE")
    everybody = bundle_for_everybody()
    if everybody is not None and not config.insecure and config.certificate is None and config.protocol != "grpc":
        variable, file = everybody
        yield note(_CHECK, f"certificates are those of {variable} ({printable(file, 200)})")


def _url(config: OtlpConfig) -> str:
    if config.protocol != "grpc":
        return config.endpoint
    return f"{'http' if config.insecure else 'https'}://{config.endpoint}"


def _writable(folder: Path) -> bool:
    """Whether files can be made there, and the folder itself where it is missing."""
    there = next((each for each in (folder, *folder.parents) if each.exists() or each.is_symlink()), folder)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _has_netrc(environ: Mapping[str, str], host: str) -> bool:
    try:
        file = environ.get("NETRC") or str(Path.home() / ".netrc")
        return netrc.netrc(file).hosts.get(host) is not None
    except (OSError, RuntimeError, netrc.NetrcParseError):
        return False
