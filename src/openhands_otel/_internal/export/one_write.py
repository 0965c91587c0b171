"""Writes an HTTP request's head and body to the socket at once.

The standard library writes them one after the other. Each write lets go of the interpreter, and a busy agent then has
it for up to five milliseconds before the body follows: a third of the time in which a change must arrive.

A forked child lets go of its parent's connections: so whoever listens at the other end sees the parent die when it
dies, and not when the last of its children does.
"""

from __future__ import annotations

import os
import socket
import weakref
from contextlib import suppress
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

_open: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _let_go() -> None:
    # By their numbers: to close a connection as one does takes locks that a thread of the parent's may have held.
    with suppress(Exception):
        for connection in list(_open):
            number = connection.detach()
            if number >= 0:
                os.close(number)
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


class _OneWrite:
    """Mixed into a connection: what ``request`` sends is kept until it has all of it."""

    _kept: bytearray | None = None

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        _open.add(self.sock)  # type: ignore[attr-defined]

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
