"""OTLP over HTTP with protobuf bodies, on one kept-alive connection."""

from __future__ import annotations

import time

import requests
from google.protobuf.message import Message

from openhands_otel._internal.export.answers import not_taken, taken
from openhands_otel._internal.export.causes import cause_of, unusable_file
from openhands_otel._internal.export.http_session import open_session, unlogged
from openhands_otel._internal.export.otlp_config import OtlpConfig, stranger_in
from openhands_otel._internal.export.transport import USER_AGENT, Credentials, Outcome, body_of, with_beat
from openhands_otel._internal.host.network import without_secrets
from openhands_otel._internal.host.token_file import TokenFileError
from openhands_otel._internal.log import logger
from openhands_otel._internal.terminal_text import printable
from openhands_otel.semconv import BEAT_HEADER

LONGEST_ANSWER = 65_536
"""Bytes of a response that are read; a real one has some fifty."""


class HttpTransport:
    """Posts to the configured URL."""

    def __init__(self, config: OtlpConfig) -> None:
        self._config = config
        self._credentials = Credentials(config)
        self._session = open_session(config)
        self._session.headers.update({"Content-Type": "application/x-protobuf", "User-Agent": USER_AGENT})
        if config.compression is not None:
            self._session.headers["Content-Encoding"] = config.compression

    def send(self, request: Message, timeout_s: float) -> Outcome:
        """Post once. A connection that the peer has closed meanwhile is opened anew, once."""
        problem = self._config.problem or stranger_in(self._config)
        if problem is not None:
            return Outcome(False, problem)
        try:
            headers = self._credentials.headers()
        except TokenFileError as error:
            return Outcome(False, str(error))
        body = body_of(request, self._config.compression)
        heard_again = unlogged()
        try:
            try:
                return self._post(body, headers, timeout_s)
            except requests.ConnectionError as error:
                if not _was_dropped(error):
                    raise
                return self._post(body, headers, timeout_s)
        except requests.ConnectTimeout:
            return Outcome(False, f"cannot reach {self._config.shown} within {timeout_s:g} s")
        except requests.Timeout:
            return Outcome(False, f"no answer from {self._config.shown} within {timeout_s:g} s")
        except (requests.RequestException, OSError, ValueError) as error:
            # requests raises a plain OSError for certificates that it cannot read.
            return Outcome(False, f"cannot reach {self._config.shown}: {self._why(error)}")
        finally:
            heard_again()

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _post(self, body: bytes, headers: dict[str, str], timeout_s: float) -> Outcome:
        deadline = time.monotonic() + timeout_s
        with self._session.post(
            self._config.endpoint, data=body, headers=headers, timeout=timeout_s, allow_redirects=False, stream=True
        ) as response:
            content = _beginning(response, deadline)
        if response.status_code // 100 == 2:
            outcome = taken(self._config, self._credentials, response.headers.get("Content-Type", ""), content)
            return with_beat(outcome, response.headers.get(BEAT_HEADER))
        return not_taken(self._config, self._credentials, response.status_code, response.headers, content)

    def _why(self, error: Exception) -> str:
        secure = self._config.endpoint.lower().startswith("https:")
        cause = (unusable_file(self._config) if secure else None) or cause_of(error, self._config)
        if not isinstance(error, requests.exceptions.ProxyError):
            return cause
        return f"by way of the proxy {printable(without_secrets(self._session.proxies['http']), 100)}: {cause}"


def _beginning(response: requests.Response, deadline: float) -> bytes:
    """The body, or what came of it: the status stands already, and says whether the request was taken."""
    content = b""
    try:
        for chunk in response.iter_content(8192):
            content += chunk
            if len(content) > LONGEST_ANSWER or time.monotonic() > deadline:
                break
    except Exception as error:
        logger.debug("an answer broke off: %s", type(error).__name__)
    return content[:LONGEST_ANSWER]


def _was_dropped(error: requests.ConnectionError) -> bool:
    return "RemoteDisconnected" in repr(error) or "ConnectionResetError" in repr(error)
