"""Kinds of fault: a file that cannot be used now switches metrics off for good, and a secret stands in the message.

What is wrong is one line that names variable and file; it is looked at again with each export, over HTTP and gRPC, for
metrics and for spans.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import certificates
import pytest
from certificates import Identity
from cryptography.hazmat.primitives import serialization

from openhands_otel import semconv
from openhands_otel._internal.export.otlp_config import Signal, read_otlp_config
from openhands_otel._internal.host.token_file import TokenFileError, read_token
from openhands_otel._internal.tracing.own_tracing import OwnSpanExporter
from openhands_otel.client import StatsClient, StatsError
from openhands_otel.settings import Settings, ViewerSettings, load
from otlp_receiver import Receiver

from .conftest import Start
from .doors import Door, grpc_door, http_door, send, transport
from .pipes import call, origin, pipeline, put

GENERAL = "OTEL_EXPORTER_OTLP_"
PROTOCOLS = ("http/protobuf", "grpc")
SIGNALS: tuple[Signal, ...] = ("metrics", "traces")
TOKEN = "OPENHANDS_OTEL_TOKEN_FILE"
SECRET = "planted-token-4711"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return certificates.make(tmp_path_factory.mktemp("ours"))


def plain_door(protocol: str) -> AbstractContextManager[Door]:
    return grpc_door() if protocol == "grpc" else http_door()


def secure_door(protocol: str, identity: Identity) -> AbstractContextManager[Door]:
    return grpc_door(identity) if protocol == "grpc" else http_door(identity.server())


Spoil = Callable[[Path], object]
UNUSABLE: dict[str, tuple[Spoil, str]] = {
    "missing": (lambda path: None, "No such file or directory"),
    "a directory": (lambda path: path.mkdir(), "Is a directory"),
    "empty": (lambda path: path.write_text("\n"), "it is empty"),
    "two lines": (lambda path: path.write_text(f"{SECRET}\n{SECRET}\n"), "it has several lines"),
    "two words": (lambda path: path.write_text(f"Bearer {SECRET}"), "it has several words"),
    "control": (lambda path: path.write_text(f"{SECRET}\x1b[31m"), "it has other characters"),
    "nothing inside": (lambda path: path.write_text(f"{SECRET}\x00"), "it has other characters"),
    "not ASCII": (lambda path: path.write_text(f"{SECRET}é", encoding="utf-8"), "it has other characters"),
    "not text": (lambda path: path.write_bytes(SECRET.encode() + b"\xff\xfe"), "it has other characters"),
    "another file": (lambda path: path.write_text(SECRET * 10_000), "bytes"),
}


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_token_file_is_read_anew_for_each_export_and_what_is_wrong_is_told_without_it(
    protocol: str, signal: Signal, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    with plain_door(protocol) as door:
        environ = {f"{GENERAL}ENDPOINT": f"http://127.0.0.1:{door.port}", f"{GENERAL}PROTOCOL": protocol}
        with transport(signal, environ, file) as to:
            for spoil, said in UNUSABLE.values():
                spoil(file)
                outcome = send(to, signal)
                assert not outcome.delivered
                assert all(word in outcome.reason for word in (str(file), TOKEN, said)), outcome.reason
                assert SECRET not in outcome.reason
                assert outcome.reason.isprintable()
                if file.is_dir():
                    file.rmdir()
            for text in ("first", "  second\r\n", "\ufeffthird\n"):
                file.write_text(text, encoding="utf-8")
                assert send(to, signal).delivered
    assert [headers["authorization"] for headers in door.headers] == ["Bearer first", "Bearer second", "Bearer third"]


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_certificate_that_comes_late_is_found(protocol: str, signal: Signal, ours: Identity, tmp_path: Path) -> None:
    file, variable = tmp_path / "ca.pem", f"{GENERAL}{signal.upper()}_CERTIFICATE"
    with secure_door(protocol, ours) as door:
        environ = {
            f"{GENERAL}ENDPOINT": f"https://127.0.0.1:{door.port}",
            f"{GENERAL}PROTOCOL": protocol,
            variable: str(file),
        }
        with transport(signal, environ) as to:
            for content, said in ((None, "No such file or directory"), (b"no PEM", "it holds no certificate")):
                if content is not None:
                    file.write_bytes(content)
                outcome = send(to, signal)
                assert not outcome.delivered
                assert f"{variable} names {file}: " in outcome.reason
                assert said in outcome.reason
            file.write_bytes(ours.authority.read_bytes())
            outcome = send(to, signal)
            assert outcome.delivered, outcome.reason


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_keys_that_cannot_be_used_are_named(protocol: str, ours: Identity, tmp_path: Path) -> None:
    other = certificates.make(tmp_path / "other")
    locked = tmp_path / "locked.pem"
    key = serialization.load_pem_private_key(ours.key.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"passphrase")
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    with secure_door(protocol, ours) as door:
        base = {
            f"{GENERAL}ENDPOINT": f"https://127.0.0.1:{door.port}",
            f"{GENERAL}PROTOCOL": protocol,
            f"{GENERAL}CERTIFICATE": str(ours.authority),
        }
        for certificate, key_file, named in (
            ("/nowhere/cert.pem", str(ours.key), "CLIENT_CERTIFICATE names /nowhere/cert.pem: it cannot be read"),
            (str(ours.certificate), "/nowhere/key.pem", "CLIENT_KEY names /nowhere/key.pem: it cannot be read"),
            (str(ours.certificate), str(other.key), f"CLIENT_KEY names {other.key}: it is no key"),
            (str(ours.certificate), str(locked), f"CLIENT_KEY names {locked}: it is no key"),
        ):
            given = {f"{GENERAL}CLIENT_CERTIFICATE": certificate, f"{GENERAL}CLIENT_KEY": key_file}
            with transport("metrics", base | given) as to:
                assert f"{GENERAL}{named}" in send(to).reason


def test_a_certificate_that_is_replaced_is_taken_up_over_grpc(tmp_path: Path) -> None:
    first, second = (certificates.make(tmp_path / name, name) for name in ("first", "second"))
    file = tmp_path / "ca.pem"
    file.write_bytes(first.authority.read_bytes())
    with grpc_door(second) as door:
        environ = {
            f"{GENERAL}ENDPOINT": f"https://127.0.0.1:{door.port}",
            f"{GENERAL}PROTOCOL": "grpc",
            f"{GENERAL}CERTIFICATE": str(file),
        }
        with transport("metrics", environ) as to:
            assert not send(to).delivered
            file.write_bytes(second.authority.read_bytes())
            assert not send(to).delivered, "the last one of the old channel"
            outcome = send(to)
            assert outcome.delivered, outcome.reason


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_metrics_are_not_off_for_the_process_when_a_file_is_missing_at_its_start(
    protocol: str, ours: Identity, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ca, token = tmp_path / "ca.pem", tmp_path / "token"
    with secure_door(protocol, ours) as door, caplog.at_level(logging.WARNING):
        environ = {
            f"{GENERAL}ENDPOINT": f"https://127.0.0.1:{door.port}",
            f"{GENERAL}PROTOCOL": protocol,
            f"{GENERAL}CERTIFICATE": str(ca),
        }
        with pipeline(environ) as pipe:
            put(pipe, *call(origin("c")))
            assert not pipe.flush(10)
            ca.write_bytes(ours.authority.read_bytes())
            token.write_text(SECRET)
            put(pipe, *call(origin("c")))
            assert pipe.flush(50)
    missing, again = (record.getMessage() for record in caplog.records)
    assert f"{GENERAL}CERTIFICATE names {ca}" in missing
    assert "again" in again


def test_a_process_whose_token_comes_late_delivers_all(start: Start, receiver: Receiver, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{SECRET}\n{SECRET}\n")
    child = start(
        """
        import os, spending, time
        instrumentor = spending.instrument()
        spending.spend(3, conversation="c")
        instrumentor.flush(5)
        spending.mark("tried")
        while not instrumentor.flush(5):
            time.sleep(0.05)
        spending.mark("sent")
        """,
        f"{receiver.url}/v1/metrics",
        OPENHANDS_OTEL_TOKEN_FILE=str(token),
    )
    child.wait_for("tried")
    token.write_text(SECRET)
    assert child.wait(100) == 0, child.err
    wrong, again = child.log
    assert TOKEN in wrong
    assert str(token) in wrong
    assert "several lines" in wrong
    assert "again" in again
    assert SECRET not in child.err
    assert receiver.total(semconv.COST.name) == pytest.approx(0.003)
    assert {headers["authorization"] for headers in receiver.headers} == {f"Bearer {SECRET}"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "headers", [f"x-key={SECRET}%0Ax", f"x-key={SECRET}%1B", f"x y={SECRET}", f"x={SECRET}é", f"%0A={SECRET}"]
)
def test_a_header_that_cannot_be_sent_is_told_by_its_variable(headers: str, protocol: str) -> None:
    environ = {f"{GENERAL}HEADERS": headers, f"{GENERAL}PROTOCOL": protocol}
    with transport("metrics", environ) as to:
        outcome = send(to)
    if headers.startswith("%0A"):
        return
    assert not outcome.delivered
    assert f"{GENERAL}HEADERS" in outcome.reason
    assert SECRET not in outcome.reason


def test_nothing_shows_a_secret_that_may_be_printed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "token").write_text(SECRET)
    environ = {
        f"{GENERAL}ENDPOINT": f"http://me:{SECRET}@127.0.0.1:9/{'x'}?key={SECRET}",
        f"{GENERAL}HEADERS": f"authorization=Bearer {SECRET},broken {SECRET}",
        f"{GENERAL}TIMEOUT": "1",
    }
    with caplog.at_level(logging.DEBUG):
        config = read_otlp_config(environ, tmp_path / "token")
        with transport("metrics", environ) as to:
            outcome = send(to)
            exporter = OwnSpanExporter(to, 0.1)
            exporter.export([])
        settings = load(ViewerSettings, token=SECRET)
    for shown in (repr(config), str(config), outcome.reason, caplog.text, repr(settings), repr(vars(settings))):
        assert SECRET not in shown, shown


@pytest.mark.parametrize(
    "token", [f"{SECRET}\n{SECRET}", f"{SECRET}\x1b", f"{SECRET} x", f"{SECRET}é", f"{SECRET}\0", " "]
)
def test_a_client_shows_no_token(token: str) -> None:
    with pytest.raises(StatsError) as caught:
        StatsClient("http://127.0.0.1:9", token=token)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in repr(caught.value.__context__)
    assert "token" in str(caught.value)


def test_a_client_strips_its_token_and_shows_no_password_of_its_url() -> None:
    with http_door() as door:
        door.status, door.body = 403, f'{{"message": "not with {SECRET}\\u001b"}}'.encode()
        with StatsClient(f"http://me:{SECRET}@127.0.0.1:{door.port}/?x={SECRET}", token=f" {SECRET}\n") as client:
            with pytest.raises(StatsError) as caught:
                client.totals()
            assert door.headers[-1]["authorization"] == f"Bearer {SECRET}"
            assert str(caught.value) == rf"http://127.0.0.1:{door.port} answered 403: not with ***\x1b"
            assert SECRET not in repr(client._http.headers) + client.url
        with pytest.raises(StatsError) as caught:
            StatsClient(f"http://me:{SECRET}@[broken")
        assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_settings_name_what_they_cannot_use_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_HEARTBEAT_S", SECRET)
    with pytest.raises(ValueError, match="OPENHANDS_OTEL_HEARTBEAT_S") as caught:
        load(Settings)
    assert caught.value.__context__ is None
    assert SECRET not in str(caught.value)


def test_one_reader_knows_every_token_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"\ufeff {SECRET} \n", encoding="utf-8")
    assert read_token(file) == SECRET
    with pytest.raises(TokenFileError, match="cannot be read"):
        read_token(tmp_path / "a\0b")
