"""Writes an HTTP request's head and body to the socket at once.

The standard library writes them one after the other. Each write lets go of the interpreter, and a busy agent then has
it for up to five milliseconds before the body follows: a third of the time in which a change must arrive.
"""

from __future__ import annotations

from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


class _OneWrite:
    """Mixed into a connection: what ``request`` sends is kept until it has all of it."""

    _kept: bytearray | None = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        self._kept = bytearray()
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]
            kept = bytes(self._kept)
        finally:
            self._kept = None
        super().send(kept)  # type: ignore[misc]

    def send(self, data: Any) -> None:
        if self._kept is None:
            super().send(data)  # type: ignore[misc]
        else:
            self._kept += data


class _Connection(_OneWrite, HTTPConnection):
    pass


class _SecureConnection(_OneWrite, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection  # pyright: ignore[reportAssignmentType]


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection  # pyright: ignore[reportAssignmentType]


class OneWriteAdapter(HTTPAdapter):
    """Mounted on a session, does that for all its direct connections (those through a proxy stay as they are)."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
