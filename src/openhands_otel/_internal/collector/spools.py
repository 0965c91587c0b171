"""Takes in, when the viewer starts, the spools that processes left while it was down.

Each request goes through the viewer's own door, as from anybody, so that one place decides what counts.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from openhands_otel._internal.export.spool.delivery import deliver, waiting_for
from openhands_otel._internal.export.spool.destination import GRPC, Destination, canonical_host
from openhands_otel._internal.export.spool.file import Owed
from openhands_otel._internal.export.spool.folder import Unusable, spool_folder
from openhands_otel._internal.export.transport import Outcome
from openhands_otel._internal.log import logger
from openhands_otel.semconv import REPLAYED_HEADER

_TIMEOUT_S: Final = 10.0
_PATH: Final = "/v1/metrics"


@dataclass(frozen=True, slots=True)
class ViewerAddress:
    """Where a viewer listens, and the token that it asks for."""

    url: str
    grpc_port: int
    token: str | None = None
    certificate: Path | None = None
    """The viewer's own, where it speaks TLS: that and no other is trusted, whatever name it is for."""

    def is_meant_by(self, destination: Destination) -> bool:
        """However its host is spelled."""
        parts = urlsplit(self.url)
        names = {canonical_host(parts.hostname or ""), canonical_host(socket.gethostname())}
        if destination.scheme != parts.scheme or destination.host not in names:
            return False
        if destination.protocol == GRPC:
            return destination.port == self.grpc_port
        return destination.port == parts.port and destination.path == _PATH


def take_spools(address: ViewerAddress) -> Owed:
    """Take in what is meant for ``address``; returns what that came to. Raises nothing."""
    taken = list(_take(address))
    return Owed(sum(each.cost for each in taken), sum(each.calls for each in taken))


def _take(address: ViewerAddress) -> Iterator[Owed]:
    try:
        found = waiting_for(spool_folder(), address.is_meant_by, set())
    except Unusable:
        return
    for path in found:
        try:
            sent = deliver(path, lambda body: _post(address, body))
        except OSError as error:
            logger.warning("the spool %s cannot be read (%s)", path, error.strerror)
            continue
        if sent is not None and sent.left:
            logger.warning("the spool %s is not taken in: %s", path, sent.left)
        elif sent is not None:
            yield sent.spool.owed


def _connection(address: ViewerAddress) -> http.client.HTTPConnection:
    parts = urlsplit(address.url)
    host = parts.hostname or ""
    if address.certificate is None:
        return http.client.HTTPConnection(host, parts.port, timeout=_TIMEOUT_S)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(address.certificate)
    return http.client.HTTPSConnection(host, parts.port, timeout=_TIMEOUT_S, context=context)


def _post(address: ViewerAddress, body: bytes) -> Outcome:
    headers = {"Content-Type": "application/x-protobuf", REPLAYED_HEADER: "1"}
    if address.token is not None:
        headers["Authorization"] = f"Bearer {address.token}"
    try:
        with closing(_connection(address)) as connection:
            connection.request("POST", _PATH, body, headers)
            response = connection.getresponse()
            content = response.read()
    except (OSError, http.client.HTTPException) as error:
        return Outcome(False, f"{type(error).__name__} while the viewer was told")
    if response.status == 200:
        # A body says which points were not taken.
        return Outcome(True, "points of it were rejected" if content else "")
    return Outcome(False, f"the viewer answered {response.status}", refused=response.status in (400, 413))
