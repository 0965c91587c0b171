"""Named tokens, TLS and a proxy in front: what each bearer may do, and that what is taken back is gone at once."""

from __future__ import annotations

import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import certificates
import grpc
import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from span_sender import SpanSender
from viewer_process import PROTOBUF, Viewer, running_viewer, wait_for

from openhands_otel import StatsClient
from openhands_otel._internal.cli import main
from openhands_otel._internal.export.spool.destination import Destination
from openhands_otel._internal.export.spool.file import NEWEST, Owed, Spool, SpooledRequest
from openhands_otel._internal.export.spool.folder import SPOOL_SUFFIX, LockedFile, usable_folder
from openhands_otel._internal.host import named_tokens
from openhands_otel._internal.host.named_tokens import NamedTokens, Right, TokensError
from otlp_sender import Sender

LOOKS = ["/api/v1/state", "/api/v1/conversations", "/api/v1/spend", "/api/v1/runs", "/api/v1/openapi.json", "/metrics"]
SEND, LOOK, BOTH = frozenset({Right.SEND}), frozenset({Right.LOOK}), frozenset(Right)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


@pytest.fixture
def viewer(tokens: Path) -> Iterator[Viewer]:
    """One that has a token of its own, so that nobody is let in for being this user's process."""
    with running_viewer("--tokens-file", str(tokens), token="0wn") as viewer:
        yield viewer


