"""What a connection is made of, and what went wrong with it, in words."""

from __future__ import annotations

import socket
import ssl
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import httpx

from openhands_otel._internal.host.network import chain_of, proxy_for, tls_context, without_secrets
from openhands_otel._internal.terminal_text import printable

CERTIFICATE: Final = "OTEL_EXPORTER_OTLP_CERTIFICATE"


def connection_options(url: str, token: str | None, timeout_s: float, certificate: str | None) -> dict[str, Any] | None:
    """What both of httpx's clients are made with; None where the URL is none.

    Raises ValueError for the URL too, and OSError for the certificate.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or (parts.port or 0) < 0:
        return None
    user = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
    return {
        "base_url": parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(),
        "headers": {} if token is None else {"authorization": f"Bearer {token}"},
        "auth": user if token is None else None,
        "timeout": timeout_s,
        # Neither ~/.netrc nor bundles of certificates for everybody: see network.py.
        "trust_env": False,
        "proxy": proxy_for(url),
        "verify": tls_context(certificate, speaks_tls=parts.scheme == "https"),
    }


def refusal(response: httpx.Response, shown: str, token: str | None) -> str | None:
    """Why an answer is none, with the address as it may be ``shown``; None where it is one."""
    if response.is_success:
        return None
    if response.status_code == 401:
        return f"{shown} wants a token: pass the one that it was started with"
    if response.has_redirect_location:
        # Not followed: the token would go to a host that the user has not named.
        there = printable(without_secrets(response.headers["location"]), 200)
        return f"{shown} redirects to {there}: name that address if it is meant"
    return f"{shown} answered {response.status_code}: {_told(response, token)}"


def _told(response: httpx.Response, token: str | None) -> str:
    """The message of a refusal, which may repeat what it was shown."""
    try:
        answer = response.json()
        message = str(answer.get("message") or answer["error"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        message = response.reason_phrase
    return printable(message.replace(token, "***") if token else message, 200)


def why_unreachable(error: httpx.HTTPError, shown: str, cure: str) -> str:
    """What is wrong with a connection; ``cure``: what to do where nobody answers."""
    for each in chain_of(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            reason = printable(each.verify_message, 120)
            return f"{shown}: certificate verify failed: {reason} (set {CERTIFICATE})"
        if isinstance(each, ssl.SSLError):
            return f"{shown} does not speak TLS as it should: is it http:// that is meant?"
        if isinstance(each, socket.gaierror):
            return f"{shown}: the host's name is not known ({each.strerror})"
    if isinstance(error, httpx.ProxyError):
        return f"the proxy does not lead to {shown}: {printable(str(error), 100)}"
    if isinstance(error, httpx.ConnectError):
        return f"nothing answers at {shown}: {cure}"
    reason = printable(" ".join(str(error).split()), 200) or type(error).__name__
    return f"the connection to {shown} broke: {reason}"
