"""Reads the probe back where it should have come to, a viewer or a Prometheus, and compares clocks on that occasion."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import requests

from openhands_otel._internal import api_paths
from openhands_otel._internal.doctor.clocks import compare
from openhands_otel._internal.doctor.finding import Finding, note, ok, problem
from openhands_otel._internal.export.http_session import open_session
from openhands_otel._internal.export.otlp_config import OtlpConfig
from openhands_otel._internal.export.transport import Credentials
from openhands_otel._internal.host.network import without_secrets
from openhands_otel._internal.host.token_file import TokenFileError
from openhands_otel._internal.prometheus import label_name, metric_name
from openhands_otel._internal.terminal_text import printable
from openhands_otel.semconv import PROBE, PROBE_ID

_CHECK: Final = "read back"
_TIMEOUT_S: Final = 5.0
_PATIENCE_S: Final = 20.0
"""How long a Prometheus behind a collector may take."""
_PAUSE_S: Final = 0.25
_METRICS: Final = "/v1/metrics"
_GRPC_PORT, _HTTP_PORT = 4317, 4318
_SERIES: Final = metric_name(PROBE, "gauge", "1")
_LABEL: Final = label_name(PROBE_ID)


class _Unread(Exception):
    """It cannot be asked; the message is why."""


def read_back(
    config: OtlpConfig, name: str, viewer: str | None, prometheus: str | None, token_file: Path | None
) -> list[Finding]:
    """Look for the probe ``name`` at the viewer or Prometheus that is named, else at the endpoint itself.

    ``token_file`` has the token to show there; without, the one for sending is shown, at its own host alone.
    """
    if prometheus is not None:
        place = _Place(config, prometheus, token_file)
        return _with_clock(place, name, _in_prometheus, _clock_of_prometheus, _PATIENCE_S)
    base = viewer or _beside(config)
    if base is None:
        return [note(_CHECK, f"{config.shown} speaks gRPC: where it can be read is not known", "name it: --viewer URL")]
    place = _Place(config, base, token_file)
    try:
        place.glance()
    except _Unread as why:
        if viewer is not None:
            return [problem(_CHECK, str(why), "name the address of a viewer's page, and a token that may look")]
        cure = "--viewer URL or --prometheus URL names it, --token-file a token that may look"
        return [note(_CHECK, f"no viewer to be asked at {place.shown} ({why})", cure)]
    return _with_clock(place, name, _in_viewer, _clock_of_viewer, _TIMEOUT_S)


class _Place:
    """Who is asked, as the probe was sent: the same certificates and proxies, at the same host the same headers."""

    def __init__(self, config: OtlpConfig, url: str, token_file: Path | None) -> None:
        self._base = url.rstrip("/")
        self.shown = printable(without_secrets(self._base), 200)
        is_same = _host(self._base) == _host(config.endpoint if "//" in config.endpoint else f"//{config.endpoint}")
        there = replace(
            config,
            protocol="http/protobuf",
            endpoint=self._base,
            headers=config.headers if is_same else {},
            token_file=token_file or (config.token_file if is_same else None),
        )
        self._session = open_session(there)
        self._credentials = Credentials(there)

    def get(self, path: str, **query: str) -> requests.Response:
        try:
            headers = self._credentials.headers()
            answer = self._session.get(
                self._base + path, params=query, headers=headers, timeout=_TIMEOUT_S, allow_redirects=False
            )
        except TokenFileError as error:
            raise _Unread(str(error)) from None
        except requests.ConnectionError:
            raise _Unread("nothing answers there") from None
        except (requests.RequestException, OSError, ValueError) as error:
            raise _Unread(f"it cannot be asked: {type(error).__name__}") from None
        if answer.status_code != 200:
            raise _Unread("it wants a token" if answer.status_code == 401 else f"it answers {answer.status_code}")
        return answer

    def glance(self) -> dict[str, Any]:
        try:
            glance = self.get(api_paths.GLANCE).json()
            float(glance["unix_s"])
        except (ValueError, KeyError, TypeError):
            raise _Unread("no viewer of ours is there") from None
        return glance

    def query(self, expression: str) -> list[Any]:
        try:
            return self.get("/api/v1/query", query=expression).json()["data"]["result"]
        except (ValueError, KeyError, TypeError):
            raise _Unread("it does not answer as a Prometheus does") from None


def _with_clock(
    place: _Place,
    name: str,
    has: Callable[[_Place, str], bool],
    clock: Callable[[_Place], float],
    patience_s: float,
) -> list[Finding]:
    try:
        deadline = time.monotonic() + patience_s
        while not has(place, name):
            if time.monotonic() > deadline:
                cure = "what stands between drops or delays it: look at its log"
                return [problem(_CHECK, f"the probe was sent and is not at {place.shown}", cure)]
            time.sleep(_PAUSE_S)
        return [ok(_CHECK, f"the probe is at {place.shown}"), compare(lambda: clock(place))]
    except _Unread as why:
        return [problem(_CHECK, f"{place.shown}: {why}", "name one that can be asked: --viewer URL, --prometheus URL")]


def _in_viewer(place: _Place, name: str) -> bool:
    return f'{_LABEL}="{name}"' in place.get("/metrics").text


def _clock_of_viewer(place: _Place) -> float:
    return float(place.glance()["unix_s"])


def _in_prometheus(place: _Place, name: str) -> bool:
    return bool(place.query(f'{_SERIES}{{{_LABEL}="{name}"}}'))


def _clock_of_prometheus(place: _Place) -> float:
    return float(place.query("vector(time())")[0]["value"][1])


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _beside(config: OtlpConfig) -> str | None:
    """Where a viewer of ours would have its page, if it took the probe."""
    if config.protocol == "grpc":
        parts = urlsplit(f"//{config.endpoint}")
        if parts.port != _GRPC_PORT:
            return None
        return f"{'http' if config.insecure else 'https'}://{parts.netloc.rpartition(':')[0]}:{_HTTP_PORT}"
    parts = urlsplit(config.endpoint)
    return urlunsplit((parts.scheme, parts.netloc, parts.path.removesuffix(_METRICS), "", ""))
