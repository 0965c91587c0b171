"""Who reads HTTP: httptools where it installs (a request costs a fifth less by it), or h11. Both refuse the same."""

from __future__ import annotations

from functools import cache
from typing import Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from openhands_otel._internal.collector.receive.connection import Connection

UNPARSED: Final = 16 * 1024
"""Bytes that may come before they are a whole head, or a piece of a body: h11's own limit, which httptools lacks."""


class H11Connection(Connection, H11Protocol):
    """By h11."""

    @property
    def is_sending_body(self) -> bool:
        return self.conn.their_state is h11.SEND_BODY

    @property
    def is_broken(self) -> bool:
        return self.conn.their_state is h11.ERROR

    @property
    def has_begun_another(self) -> bool:
        return bool(self.conn.trailing_data[0])


@cache
def _httptools_connection() -> type[Connection]:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class HttpToolsConnection(Connection, HttpToolsProtocol):  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]
        """By httptools."""

        _in_head = _in_body = _broken = False
        _unparsed = 0

        @property
        def is_sending_body(self) -> bool:
            return self._in_body

        @property
        def is_broken(self) -> bool:
            return self._broken

        @property
        def has_begun_another(self) -> bool:
            return self._in_head

        def data_received(self, data: bytes) -> None:
            self._unparsed += len(data)
            super().data_received(data)
            if self._unparsed > UNPARSED and not self._broken and not self.transport.is_closing():
                self.logger.warning("Too much came that is no request.")
                self.send_400_response("Too much of it is no request.")

        def send_400_response(self, msg: str) -> None:
            self._broken = True
            super().send_400_response(msg)

        def on_message_begin(self) -> None:
            self._in_head = True
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._unparsed, self._in_head, self._in_body = 0, False, True
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._unparsed = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._unparsed, self._in_body = 0, False
            super().on_message_complete()

    return HttpToolsConnection


def connection_class() -> type[Connection]:
    """The best that is installed."""
    try:
        import httptools  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        return H11Connection
    return _httptools_connection()
