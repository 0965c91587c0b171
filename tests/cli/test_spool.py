"""``openhands-otel spool``: what lies here, sent or dropped by hand."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from viewer_process import running_viewer

from openhands_otel._internal.cli import main
from openhands_otel._internal.export.spool.destination import Destination
from openhands_otel._internal.export.spool.file import NEWEST, Owed, Spool, SpooledRequest
from openhands_otel._internal.export.spool.folder import SPOOL_SUFFIX, LockedFile, usable_folder
from otlp_receiver import http_receiver
from otlp_sender import Sender


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def leave(name: str, port: int, cost: float, **more: str) -> LockedFile:
    """A spool as a process leaves it; locked until it is released."""
    parts = [SpooledRequest(NEWEST, 1, Sender(name).spend(cost).body())]
    there = Destination.of("http/protobuf", f"http://127.0.0.1:{port}/v1/metrics", True)
    about = {"reason": "nobody is there"} | more
    spool = Spool(name, "bots\x1b]0;x", 7, there, started=1, written=1, owed=Owed(cost, 1), parts=parts, **about)
    file = LockedFile(usable_folder() / f"{name}{SPOOL_SUFFIX}")
    file.write(spool)
    return file


def test_a_list_names_what_where_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    """Kind: an end without a collector is silent; what is kept is no use if nobody finds it."""
    assert main(["spool", "list"]) == 0
    assert "Nothing waits" in capsys.readouterr().out
    leave("aaaaaaaa-1", 4318, 0.25).release()
    leave("bbbbbbbb-2", 4318, 0.5, refused="too old").release()
    living = leave("cccccccc-3", 4319, 1.0)
    (usable_folder() / f"dddddddd-4{SPOOL_SUFFIX}").write_bytes(b"what?")
    assert main(["spool", "list"]) == 0
    out = capsys.readouterr().out
    lines = {line[:8]: line for line in out.splitlines()}
    assert "\x1b" not in out
    for name, words in {
        "aaaaaaaa": ("$0.2500 of 1 calls", "http://localhost:4318/v1/metrics", "waits: nobody is there"),
        "bbbbbbbb": ("$0.5000", "refused: too old"),
        "cccccccc": ("$1.0000", "4319", "its process lives"),
        "dddddddd": ("it is no spool",),
    }.items():
        for word in words:
            assert word in lines[name]
    assert main(["spool", "list", "--json"]) == 0
    states = {each["id"]: each["state"] for each in json.loads(capsys.readouterr().out)}
    assert states == {"aaaaaaaa": "waiting", "bbbbbbbb": "refused", "cccccccc": "living", "dddddddd": "damaged"}
    living.release()


def test_what_is_dropped_is_said_and_a_living_process_keeps_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    living = leave("cccccccc-3", 4319, 1.0)
    for name in ("aaaaaaaa-1", "bbbbbbbb-2"):
        leave(name, 4318, 0.25).release()
    assert main(["spool", "drop"]) == 2
    assert main(["spool", "drop", "zzz"]) == 1
    assert main(["spool", "drop", "aaaa"]) == 0
    assert "dropped aaaaaaaa: $0.2500 of 1 calls" in capsys.readouterr().out
    assert main(["spool", "drop", "cccccccc"]) == 1
    assert main(["spool", "drop", "--all"]) == 0
    assert [path.name for path in usable_folder().iterdir()] == [living.path.name]
    living.release()


def test_what_is_sent_counts_once_wherever_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("secret-token\n")
    with running_viewer(token="secret-token") as viewer:
        port = viewer.url.rpartition(":")[2]
        leave("aaaaaaaa-1", int(port), 0.25).release()
        leave("bbbbbbbb-2", free_port(), 0.5, refused="too old").release()
        # Without the token it stays; and the one that is for another door is not shown at this one.
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer another-door")
        assert main(["spool", "send"]) == 1
        assert "401" in capsys.readouterr().err
        assert main(["spool", "send", "aaaa", "--token-file", str(token)]) == 0
        assert main(["spool", "send", "--endpoint", viewer.url, "--token-file", str(token)]) == 0
        assert capsys.readouterr().out.count("sent ") == 2
        assert not list(usable_folder().iterdir())
        assert viewer.state().totals.accumulated_cost == pytest.approx(0.75)


def test_a_strangers_door_sees_no_credentials_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer secret")
    with http_receiver() as own, http_receiver() as other:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", own.url)
        leave("aaaaaaaa-1", own.port, 0.25).release()
        leave("bbbbbbbb-2", other.port, 0.25).release()
        assert main(["spool", "send"]) == 0
        assert [headers.get("authorization") for headers in own.headers] == ["Bearer secret"]
        assert [headers.get("authorization") for headers in other.headers] == [None]