def client(viewer: Viewer, secret: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {secret}"}
    return httpx.Client(base_url=viewer.url, headers=headers, trust_env=False, timeout=100)


def sends(client: httpx.Client, sender: Sender) -> httpx.Response:
    return client.post("/v1/metrics", content=sender.body(), headers=PROTOBUF)


def over_grpc(address: str, secret: str, sender: Sender) -> grpc.StatusCode:
    with grpc.insecure_channel(address) as channel:
        try:
            metadata = (("authorization", f"Bearer {secret}"),)
            MetricsServiceStub(channel).Export(sender.request(), metadata=metadata, timeout=100)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def test_who_may_send_may_not_look_and_the_other_way_round(viewer: Viewer, tokens: Path) -> None:
    sender = named_tokens.add(tokens, "ci", SEND)
    looker = named_tokens.add(tokens, "alice", LOOK)
    with client(viewer, sender) as sending, client(viewer, looker) as looking:
        wait_for(lambda: sends(sending, Sender("one").spend(1.0)).status_code == 200, "the token")
        for path in (*LOOKS, "/api/v1/events"):
            refused = sending.get(path)
            assert refused.status_code == 403
            assert refused.json()["message"] == "the token 'ci' is not for this: it may send"
        for path in LOOKS:
            assert looking.get(path).status_code == 200, path
        for path in ("/v1/metrics", "/v1/traces", "/v1/logs", "/api/v1/import"):
            assert looking.post(path, content=b"{}", headers={"content-type": "application/json"}).status_code == 403
    assert over_grpc(viewer.grpc, sender, Sender("two").spend(1.0)) is grpc.StatusCode.OK
    assert over_grpc(viewer.grpc, looker, Sender("three").spend(1.0)) is grpc.StatusCode.PERMISSION_DENIED
    assert over_grpc(viewer.grpc, "another", Sender("three").spend(1.0)) is grpc.StatusCode.UNAUTHENTICATED
    assert viewer.state().totals.accumulated_cost == 2.0


def test_what_is_taken_back_is_refused_and_an_open_stream_of_it_ends(viewer: Viewer, tokens: Path) -> None:
    kept, lost = (named_tokens.add(tokens, name, LOOK) for name in ("kept", "lost"))
    ended = threading.Event()
    begun = threading.Event()

    def follow() -> None:
        with suppress(httpx.HTTPError), client(viewer, lost).stream("GET", "/api/v1/events") as stream:
            for _ in stream.iter_lines():
                begun.set()
        ended.set()

    with client(viewer, kept) as still, client(viewer, lost) as gone:
        wait_for(lambda: gone.get("/api/v1/state").status_code == 200, "the token")
        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        assert begun.wait(100)
        named_tokens.revoke(tokens, "lost")
        wait_for(lambda: gone.get("/api/v1/state").status_code == 401, "the refusal")
        assert ended.wait(100)
        assert still.get("/api/v1/state").status_code == 200
        # Made again under its name it is another.
        named_tokens.add(tokens, "lost", BOTH)
        wait_for(lambda: client(viewer, kept).get("/api/v1/state").status_code == 200, "another look")
        assert gone.get("/api/v1/state").status_code == 401


def test_a_token_of_one_service_sends_nothing_of_another(viewer: Viewer, tokens: Path) -> None:
    secret = named_tokens.add(tokens, "checkout-ci", SEND, "checkout")
    with client(viewer, secret) as sending:
        wait_for(lambda: sends(sending, Sender("mine", "checkout").spend(1.0)).status_code == 200, "the token")
        refused = sends(sending, Sender("theirs", "billing").spend(5.0))
        assert refused.status_code == 403
        assert b"the token 'checkout-ci' is for service checkout, not for billing" in refused.content
        for service, status in (("checkout", 200), ("billing", 403)):
            spans = SpanSender(service)
            spans.call(1, "c")
            assert sending.post("/v1/traces", content=spans.body(), headers=PROTOBUF).status_code == status
        together = Sender("mine", "checkout").spend(9.0).request()
        together.MergeFrom(Sender("theirs", "billing").spend(5.0).request())
        imported = sending.post("/api/v1/import", content=b"{}", headers={"content-type": "application/json"})
        assert imported.status_code == 403
        assert sending.post("/v1/metrics", content=together.SerializeToString(), headers=PROTOBUF).status_code == 403
    assert over_grpc(viewer.grpc, secret, Sender("also", "checkout").spend(1.0)) is grpc.StatusCode.OK
    assert over_grpc(viewer.grpc, secret, Sender("not", "billing").spend(1.0)) is grpc.StatusCode.PERMISSION_DENIED
    assert viewer.state().totals.accumulated_cost == 2.0


def test_a_file_that_cannot_be_read_lets_nobody_in_and_puts_nobody_out(
    tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = named_tokens.add(tokens, "ci", BOTH)
    held = NamedTokens(tokens)
    whole = tokens.read_text()
    tokens.write_text(whole[:-9])
    for _ in range(3):
        wait_for(lambda: len(caplog.records) or held.grant_of(secret) is None, "a look at the file")
        assert held.grant_of(secret) is not None
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    tokens.write_text(whole.replace(named_tokens.digest_of(secret), "0" * 64))
    wait_for(lambda: held.grant_of(secret) is None, "the new file")
    tokens.unlink()
    wait_for(lambda: len(held) == 0 if held.grant_of(secret) is None else None, "no file")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"version": 1}',
        '{"version": 2, "tokens": []}',
        '{"version": 1, "tokens": [{"name": "a"}]}',
        "\xff",
    ],
)
def test_what_is_no_file_of_tokens_is_named_before_anything_starts(tokens: Path, content: str) -> None:
    tokens.write_text(content)
    with pytest.raises(TokensError) as error:
        NamedTokens(tokens)
    assert str(tokens) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_token_is_nowhere_but_with_its_bearer(tokens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "add", "ci", "--send", "--file", str(tokens)]) == 0
    shown = capsys.readouterr()
    secret = shown.out.strip()
    assert len(secret.split()) == 1
    assert secret not in shown.err
    assert secret not in tokens.read_text()
    assert tokens.stat().st_mode & 0o077 == 0
    out = tokens.with_name("alice.token")
    assert main(["token", "add", "alice", "--look", "--out", str(out), "--file", str(tokens)]) == 0
    assert out.stat().st_mode & 0o077 == 0
    assert out.read_text().strip() not in capsys.readouterr().out
    assert main(["token", "list", "--json", "--file", str(tokens)]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(each["name"], each["rights"], each["service"]) for each in listed] == [
        ("ci", ["send"], None),
        ("alice", ["look"], None),
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "ci"], "say what it is for: --send, --look, or both"),
        (["add", "a b", "--send"], "a name has up to 64 letters"),
        (["add", "../x", "--send"], "a name has up to 64 letters"),
        (["add", "known", "--send"], "there is a token 'known': revoke it first"),
        (["add", "new", "--send", "--out", "/nowhere/at/all"], "no token was made"),
        (["revoke", "nobody"], "there is no token 'nobody'"),
    ],
)
def test_a_wrong_word_is_one_line_and_changes_nothing(
    tokens: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named_tokens.add(tokens, "known", BOTH)
    before = named_tokens.read(tokens)
    assert main(["token", *words, "--file", str(tokens)]) != 0
    told = capsys.readouterr()
    assert said in told.err
    assert told.err.count("\n") == 1
    assert named_tokens.read(tokens) == before


def test_many_who_change_the_file_at_once_lose_nothing(tokens: Path) -> None:
    threads = [
        threading.Thread(target=named_tokens.add, args=(tokens, f"t{number}", SEND), daemon=True)
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.name for each in named_tokens.read(tokens)} == {f"t{number}" for number in range(20)}


# ---------------------------------------------------------------- a proxy in front


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "via", "x-real-ip", "x-forwarded-host"])
def test_who_comes_by_a_proxy_of_ours_is_not_us(header: str) -> None:
    with running_viewer() as viewer:
        assert viewer.http.get("/api/v1/state").status_code == 200
        assert viewer.http.get("/api/v1/state", headers={header: "192.0.2.1"}).status_code == 401
        sender, metadata = Sender("x").spend(1.0), ((header, "192.0.2.1"),)
        with grpc.insecure_channel(viewer.grpc) as channel, pytest.raises(grpc.RpcError) as refused:
            MetricsServiceStub(channel).Export(sender.request(), metadata=metadata, timeout=100)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_behind_a_public_address_everybody_shows_a_token(tokens: Path) -> None:
    """The proxy may leave its part of the path or take it away, and may say nothing of whom it speaks for."""
    secret = named_tokens.add(tokens, "all", BOTH)
    options = ("--tokens-file", str(tokens), "--public-url", "https://host.example/ours/spend")
    with running_viewer(*options) as viewer, client(viewer, secret) as known:
        assert viewer.http.get("/api/v1/state").status_code == 401
        for path in ("/api/v1/state", "/ours/spend/api/v1/state", "/ours/spend/", "/ours/spend/assets/page.js"):
            for host in ("host.example", "HOST.example:443", "127.0.0.1"):
                assert known.get(path, headers={"host": host}).status_code == 200, (path, host)
        assert known.get("/ours/spend").headers["location"] == "/ours/spend/"
        assert known.get("/ours/spending/api/v1/state").status_code == 404
        assert known.get("/api/v1/state", headers={"host": "other.example"}).status_code == 421
        assert known.post("/ours/spend/v1/metrics", content=Sender("x").spend(1.0).body(), headers=PROTOBUF).is_success


