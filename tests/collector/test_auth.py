"""Who may come in: token, Host header, and what a browser is allowed to do with the page."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from viewer_process import PROTOBUF, Viewer, running_viewer

from openhands_otel._internal.collector.receive.auth import Token, is_loopback
from otlp_sender import Sender

PROTECTED = [
    "/api/v1/state",
    "/api/v1/conversations",
    "/api/v1/totals",
    "/api/v1/history",
    "/api/v1/events",
    "/metrics",
]


@pytest.fixture(scope="module")
def guarded() -> Iterator[Viewer]:
    with running_viewer(token="s3cret") as viewer:
        yield viewer


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer() as viewer:
        yield viewer


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer", "s3cret", "Basic s3cret", "Bearer s3cret2"])
def test_without_the_token_nothing_is_told_or_taken(guarded: Viewer, authorization: str | None) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    with httpx.Client(base_url=guarded.url, headers=headers, trust_env=False) as stranger:
        for path in PROTECTED:
            response = stranger.get(path)
            assert response.status_code == 401, path
            assert "token" in response.json()["message"]
        response = stranger.post("/v1/metrics", content=Sender("p").spend(1.0).body(), headers=PROTOBUF)
        assert response.status_code == 401
    assert guarded.state().totals.accumulated_cost == 0


def test_with_the_token_all_is_told_and_taken(guarded: Viewer) -> None:
    guarded.send(Sender("taken").converse("c", 1.0))
    for path in PROTECTED:
        if path != "/api/v1/events":
            assert guarded.http.get(path).status_code == 200, path


def test_the_page_itself_needs_no_token_and_holds_none(guarded: Viewer) -> None:
    with httpx.Client(base_url=guarded.url, trust_env=False) as stranger:
        for path in ("/", "/assets/page.js", "/assets/page.css", "/healthz"):
            response = stranger.get(path)
            assert response.status_code == 200
            assert "s3cret" not in response.text


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:4318", ""])
def test_a_name_bound_to_loopback_from_elsewhere_is_turned_away(viewer: Viewer, host: str) -> None:
    for path in ("/", *PROTECTED):
        assert viewer.http.get(path, headers={"host": host}).status_code == 421, path


@pytest.mark.parametrize("host", ["localhost", "localhost:4318", "127.0.0.1", "[::1]:4318", "LOCALHOST"])
def test_the_names_of_this_machine_are_let_in(viewer: Viewer, host: str) -> None:
    assert viewer.http.get("/api/v1/totals", headers={"host": host}).status_code == 200


def test_a_browser_may_load_nothing_from_elsewhere_nor_show_the_page_elsewhere(viewer: Viewer) -> None:
    for path in ("/", "/assets/page.js", "/api/v1/state", "/nothing"):
        headers = viewer.http.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_other_origins_may_not_read(viewer: Viewer) -> None:
    for method in ("GET", "OPTIONS"):
        response = viewer.http.request(method, "/api/v1/state", headers={"origin": "http://evil.example"})
        assert not [name for name in response.headers if name.startswith("access-control-")]


def test_the_schemes_name_may_be_written_in_any_case() -> None:
    token = Token("Word")
    assert token.permits("bearer Word")
    assert token.permits(b"BEARER Word")
    assert not token.permits("Bearer word")
    assert not token.permits("Bearer W\u00f6rd")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
    ],
)
def test_only_addresses_of_this_machine_are_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
