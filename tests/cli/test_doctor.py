"""``openhands-otel doctor`` with real viewers and real broken links: each is named in one line, with what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import certificates
import pytest
from telemetry.conftest import black_hole, refusing, silent, talking_nonsense
from viewer_process import Viewer, running_viewer

from openhands_otel._internal.cli import main
from openhands_otel._internal.doctor.clocks import compare
from openhands_otel._internal.doctor.surroundings import look
from openhands_otel._internal.doctor.versions import check_versions
from otlp_receiver import http_receiver

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TOKEN = "the-viewers-token"

Findings = list[dict[str, str]]


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        yield viewer


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> certificates.Identity:
    return certificates.make(tmp_path_factory.mktemp("ours"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return tmp_path


class Doctor:
    """Runs it in this process and reads what it says."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.code = 0

    def __call__(self, *words: str) -> Findings:
        self._capsys.readouterr()
        self.code = main(["doctor", "--json", *words])
        said = json.loads(self._capsys.readouterr().out)
        broken = [each for each in said["findings"] if each["level"] == "problem"]
        assert (self.code, said["healthy"]) == (int(bool(broken)), not broken)
        assert all(each["cure"] for each in broken), "each problem has something to be done"
        assert all("\n" not in each["said"] + each["cure"] for each in said["findings"])
        return said["findings"]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    return Doctor(capsys)


def only(found: Findings, check: str) -> dict[str, str]:
    [one] = [each for each in found if each["check"] == check]
    return one


