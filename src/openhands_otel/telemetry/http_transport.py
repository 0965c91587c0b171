"""OTLP over HTTP with protobuf bodies, on one kept-alive connection."""

from __future__ import annotations

import time
from urllib.parse import urlsplit, urlunsplit

import requests
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from openhands_otel.telemetry.one_write import OneWriteAdapter
from openhands_otel.telemetry.otlp_config import OtlpConfig
from openhands_otel.telemetry.transport import (
    DELIVERED,
    USER_AGENT,
    Credentials,
    Outcome,
    body_of,
    outcome_of_response,
)

LONGEST_ANSWER = 65_536
"""Bytes of a response that are read; a real one has some fifty."""


class HttpTransport:
    """Posts to the configured URL."""

    def __init__(self, config: OtlpConfig) -> None:
        self._url = config.endpoint
        self._name = _without_secrets(config.endpoint)
        self._gzip = config.gzip
        self._credentials = Credentials(config)
        self._session = requests.Session()
        for prefix in ("http://", "https://"):
            self._session.mount(prefix, OneWriteAdapter())
        self._session.headers.update({"Content-Type": "application/x-protobuf", "User-Agent": USER_AGENT})
        if self._gzip:
            self._session.headers["Content-Encoding"] = "gzip"
        if config.certificate:
            self._session.verify = config.certificate
        if config.client_certificate:
            key = config.client_key
            self._session.cert = (config.client_certificate, key) if key else config.client_certificate

    def send(self, request: ExportMetricsServiceRequest, timeout_s: float) -> Outcome:
        """Post once. A connection that the peer has closed meanwhile is opened anew, once."""
        try:
            headers = self._credentials.headers()
        except OSError as error:
            return Outcome(False, f"cannot read the token file ({error.strerror})")
        body = body_of(request, self._gzip)
        try:
            try:
                return self._post(body, headers, timeout_s)
            except requests.ConnectionError as error:
                if not _was_dropped(error):
                    raise
                return self._post(body, headers, timeout_s)
        except requests.Timeout:
            return Outcome(False, f"no answer from {self._name} within {timeout_s:g} s")
        except (requests.RequestException, OSError) as error:
            # requests raises a plain OSError for certificates that it cannot read.
            return Outcome(False, f"cannot reach {self._name} ({type(error).__name__})")

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _post(self, body: bytes, headers: dict[str, str], timeout_s: float) -> Outcome:
        deadline = time.monotonic() + timeout_s
        with self._session.post(
            self._url, data=body, headers=headers, timeout=timeout_s, allow_redirects=False, stream=True
        ) as response:
            content = _bounded_content(response, deadline)
        if response.status_code // 100 != 2:
            return Outcome(False, f"{self._name} answered {response.status_code}", _retry_after(response))
        if response.headers.get("Content-Type", "").startswith("application/json"):
            # Some receivers answer in JSON whatever they were sent; that they took it is what counts.
            return DELIVERED
        try:
            return outcome_of_response(ExportMetricsServiceResponse.FromString(content))
        except DecodeError:
            return Outcome(False, f"{self._name} answered with something that is not OTLP")


def _bounded_content(response: requests.Response, deadline: float) -> bytes:
    """The body; what is longer or takes longer than an answer of a receiver is cut off, and so is the connection."""
    content = b""
    for chunk in response.iter_content(8192):
        content += chunk
        if len(content) > LONGEST_ANSWER or time.monotonic() > deadline:
            raise requests.Timeout
    return content


def _without_secrets(url: str) -> str:
    """The URL as it may stand in a log: user, password and query may hold keys."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _was_dropped(error: requests.ConnectionError) -> bool:
    return "RemoteDisconnected" in repr(error) or "ConnectionResetError" in repr(error)


def _retry_after(response: requests.Response) -> float | None:
    given = response.headers.get("Retry-After", "")
    return min(float(given), 60.0) if given.isdigit() else None
