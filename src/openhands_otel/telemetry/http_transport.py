"""OTLP over HTTP with protobuf bodies, on one kept-alive connection."""

from __future__ import annotations

import requests
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from openhands_otel.telemetry.otlp_config import OtlpConfig
from openhands_otel.telemetry.transport import USER_AGENT, Credentials, Outcome, body_of, outcome_of_response


class HttpTransport:
    """Posts to the configured URL."""

    def __init__(self, config: OtlpConfig) -> None:
        self._url = config.endpoint
        self._gzip = config.gzip
        self._credentials = Credentials(config)
        self._session = requests.Session()
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
            body = body_of(request, self._gzip)
            try:
                response = self._post(body, headers, timeout_s)
            except requests.ConnectionError as error:
                if not _was_dropped(error):
                    raise
                response = self._post(body, headers, timeout_s)
        except requests.Timeout:
            return Outcome(False, f"no answer from {self._url} within {timeout_s:g} s")
        except requests.RequestException as error:
            return Outcome(False, f"cannot reach {self._url} ({type(error).__name__})")
        except OSError as error:
            return Outcome(False, f"cannot read the token file ({error.strerror})")
        if response.status_code // 100 != 2:
            return Outcome(False, f"{self._url} answered {response.status_code}", _retry_after(response))
        try:
            return outcome_of_response(ExportMetricsServiceResponse.FromString(response.content))
        except DecodeError:
            return Outcome(False, f"{self._url} answered with something that is not OTLP")

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _post(self, body: bytes, headers: dict[str, str], timeout_s: float) -> requests.Response:
        return self._session.post(self._url, data=body, headers=headers, timeout=timeout_s, allow_redirects=False)


def _was_dropped(error: requests.ConnectionError) -> bool:
    return "RemoteDisconnected" in repr(error) or "ConnectionResetError" in repr(error)


def _retry_after(response: requests.Response) -> float | None:
    given = response.headers.get("Retry-After", "")
    return min(float(given), 60.0) if given.isdigit() else None
