"""Whether somebody listens at the end of the way, and whether his certificate is trusted: a connection, and no word."""

from __future__ import annotations

import socket
import ssl
from typing import Final
from urllib.parse import urlsplit

from openhands_otel._internal.doctor.finding import Finding, note, ok, problem
from openhands_otel._internal.export.causes import cause_of, unusable_file
from openhands_otel._internal.export.otlp_config import OtlpConfig, stranger_in
from openhands_otel._internal.host.network import proxy_for, tls_context, without_secrets
from openhands_otel._internal.terminal_text import printable

_REACH: Final = "reachability"
_TLS: Final = "TLS"
_START: Final = "start 'openhands-otel view' there, or name another address in "


def check_reach(config: OtlpConfig) -> list[Finding]:
    """The first finding that is a problem is the last one."""
    variable = config.variable("ENDPOINT")
    url = f"//{config.endpoint}" if config.protocol == "grpc" else config.endpoint
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (80 if config.insecure else 443)
    whole = f"{'http' if config.insecure else 'https'}://{config.endpoint}" if config.protocol == "grpc" else url
    stranger = stranger_in(config)
    if stranger is not None:
        return [problem(_REACH, stranger, f"if it is meant, set {variable}")]
    proxy = proxy_for(whole, "grpc" if config.protocol == "grpc" else None)
    timeout_s = max(config.timeout_s, 2.0)
    if proxy is not None:
        return [_knock(proxy, timeout_s)]
    try:
        connection = socket.create_connection((host, port), timeout_s)
    except TimeoutError:
        return [problem(_REACH, f"{config.shown}: no connection within {timeout_s:g} s", "look for a firewall between")]
    except OSError as error:
        return [problem(_REACH, f"{config.shown}: {cause_of(error, config)}", _START + variable)]
    with connection:
        found = [ok(_REACH, f"{config.shown}: somebody listens")]
        return found if config.insecure else [*found, _shake_hands(connection, host, config)]


def _knock(proxy: str, timeout_s: float) -> Finding:
    parts = urlsplit(proxy)
    shown = printable(without_secrets(proxy), 100)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), timeout_s).close()
    except OSError as error:
        why = printable(error.strerror or type(error).__name__, 60)
        return problem(_REACH, f"the proxy {shown} cannot be reached: {why}", "mend HTTPS_PROXY, or set NO_PROXY")
    return note(_REACH, f"the proxy {shown} listens; what is behind it only the probe tells")


def _shake_hands(connection: socket.socket, host: str, config: OtlpConfig) -> Finding:
    unusable = unusable_file(config)
    if unusable is not None:
        return problem(_TLS, unusable, "name a file that can be used")
    try:
        context = tls_context(config.certificate)
        if config.client_certificate is not None:
            context.load_cert_chain(config.client_certificate, config.client_key, lambda: "")
        with context.wrap_socket(connection, server_hostname=host) as secure:
            expires = (secure.getpeercert() or {}).get("notAfter", "")
            return ok(_TLS, f"{secure.version()}, a certificate for {host} that is trusted until {expires}")
    except (OSError, ssl.SSLError, ValueError) as error:
        variable = config.variable("CERTIFICATE")
        return problem(_TLS, cause_of(error, config), f"{variable} names the authority's certificate (PEM)")