def broken(found: Findings) -> dict[str, str]:
    """The one problem; nothing behind it was tried."""
    [one] = [each for each in found if each["level"] == "problem"]
    assert found[-1] == one
    return one


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_where_all_is_well_the_probe_is_read_back_and_no_total_knows_it(
    protocol: str, viewer: Viewer, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = viewer.http.get("/api/v1/totals").json(), viewer.http.get("/api/v1/spend").json()
    monkeypatch.setenv(ENDPOINT, viewer.url if protocol != "grpc" else f"http://{viewer.grpc}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    found = doctor(*([] if protocol != "grpc" else ["--viewer", viewer.url]))
    assert doctor.code == 0
    checks = ["versions", "entry point", "environment", "reachability", "token", "probe", "read back", "clocks"]
    assert [each["check"] for each in found if each["level"] == "ok"] == checks
    after = viewer.http.get("/api/v1/totals").json(), viewer.http.get("/api/v1/spend").json()
    for document in (before[0], after[0]):
        del document["totals"]["received_unix_nano"]
    assert after == before
    assert viewer.state().conversations == ()
    assert viewer.state().receiver.refusals == ()


def test_people_get_a_line_for_each(
    viewer: Viewer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINT, viewer.url)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok"] * 8


@pytest.mark.parametrize("link", ["refused", "slow", "silent", "nonsense", "a name that is none", "a page"])
def test_a_link_that_is_broken_is_named(link: str, doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    opened: dict[str, Any] = {"refused": refusing, "slow": black_hole, "silent": silent, "nonsense": talking_nonsense}
    expected = {
        "refused": ("reachability", "connection refused"),
        "slow": ("reachability", "no connection within 2 s"),
        "silent": ("probe", "no answer"),
        "nonsense": ("probe", "no HTTP"),
        "a name that is none": ("reachability", "name is not known"),
        "a page": ("probe", "web page"),
    }
    if link == "a name that is none":
        monkeypatch.setenv(ENDPOINT, "http://nobody.invalid:4318")
        one = broken(doctor())
    elif link == "a page":
        with http_receiver() as receiver:
            receiver.content_type, receiver.answer = "text/html", lambda: (200, b"<title>Hello</title>")
            monkeypatch.setenv(ENDPOINT, receiver.url)
            one = broken(doctor())
    else:
        with opened[link]() as port:
            monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{port}")
            one = broken(doctor())
    check, said = expected[link]
    assert one["check"] == check
    assert said in one["said"]


def test_a_token(doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = tmp_path / "token"
    with running_viewer(token=TOKEN) as viewer:
        monkeypatch.setenv(ENDPOINT, viewer.url)
        for wrong in (None, "another"):
            if wrong is not None:
                shown.write_text(wrong)
                monkeypatch.setenv("OPENHANDS_OTEL_TOKEN_FILE", str(shown))
            one = broken(doctor())
            assert one["check"] == "token"
            assert "401" in one["said"]
            assert "OPENHANDS_OTEL_TOKEN_FILE" in one["cure"]
            assert "another" not in str(one)
        shown.write_text(TOKEN)
        found = doctor()
        assert doctor.code == 0
        assert only(found, "token")["level"] == only(found, "read back")["level"] == "ok"
        assert TOKEN not in str(found)


def test_a_token_that_may_send_of_one_service_and_not_look(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = str(tmp_path / "tokens.json")
    for name, rights in (("send", ("--send", "--service", "checkout")), ("look", ("--look",))):
        assert main(["token", "add", name, *rights, "--out", str(tmp_path / name), "--file", tokens]) == 0
    with running_viewer("--tokens-file", tokens, token=TOKEN) as viewer:
        monkeypatch.setenv(ENDPOINT, viewer.url)
        monkeypatch.setenv("OPENHANDS_OTEL_TOKEN_FILE", str(tmp_path / "send"))
        monkeypatch.setenv("OTEL_SERVICE_NAME", "checkout")
        found = doctor()
        assert doctor.code == 0
        assert only(found, "token")["level"] == "ok"
        assert only(found, "read back")["level"] == "note"
        assert "--token-file" in only(found, "read back")["cure"]
        found = doctor("--token-file", str(tmp_path / "look"))
        assert only(found, "read back")["level"] == only(found, "clocks")["level"] == "ok"
        monkeypatch.setenv("OTEL_SERVICE_NAME", "another")
        assert broken(doctor())["check"] == "token"
        monkeypatch.setenv("OPENHANDS_OTEL_TOKEN_FILE", str(tmp_path / "look"))
        assert broken(doctor())["check"] == "token"


def test_certificates(
    doctor: Doctor, ours: certificates.Identity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = certificates.make(tmp_path / "others", "others")
    tls = ("--tls-cert", str(ours.certificate), "--tls-key", str(ours.key))
    with running_viewer(*tls) as viewer:
        address = viewer.url.replace("http://", "https://")
        monkeypatch.setenv(ENDPOINT, address)
        for authority, said in ((None, "set OTEL_EXPORTER_OTLP_CERTIFICATE"), (others.authority, "names another")):
            if authority is not None:
                monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(authority))
            one = broken(doctor())
            assert one["check"] == "TLS"
            assert said in one["said"]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "nothing.pem"))
        assert "nothing.pem" in broken(doctor())["said"]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(ours.authority))
        found = doctor()
        assert doctor.code == 0
        assert "trusted until" in only(found, "TLS")["said"]
        monkeypatch.setenv(ENDPOINT, address.replace("https://", "http://"))
        assert "https://" in broken(doctor())["said"]


def test_a_proxy_that_is_not_there_is_named(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing() as port:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:secret@127.0.0.1:{port}")
        monkeypatch.setenv(ENDPOINT, "http://viewer.example:4318")
        found = doctor()
        one = broken(found)
        assert one["check"] == "reachability"
        assert f"127.0.0.1:{port}" in one["said"]
        assert "secret" not in str(found)


TRAPS = {
    "OPENHANDS_OTEL_ENABLED": ("false", "problem"),
    "OTEL_SDK_DISABLED": ("true", "problem"),
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ("requests, openhands", "problem"),
    "OTEL_METRICS_EXPORTER": ("console", "problem"),
    "OTEL_EXPORTER_OTLP_TIMEOUT": ("soon", "problem"),
    "LMNR_PROJECT_API_KEY": ("key", "note"),
    "OTEL_ENDPOINT": ("http://127.0.0.1:4318", "note"),
    "HTTPS_PROXY": ("http://127.0.0.1:3128", "note"),
}


@pytest.mark.parametrize("variable", TRAPS)
def test_a_variable_that_is_known_to_surprise_is_named(
    variable: str, viewer: Viewer, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, level = TRAPS[variable]
    monkeypatch.setenv(ENDPOINT, viewer.url)
    monkeypatch.setenv(variable, value)
    told = [each for each in doctor() if each["check"] == "environment" and variable in each["said"]]
    assert told
    assert {each["level"] for each in told} <= {level, "problem"}


def test_a_configuration_file_is_said_to_be_read_and_what_is_not_used_of_it(
    viewer: Viewer, doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "otel.json"
    readers = [{"periodic": {"exporter": {"otlp_http": {"endpoint": f"{viewer.url}/v1/metrics"}}}}]
    tree = {"file_format": "1.0", "meter_provider": {"readers": readers}, "propagator": {}}
    file.write_text(json.dumps(tree))
    monkeypatch.setenv("OTEL_CONFIG_FILE", str(file))
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    read, unused = (each for each in doctor() if each["check"] == "environment")
    assert doctor.code == 0
    assert (read["level"], unused["level"]) == ("ok", "note")
    assert f"{file} in the place of OTEL_* variables: metrics to {viewer.url}/v1/metrics" in read["said"]
    assert "propagator" in unused["said"]
    file.write_text("{")
    assert "is no JSON" in broken(doctor())["said"]
    file.write_text(json.dumps({"file_format": "1.0", "meter_provider": {"readers": readers}, "disabled": True}))
    assert any("'disabled' of the file turns" in each["said"] for each in doctor())


def test_files_alone_are_said_to_be_that_and_a_folder_that_cannot_be_written_is_named(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_FILE", str(tmp_path / "new" / "spend"))
    assert only(doctor(), "environment")["level"] == "note"
    assert doctor.code == 0
    (tmp_path / "new").touch()
    assert [each["level"] for each in doctor() if each["check"] == "environment"] == ["problem", "note"]


@pytest.mark.parametrize(
    "words", [["--viewer", "nowhere"], ["--prometheus", "http://["], ["--viewer", "x", "--prometheus", "y"]]
)
def test_what_is_no_address_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_password_in_netrc_is_said_not_to_be_read(
    viewer: Viewer, doctor: Doctor, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".netrc").write_text("machine 127.0.0.1 login me password hidden\n")
    (home / ".netrc").chmod(0o600)
    monkeypatch.setenv(ENDPOINT, viewer.url)
    found = doctor()
    assert "netrc" in only(found, "environment")["said"]
    assert "hidden" not in str(found)


def test_a_receiver_that_is_no_viewer_is_said_to_be_unread(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    with http_receiver() as receiver:
        monkeypatch.setenv(ENDPOINT, receiver.url)
        found = doctor()
        assert doctor.code == 0
        assert only(found, "read back")["level"] == "note"
        assert "--prometheus" in only(found, "read back")["cure"]
        with refusing() as port:
            assert broken(doctor("--viewer", f"http://127.0.0.1:{port}"))["check"] == "read back"


def test_a_token_is_shown_at_its_own_door_alone(
    doctor: Doctor, tmp_path: Path, viewer: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = tmp_path / "token"
    shown.write_text(TOKEN)
    monkeypatch.setenv(ENDPOINT, viewer.url)
    monkeypatch.setenv("OPENHANDS_OTEL_TOKEN_FILE", str(shown))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret")
    heard: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(str(self.headers).lower())
            self.send_error(404)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_port
        doctor("--prometheus", f"http://localhost:{port}")
        assert heard
        assert not [said for said in heard if "secret" in said or "authorization" in said]
        doctor("--prometheus", f"http://127.0.0.1:{port}")
        assert f"bearer {TOKEN}" in heard[-1]
        server.shutdown()


@pytest.mark.parametrize(("away_s", "said"), [(3_000, "behind"), (-3_000, "booked by arrival"), (0, "agree")])
def test_clocks_that_differ_are_named(away_s: float, said: str) -> None:
    found = compare(lambda: time.time() + away_s)
    assert said in found.said
    assert (found.level == "ok") == (away_s == 0)


# ---------------------------------------------------------------- from a command


def test_a_command_is_looked_at_in_its_own_python_and_environment(
    viewer: Viewer, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINT, viewer.url)
    found = doctor("--", sys.executable, "-c", "import openhands.sdk")
    assert doctor.code == 0, found
    assert sys.executable in only(found, "versions")["said"]
    assert only(found, "read back")["level"] == "ok"


@pytest.mark.parametrize(
    ("sdk", "litellm", "fails"),
    [
        ("1.49.1", "1.110.2", True),
        ("1.49.1", "1.95.0", True),
        ("1.49.0", "2.0.0", True),
        ("1.49.1", "1.94.9", False),
        ("1.58.2", "1.110.2", False),
        ("1.49.1", None, False),
    ],
)
def test_an_openhands_that_loses_tokens_with_its_litellm_is_told_the_constraint(
    sdk: str, litellm: str | None, fails: bool
) -> None:
    found: dict[str, Any] = dict(look())
    found["packages"] |= {"openhands-sdk": sdk, "litellm": litellm}
    problems = [each for each in check_versions(found) if each.level == "problem"]
    assert bool(problems) == fails
    for one in problems:
        assert "its tokens are lost" in one.said
        assert "'litellm<1.95'" in one.cure
        assert "UV_CONSTRAINT" in one.cure


@pytest.mark.parametrize(
    ("tools", "server", "cure"),
    [
        ("1.58.2", None, "pip install openhands-sdk==1.58.2 openhands-tools==1.58.2"),
        (
            "1.9.0",
            "1.49.1",
            "pip install openhands-sdk==1.49.1 openhands-tools==1.49.1 openhands-agent-server==1.49.1",
        ),
        ("1.49.0", None, None),
        (None, "1.49.1", None),
    ],
)
def test_packages_of_openhands_that_were_never_released_together_are_named_with_what_installs_one_release(
    tools: str | None, server: str | None, cure: str | None
) -> None:
    found: dict[str, Any] = dict(look())
    found["packages"] |= {"openhands-sdk": "1.49.1", "openhands-tools": tools, "openhands-agent-server": server}
    notes = [each for each in check_versions(found) if "different releases" in each.said]
    assert [each.cure for each in notes] == ([] if cure is None else [cure])


def test_a_python_without_us_is_said_to_lack_us(doctor: Doctor, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    found = doctor("--", str(tmp_path / "bare" / "bin" / "python"), "-c", "pass")
    one = broken(found)
    assert "openhands-otel is not there" in one["said"]
    assert "pip install" in one["cure"]


def test_an_openhands_without_us_is_brought_us_by_run(
    viewer: Viewer, doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINT, viewer.url)
    venv.create(tmp_path / "env", symlinks=True)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (site / "openhands_sdk-1.58.2.dist-info").mkdir()
    (site / "openhands_sdk-1.58.2.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: openhands-sdk\nVersion: 1.58.2\n"
    )
    found = doctor("--", str(tmp_path / "env" / "bin" / "python"), "-c", "pass")
    assert doctor.code == 0, found
    assert any("in a bundle" in each["said"] for each in found)
    assert only(found, "read back")["level"] == "ok"


def test_a_frozen_program_a_runner_and_a_client_are_known(
    viewer: Viewer, doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINT, viewer.url)
    frozen = tmp_path / "canvas"
    frozen.write_bytes(b"\x7fELF and so on")
    runner = tmp_path / "uvx"
    runner.write_text("#!/bin/sh\nexit 0\n")
    client = tmp_path / "client.py"
    client.write_text("from openhands.sdk import RemoteConversation\n")
    for path in (frozen, runner):
        path.chmod(0o755)
    for words, said, cure in (
        ([str(frozen)], "frozen", "openhands_otel.auto"),
        ([str(runner), "agent"], "environment of its own", "--with"),
        ([sys.executable, str(client)], "RemoteConversation", "agent-server.md"),
    ):
        one = only(doctor("--", *words), "command")
        assert one["level"] == "note"
        assert said in one["said"]
        assert cure in one["cure"]


def test_a_command_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--", "no-such-command-at-all"]) == 127
    assert capsys.readouterr().err.count("\n") == 1


def test_it_is_a_command_that_a_shell_can_ask(viewer: Viewer) -> None:
    command = [sys.executable, "-m", "openhands_otel", "doctor"]
    done = subprocess.run(command, env=os.environ | {ENDPOINT: viewer.url}, capture_output=True, text=True, check=True)
    assert "read back" in done.stdout
    assert done.stderr == ""


def test_where_nothing_is_installed_to_send_with_it_says_what_to_install() -> None:
    program = """
import sys
for name in ("requests", "opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto", "grpc"):
    sys.modules[name] = None
from openhands_otel._internal.cli import main
sys.exit(main(["doctor"]))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert result.stderr == ""
    assert "pip install 'openhands-otel[otlp]'" in result.stdout
    assert result.stdout.startswith("ok ")
