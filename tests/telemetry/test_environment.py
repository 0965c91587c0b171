"""Kind of fault: what the environment says for everybody overrides what the user has said to us.

Each of these holds for metrics and for spans, which go through the same session.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import certificates
import pytest
from certificates import Identity

from openhands_otel._internal.export.otlp_config import Signal
from openhands_otel._internal.host.network import is_this_machine, proxy_for
from openhands_otel.client import StatsClient

from .doors import Door, grpc_door, http_door, send, transport

SIGNALS: tuple[Signal, ...] = ("metrics", "traces")
PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "grpc_proxy")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, "NO_PROXY", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return certificates.make(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return certificates.make(tmp_path_factory.mktemp("strangers"))


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """What every variable names, and what refuses all that comes."""
    with http_door() as door:
        door.status, door.body = 403, b"not through here"
        for name in PROXIES:
            monkeypatch.setenv(name, f"http://127.0.0.1:{door.port}")
        yield door


@pytest.mark.parametrize("signal", SIGNALS)
def test_netrc_replaces_no_token_and_its_password_goes_nowhere(
    signal: Signal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password planted-netrc\ndefault login a password b\n")
    (tmp_path / ".netrc").chmod(0o600)
    (tmp_path / "token").write_text("from-file")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with http_door() as door:
        url = f"http://127.0.0.1:{door.port}"
        for environ, token_file in (
            ({"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20from-header"}, None),
            ({"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20from-header"}, tmp_path / "token"),
            ({}, None),
        ):
            with transport(signal, {"OTEL_EXPORTER_OTLP_ENDPOINT": url} | environ, token_file) as to:
                assert send(to, signal).delivered
        shown = [headers.get("authorization") for headers in door.headers]
        assert shown == ["Bearer from-header", "Bearer from-file", None]
        # A user in the URL is what the user said, but a token of a file was said for this purpose.
        url = f"http://me:pass%20word@127.0.0.1:{door.port}"
        for token_file, expected in ((None, "Basic bWU6cGFzcyB3b3Jk"), (tmp_path / "token", "Bearer from-file")):
            with transport(signal, {"OTEL_EXPORTER_OTLP_ENDPOINT": url}, token_file) as to:
                assert send(to, signal).delivered
            assert door.headers[-1]["authorization"] == expected
        door.body = b"{}"
        with StatsClient(f"http://127.0.0.1:{door.port}") as client, pytest.raises(Exception, match="does not answer"):
            client.totals()
        assert "authorization" not in door.headers[-1]


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("bundle", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_our_certificate_wins_over_bundles_for_everybody(
    signal: Signal, bundle: str, ours: Identity, strangers: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wrong in (str(strangers.authority), "/nowhere/at/all.pem"):
        monkeypatch.setenv(bundle, wrong)
        with http_door(ours.server()) as door:
            environ = {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://127.0.0.1:{door.port}",
                f"OTEL_EXPORTER_OTLP_{signal.upper()}_CERTIFICATE": str(ours.authority),
                "OTEL_EXPORTER_OTLP_CERTIFICATE": str(strangers.authority),
            }
            with transport(signal, environ) as to:
                outcome = send(to, signal)
                assert outcome.delivered, outcome.reason


def test_where_nothing_was_said_to_us_the_bundle_for_everybody_holds(
    ours: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ours.authority))
    with http_door(ours.server()) as door:
        with transport("metrics", {"OTEL_EXPORTER_OTLP_ENDPOINT": f"https://127.0.0.1:{door.port}"}) as to:
            assert send(to).delivered
        door.body = b"{}"
        with (
            StatsClient(f"https://127.0.0.1:{door.port}") as client,
            pytest.raises(Exception, match="does not answer as"),
        ):
            client.totals()


def test_a_client_trusts_the_certificate_that_was_named_for_telemetry(
    ours: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(ours.authority))
    with http_door(ours.server()) as door:
        door.body = b"{}"
        url = f"https://127.0.0.1:{door.port}"
        with StatsClient(url) as client, pytest.raises(Exception, match="does not answer as"):
            client.totals()
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_CERTIFICATE")
        with StatsClient(url) as client, pytest.raises(Exception, match=r"certificate.*OTEL_EXPORTER_OTLP_CERTIFICATE"):
            client.totals()


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.9.10", "[::1]"])
def test_loopback_is_never_asked_for_through_a_proxy(signal: Signal, host: str, proxy: Door) -> None:
    with http_door(host=host.strip("[]")) as door:
        with transport(signal, {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{host}:{door.port}"}) as to:
            outcome = send(to, signal)
            assert outcome.delivered, outcome.reason
        door.body = b"{}"
        with StatsClient(f"http://{host}:{door.port}") as client, pytest.raises(Exception, match="does not answer as"):
            client.totals()
        assert door.paths == [f"/v1/{signal}", "/api/v1/totals"]
    assert proxy.paths == []


@pytest.mark.parametrize("signal", SIGNALS)
def test_loopback_is_never_asked_for_through_a_proxy_over_grpc(signal: Signal, proxy: Door) -> None:
    with grpc_door() as door:
        for endpoint in (f"http://127.0.0.1:{door.port}", f"localhost:{door.port}"):
            environ = {
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_INSECURE": "true",
            }
            with transport(signal, environ) as to:
                outcome = send(to, signal)
                assert outcome.delivered, outcome.reason
        assert door.paths == [signal] * 2
    assert proxy.paths == []


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("signal", SIGNALS)
def test_elsewhere_proxies_are_honoured_and_so_is_no_proxy(
    signal: Signal, protocol: str, proxy: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.invalid:4318",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
    }
    with transport(signal, environ) as to:
        assert not send(to, signal, 5).delivered
    (path,) = set(proxy.paths)
    assert path == (f"http://collector.invalid:4318/v1/{signal}" if protocol != "grpc" else "collector.invalid:4318")
    proxy.paths.clear()
    monkeypatch.setenv("NO_PROXY", "other.invalid,.INVALID")
    with transport(signal, environ) as to:
        assert not send(to, signal, 5).delivered
    assert proxy.paths == []


def test_a_client_honours_proxies_elsewhere(proxy: Door) -> None:
    with StatsClient("http://viewer.invalid:4318") as client, pytest.raises(Exception, match="403"):
        client.totals()
    assert proxy.paths == ["http://viewer.invalid:4318/api/v1/totals"]


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("agent.localhost", True),
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("127.1", True),
        ("0x7f000001", True),
        ("2130706433", True),
        ("0.0.0.0", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("::", True),
        ("128.0.0.1", False),
        ("::2", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("", False),
    ],
)
def test_what_this_machine_is(host: str, here: bool) -> None:
    assert is_this_machine(host) is here


def test_no_proxy_knows_ports_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "proxy:3128")
    assert proxy_for("http://10.1.2.3:4318") == "http://proxy:3128"
    assert proxy_for("https://10.1.2.3:4318") is None
    for no_proxy in ("10.0.0.0/8", "a, 10.1.2.3", "10.1.2.3:4318", "*"):
        monkeypatch.setenv("NO_PROXY", no_proxy)
        assert proxy_for("http://10.1.2.3:4318") is None, no_proxy
    monkeypatch.setenv("NO_PROXY", "10.1.2.4,10.2.0.0/16,broken/")
    assert proxy_for("http://10.1.2.3:4318") == "http://proxy:3128"
