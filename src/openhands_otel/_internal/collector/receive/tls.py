"""TLS on the viewer's own ports, by one certificate, which is read again when it was renewed."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

from openhands_otel._internal.host.watched_files import WatchedFiles


class TlsError(Exception):
    """The certificate cannot be used; the message is one line."""


class Tls:
    """A certificate and its key."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Reads both; raises TlsError."""
        files = (certificate, key)
        self._files = WatchedFiles(files, lambda: _load(certificate, key), TlsError, f"the certificate {certificate}")

    @property
    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        return self._files.now[0]

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For the gRPC port; each handshake asks for what is new."""
        return grpc.dynamic_ssl_server_credentials(self._files.now[1], lambda: self._files.now[1])


def _load(certificate: Path, key: Path) -> tuple[ssl.SSLContext, grpc.ServerCertificateConfiguration]:
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
