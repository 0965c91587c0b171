"""Pages of other origins: those that are configured may read the API, and nothing else; no other may read anything."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from viewer_process import Viewer, running_viewer

CANVAS = "http://localhost:8000"
OTHERS = (
    "http://localhost:8001",
    "http://localhost",
    "https://localhost:8000",
    "http://localhost:8000.evil.example",
    "null",
)
TOKEN = "planted-token-4711"
READ = ("/api/v1/state", "/api/v1/spend?last=7d", "/api/v1/totals", "/api/v1/conversations/none/calls")
CLOSED = ("/", "/assets/page.js", "/healthz", "/metrics", "/nowhere")


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with running_viewer("--origins", f"{CANVAS}, https://canvas.example", token=TOKEN) as viewer:
        yield viewer


def asked(origin: str, method: str = "GET") -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": "authorization",
        "authorization": "",
    }


def allowed(headers: object) -> set[str]:
    return {name for name in dict(headers) if name.startswith("access-control-")}  # type: ignore[call-overload]


@pytest.mark.parametrize("origin", [CANVAS, "https://canvas.example"])
@pytest.mark.parametrize("path", READ)
def test_a_configured_origin_reads_the_api_with_the_token(viewer: Viewer, origin: str, path: str) -> None:
    question = viewer.http.options(path, headers=asked(origin))
    assert question.status_code == 204
    assert question.headers["access-control-allow-origin"] == origin
    assert question.headers["access-control-allow-methods"] == "GET"
    assert "authorization" in question.headers["access-control-allow-headers"]
    answer = viewer.http.get(path, headers={"origin": origin})
    assert answer.headers["access-control-allow-origin"] == origin
    assert "origin" in answer.headers["vary"].lower()
    assert "access-control-allow-credentials" not in answer.headers


def test_a_configured_origin_is_asked_for_the_token_like_anybody_and_may_read_that(viewer: Viewer) -> None:
    refused = viewer.http.get("/api/v1/state", headers={"origin": CANVAS, "authorization": ""})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == CANVAS


@pytest.mark.parametrize("origin", OTHERS)
def test_no_other_origin_may_read_anything(viewer: Viewer, origin: str) -> None:
    for path in (*READ, *CLOSED):
        answer = viewer.http.get(path, headers={"origin": origin})
        question = viewer.http.options(path, headers=asked(origin))
        assert not allowed(answer.headers) | allowed(question.headers), path
        assert "origin" in answer.headers["vary"].lower()


def test_nothing_but_reading_the_api_is_allowed(viewer: Viewer) -> None:
    for path in CLOSED:
        assert not allowed(viewer.http.get(path, headers={"origin": CANVAS}).headers), path
    for path in ("/v1/metrics", "/v1/traces", "/api/v1/import", "/api/v1/login"):
        assert not allowed(viewer.http.options(path, headers=asked(CANVAS, "POST")).headers), path
        assert not allowed(viewer.http.post(path, content=b"", headers={"origin": CANVAS}).headers), path


def test_the_pages_own_policy_stays_as_it_is_without(viewer: Viewer) -> None:
    names = ("content-security-policy", "x-frame-options", "cross-origin-resource-policy", "cross-origin-opener-policy")
    with running_viewer() as usual:
        for path in ("/", "/assets/page.js", "/api/v1/totals"):
            with_origins = viewer.http.get(path, headers={"origin": CANVAS}).headers
            without = usual.http.get(path, headers={"origin": CANVAS}).headers
            assert [with_origins[name] for name in names] == [without[name] for name in names]
            assert not allowed(without)
            assert "origin" not in without.get("vary", "").lower()


@pytest.mark.parametrize(
    "given",
    [
        "*",
        "http://*.example",
        "http://localhost:8000/",
        "http://localhost:8000/canvas",
        "localhost:8000",
        "http://LOCALHOST:8000",
        "http://localhost:80",
        "http://me@localhost",
        "http://localhost:99999",
        "http://localhost:8000 http://localhost:8001",
        "null",
        "file:///tmp",
    ],
)
def test_what_is_no_origin_is_refused_in_one_line(given: str) -> None:
    command = [sys.executable, "-m", "openhands_otel", "view", "--port=0", "--grpc-port=0", "--database=:memory:"]
    done = subprocess.run([*command, "--origins", given], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"OPENHANDS_OTEL_VIEWER_ORIGINS: '{given}' is no origin of one page" in done.stderr
