"""Opens the HTTP sessions that carry telemetry, and decides what the environment may change about them."""

from __future__ import annotations

import requests

from openhands_otel._internal.export.one_write import OneWriteAdapter
from openhands_otel._internal.export.otlp_config import OtlpConfig
from openhands_otel._internal.host.network import bundle_for_everybody, proxy_for


def open_session(config: OtlpConfig) -> requests.Session:
    """One for the endpoint of ``config``; it reads neither ``~/.netrc`` nor, for loopback, proxies."""
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
