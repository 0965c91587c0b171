"""Asks a viewer one question on sockets alone, for commands whose whole run is to take a tenth of a second.

``http.client`` imports Python's e-mail package, and httpx half of everything: each takes longer than the answer. So a
request is written in HTTP/1.0, which ends an answer with the connection.
"""

from __future__ import annotations

import socket
from typing import Final, cast
from urllib.parse import urlsplit

from openhands_otel._internal.host.neighbours import stranger_at
from openhands_otel._internal.host.network import tls_context
from openhands_otel._internal.host.state_folder import unasked_token

_MOST: Final = 256 * 1024**2
"""Bytes of an answer."""


class NoAnswer(Exception):
    """Nobody answers, or not in HTTP; the message is why, in a few words."""


class Stranger(NoAnswer):
    """Another user's process listens there: it is asked nothing without a token. The message says whose."""


def get(url: str, path: str, token: str | None, timeout_s: float) -> tuple[int, bytes]:
    """Status and body of the answer to a GET.

    Args:
        url: Of the viewer, http or https, with a host; a path of its own is put before ``path``.
        path: With the query.
        token: The bearer token to show; unless given, this user's own viewer on this machine is shown its token.
        timeout_s: For connecting, and for each piece of the answer.

    Raises NoAnswer, and Stranger where another user listens and there is no token to show.
    """
    parts = urlsplit(url)
    host, tls = parts.hostname or "", parts.scheme == "https"
    target = parts.path.rstrip("/") + path
    if token is None:
        stranger = stranger_at(host, parts.port or 80)
        if stranger is not None:
            raise Stranger(stranger)
        token = unasked_token(url)
    lines = [f"GET {target} HTTP/1.0", f"host: {parts.netloc.rpartition('@')[2]}", "accept: application/json"]
    if token is not None:
        lines.append(f"authorization: Bearer {token}")
    try:
        request = "".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii")
        plain = socket.create_connection((_named(host), parts.port or (443 if tls else 80)), timeout_s)
        with plain, tls_context(None).wrap_socket(plain, server_hostname=host) if tls else plain as connection:
            connection.sendall(request)
            return _read(connection)
    except (OSError, ValueError) as error:
        raise NoAnswer(getattr(error, "strerror", None) or type(error).__name__) from None


def _named(host: str) -> str:
    """A host as bytes where that is enough: for a text Python imports what encodes the letters of any language."""
    return cast(str, host.encode()) if host.isascii() else host


def _read(connection: socket.socket) -> tuple[int, bytes]:
    """The whole answer; raises NoAnswer or ValueError where it is none."""
    answer = bytearray()
    while piece := connection.recv(1 << 18):
        answer += piece
        if len(answer) > _MOST:
            raise NoAnswer("the answer has no end")
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    first, *fields = head.decode("latin-1").split("\r\n")
    protocol, _, status = first.partition(" ")
    if not protocol.startswith("HTTP/1."):
        raise NoAnswer("what answers does not speak HTTP")
    headers = {name.strip().lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    if "transfer-encoding" in headers or int(headers.get("content-length", len(body))) != len(body):
        raise NoAnswer("the answer is not whole")
    return int(status[:3]), body