@pytest.mark.parametrize(
    "url", ["host.example", "ftp://host.example", "https://", "https://a:b@host/", "https://h/?x=1"]
)
def test_a_public_address_that_is_none_is_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", "--database", ":memory:", "--public-url", url]) == 1
    assert "as in https://host.example/spend" in capsys.readouterr().err


def test_a_public_viewer_without_any_token_does_not_start(tokens: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["--public-url", "https://host.example"], ["--host", "0.0.0.0"]):
        assert main(["view", "--database", ":memory:", "--tokens-file", str(tokens), *options, "--port", "0"]) == 1
        assert "openhands-otel token add NAME" in capsys.readouterr().err


def test_to_trust_the_machine_lets_nobody_in_from_elsewhere(tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = named_tokens.add(tokens, "all", BOTH)
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_TRUST_MACHINE", "true")
    with running_viewer("--tokens-file", str(tokens), "--host", "0.0.0.0") as viewer:
        assert viewer.http.get("/api/v1/state").status_code == 401
        assert viewer.post(Sender("x").spend(1.0).body()).status_code == 401
        with client(viewer, secret) as known:
            assert known.get("/api/v1/state").status_code == 200


# ---------------------------------------------------------------- TLS


def over_tls(viewer: Viewer, authority: Path, secret: str, sender: Sender) -> None:
    credentials = grpc.ssl_channel_credentials(authority.read_bytes())
    with grpc.secure_channel(viewer.grpc, credentials) as channel:
        metadata = (("authorization", f"Bearer {secret}"),)
        MetricsServiceStub(channel).Export(sender.request(), metadata=metadata, timeout=100)


def serial(url: str, authority: Path) -> int:
    context = ssl.create_default_context(cafile=str(authority))
    host, port = httpx.URL(url).host, httpx.URL(url).port
    with socket.create_connection((host, port)) as plain, context.wrap_socket(plain, server_hostname=host) as wrapped:
        found = wrapped.getpeercert()
    assert found is not None
    return int(str(found["serialNumber"]), 16)


def test_both_ports_speak_tls_and_nothing_else_and_a_renewed_certificate_is_taken(tmp_path: Path) -> None:
    identity = certificates.make(tmp_path / "tls")
    options = ("--tls-cert", str(identity.certificate), "--tls-key", str(identity.key))
    with running_viewer(*options, token="t") as viewer:
        assert viewer.url.startswith("https://")
        with httpx.Client(verify=ssl.create_default_context(cafile=str(identity.authority)), trust_env=False) as known:
            headers = {"authorization": "Bearer t"} | PROTOBUF
            body = Sender("one").spend(1.0).body()
            assert known.post(f"{viewer.url}/v1/metrics", content=body, headers=headers).status_code == 200
        over_tls(viewer, identity.authority, "t", Sender("two").spend(1.0))
        with pytest.raises(httpx.HTTPError):
            httpx.get(viewer.url.replace("https", "http"), trust_env=False)
        assert over_grpc(viewer.grpc, "t", Sender("three").spend(1.0)) is grpc.StatusCode.UNAVAILABLE
        with StatsClient(viewer.url, token="t", certificate=identity.authority) as stats:
            assert stats.state().totals.accumulated_cost == 2.0
        before = serial(viewer.url, identity.authority)
        renewed = certificates.make(tmp_path / "next")
        os.replace(renewed.key, identity.key)
        os.replace(renewed.certificate, identity.certificate)

        def is_new() -> bool:
            with suppress(ssl.SSLError):
                return serial(viewer.url, renewed.authority) != before
            return False

        wait_for(is_new, "the renewed certificate")
        over_tls(viewer, renewed.authority, "t", Sender("four").spend(1.0))


def test_a_certificate_that_cannot_be_used_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    identity, other = certificates.make(tmp_path / "tls"), certificates.make(tmp_path / "other")
    given = {
        "--tls-key is missing": ["--tls-cert", str(identity.certificate)],
        "--tls-cert is missing": ["--tls-key", str(identity.key)],
        "cannot be read": ["--tls-cert", str(tmp_path / "none"), "--tls-key", str(identity.key)],
        "must be a certificate and its key": ["--tls-cert", str(identity.certificate), "--tls-key", str(other.key)],
    }
    for said, options in given.items():
        assert main(["view", "--database", ":memory:", "--port", "0", *options]) == 1
        told = capsys.readouterr().err
        assert said in told
        assert told.count("\n") == 1


def test_what_waited_in_the_spool_is_taken_in_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The viewer trusts its own certificate, whatever name it is for."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    identity = certificates.make(tmp_path / "tls")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    there = Destination.of("http/protobuf", f"https://127.0.0.1:{port}/v1/metrics", False)
    parts = [SpooledRequest(NEWEST, 1, Sender("gone").spend(1.0).body())]
    spool = Spool("gone", "agent", 7, there, started=1, written=1, reason="nobody", owed=Owed(1.0, 1), parts=parts)
    file = LockedFile(usable_folder() / f"gone{SPOOL_SUFFIX}")
    file.write(spool)
    file.release()
    options = ("--tls-cert", str(identity.certificate), "--tls-key", str(identity.key))
    with (
        running_viewer(*options, token="t", port=port) as viewer,
        StatsClient(viewer.url, token="t", certificate=identity.authority) as stats,
    ):
        wait_for(lambda: stats.state().totals.accumulated_cost == 1.0, "the spool")
