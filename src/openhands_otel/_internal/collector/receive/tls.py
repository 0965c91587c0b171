"""TLS on the viewer's own ports, by one certificate, which is read again when it was renewed."""

from __future__ import annotations

import logging
import ssl
import time
from pathlib import Path
from typing import Final

import grpc

from openhands_otel._internal import log

_LOOK_EVERY_S: Final = 1.0

_log = logging.getLogger(log.NAME)


class TlsError(Exception):
    """The certificate cannot be used; the message is one line."""


class Tls:
    """A certificate and its key."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Reads both; raises TlsError."""
        self._files = (certificate, key)
        self._seen = self._state()
        self._looked = time.monotonic()
        self._in_trouble = False
        self._context, self._for_grpc = self._load()

    @property
    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        self._refresh()
        return self._context

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For the gRPC port; each handshake asks for what is new."""

        def current() -> grpc.ServerCertificateConfiguration:
            self._refresh()
            return self._for_grpc

        return grpc.dynamic_ssl_server_credentials(self._for_grpc, current)

    def _load(self) -> tuple[ssl.SSLContext, grpc.ServerCertificateConfiguration]:
        certificate, key = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            chain, secret = certificate.read_bytes(), key.read_bytes()
        except OSError as error:
            raise TlsError(f"{error.filename} cannot be read: {error.strerror}") from None
        try:
            # The word is asked for on the terminal otherwise, where nobody may sit.
            context.load_cert_chain(certificate, key, lambda: "")
        except (OSError, ValueError):
            raise TlsError(f"{certificate} and {key} must be a certificate and its key (PEM, no passphrase)") from None
        return context, grpc.ssl_server_certificate_configuration([(secret, chain)])

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        seen = self._state()
        if seen == self._seen:
            return
        try:
            self._context, self._for_grpc = self._load()
        except TlsError as error:
            # It may be half written: the next connection looks again, and this one has what was good.
            if not self._in_trouble:
                _log.error("%s; the certificate of before holds on", error)
            self._in_trouble = True
            return
        self._seen, self._in_trouble = seen, False
        _log.info("the certificate was renewed")

    def _state(self) -> tuple[int, ...]:
        found: list[int] = []
        for file in self._files:
            try:
                stat = file.stat()
                found += [stat.st_ino, stat.st_mtime_ns, stat.st_size]
            except OSError:
                found.append(0)
        return tuple(found)
