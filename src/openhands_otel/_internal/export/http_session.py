"""Opens the HTTP sessions that carry telemetry, and decides what the environment may change about them.

An application that logs at DEBUG hears of urllib3 each request with its whole address, keys in it included: of its own,
and not of ours, which come some hundred times a second. What became of those ``delivery_log.py`` tells.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar

import requests
from urllib3 import connectionpool

from openhands_otel._internal.export.one_write import OneWriteAdapter
from openhands_otel._internal.export.otlp_config import OtlpConfig
from openhands_otel._internal.host.network import bundle_for_everybody, proxy_for
from openhands_otel._internal.scoped import set_until

_sending: ContextVar[bool] = ContextVar("openhands_otel_sending", default=False)


def _is_of_the_application(record: logging.LogRecord) -> bool:
    return not _sending.get()


def unlogged() -> Callable[[], None]:
    """What this thread asks from now on is ours, until the returned function is called."""
    return set_until(_sending, True)


def open_session(config: OtlpConfig) -> requests.Session:
    """One for the endpoint of ``config``; it reads neither ``~/.netrc`` nor, for loopback, proxies."""
    # The same filter is there once, however often it is added.
    connectionpool.log.addFilter(_is_of_the_application)
    session = requests.Session()
    session.trust_env = False
    for prefix in ("http://", "https://"):
        session.mount(prefix, OneWriteAdapter())
    proxy = proxy_for(config.endpoint)
    if proxy is not None:
        session.proxies = {"http": proxy, "https": proxy}
    everybody = bundle_for_everybody()
    session.verify = config.certificate or (everybody[1] if everybody is not None else True)
    if config.client_certificate:
        key = config.client_key
        session.cert = (config.client_certificate, key) if key else config.client_certificate
    return session
