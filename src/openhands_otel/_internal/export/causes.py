"""Why a request did not get through, in words: what went wrong below the library's own exceptions, and what to do.

An exception's text is never taken as it is: libraries put URLs and header values into it.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
from pathlib import Path
from typing import Final

import requests

from openhands_otel._internal.export.otlp_config import OtlpConfig
from openhands_otel._internal.host.network import bundle_for_everybody, chain_of
from openhands_otel._internal.terminal_text import printable

_NO_TLS: Final = re.compile("WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|HTTP_REQUEST|UNKNOWN_PROTOCOL|PACKET_LENGTH")
_UNTRUSTED: Final = re.compile("self.signed|unable to get (local )?issuer|unable to verify", re.IGNORECASE)
_TUNNEL: Final = re.compile(r"Tunnel connection failed: (\d+ [\w ]*)")


def cause_of(error: BaseException, config: OtlpConfig) -> str:
    """One line, without what was sent or to whom."""
    found = list(chain_of(error))
    if "SOCKS" in " ".join(map(str, found)):
        return "the environment names a SOCKS proxy, which takes: pip install pysocks"
    for each in found:
        if isinstance(each, ssl.SSLError):
            return _tls_cause(each, config)
    for each in found:
        if isinstance(each, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
            return f"{config.variable('ENDPOINT')} is no URL that can be used"
        refused = _TUNNEL.search(str(each)) if isinstance(each, OSError) else None
        if refused is not None:
            return f"it answered {printable(refused[1], 60)}"
        if isinstance(each, socket.gaierror):
            return f"the host's name is not known: {each.strerror}"
        if isinstance(each, http.client.BadStatusLine) and not isinstance(each, http.client.RemoteDisconnected):
            return _stranger(str(each))
        if isinstance(each, ConnectionRefusedError):
            return "connection refused: nothing listens there"
        if isinstance(each, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError):
            return "the connection was closed without an answer" + _maybe_tls(config)
        if isinstance(each, OSError) and each.strerror:
            return printable(each.strerror, 100)
    names = [type(each).__name__ for each in found]
    return "the answer is no HTTP" if "ProtocolError" in names else f"{names[-1]}"


def unusable_file(config: OtlpConfig) -> str | None:
    """Which file of those that TLS needs cannot be used, the variable that names it, and why."""
    certificate, variable = config.certificate, config.variable("CERTIFICATE")
    if certificate is None and (everybody := bundle_for_everybody()) is not None:
        variable, certificate = everybody
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if certificate is not None:
        problem = _unreadable(certificate) or _not_certificates(context, certificate)
        if problem is not None:
            return _named(variable, certificate, problem)
    if config.client_certificate is None:
        return None
    pair = [("CLIENT_CERTIFICATE", config.client_certificate), ("CLIENT_KEY", config.client_key)]
    for name, file in pair:
        problem = None if file is None else _unreadable(file)
        if file is not None and problem is not None:
            return _named(config.variable(name), file, problem)
    try:
        # Never ask for a passphrase: there is nobody at this thread's terminal.
        context.load_cert_chain(config.client_certificate, config.client_key, lambda: "")
    except (ssl.SSLError, OSError, ValueError):
        name, file = pair[1] if config.client_key is not None else pair[0]
        return _named(config.variable(name), str(file), "it is no key of the certificate, without a passphrase")
    return None


def _named(variable: str, file: str, problem: str) -> str:
    return f"{variable} names {printable(file, 200)}: {problem}"


def _unreadable(file: str) -> str | None:
    try:
        if os.path.isdir(file):
            return None if os.access(file, os.R_OK | os.X_OK) else "the directory cannot be read"
        with Path(file).open("rb") as content:
            content.read(1)
    except (OSError, ValueError) as error:
        return f"it cannot be read: {getattr(error, 'strerror', None) or 'no usable name'}"
    return None


def _not_certificates(context: ssl.SSLContext, file: str) -> str | None:
    if os.path.isdir(file):
        return None
    try:
        context.load_verify_locations(file)
    except (ssl.SSLError, OSError, ValueError):
        return "it holds no certificate (PEM is wanted)"
    return None


def _tls_cause(error: ssl.SSLError, config: OtlpConfig) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = printable(error.verify_message, 120)
        if not _UNTRUSTED.search(reason):
            return f"certificate verify failed: {reason}"
        if config.certificate is None:
            return f"certificate verify failed: {reason} (set {config.variable('CERTIFICATE')})"
        return f"certificate verify failed: {reason} ({config.variable('CERTIFICATE')} names another)"
    # Some of urllib3's own are SSLErrors with a sentence instead of OpenSSL's word.
    reason = error.reason or " ".join(map(str, error.args))
    if "is encrypted" in reason:
        return f"{config.variable('CLIENT_KEY')} names a key with a passphrase: write one without"
    if _NO_TLS.search(reason):
        return f"no TLS is spoken there (write http:// in {config.variable('ENDPOINT')})"
    if isinstance(error, ssl.SSLEOFError) or "UNEXPECTED_EOF" in reason:
        return (
            f"the connection was closed while TLS began (is it TLS that {config.variable('ENDPOINT')} should ask for?)"
        )
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        wanted = f"{config.variable('CLIENT_CERTIFICATE')} and {config.variable('CLIENT_KEY')}"
        return f"TLS failed: it may want a certificate of ours (set {wanted})"
    return f"TLS failed: {printable(reason, 100).replace('_', ' ').lower()}"


def _stranger(line: str) -> str:
    """What speaks another protocol begins with bytes that tell which."""
    if "\\x15\\x03" in line or "\x15\x03" in line:
        return "TLS is spoken there: write https:// in the endpoint"
    if line.startswith(("'\\x00\\x00", "\x00\x00")):
        return "gRPC is spoken there: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or name the port for HTTP (4318)"
    return "the answer is no HTTP"


def _maybe_tls(config: OtlpConfig) -> str:
    return " (does it want https://?)" if config.endpoint.lower().startswith("http:") else ""
