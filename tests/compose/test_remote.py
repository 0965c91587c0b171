"""The profile ``remote``: TLS and the token, and what it refuses to start without."""

from __future__ import annotations

import os
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import certificates
import httpx
import pytest
from stack.otlp_http import post, span, traces
from stack.prometheus_api import wait

from .conftest import Build
from .engine import Podman
from .project import Project

SERVICE = "collector-remote"
SENT = traces("sender", span("x"))


class Remote(Project):
    otlp_url = "https://127.0.0.1:4328"


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> certificates.Identity:
    return certificates.make(tmp_path_factory.mktemp("identity") / "made")


@pytest.fixture
def tls(identity: certificates.Identity, tmp_path: Path) -> Path:
    """What a person puts into ``tls/``."""
    folder = tmp_path / "tls"
    folder.mkdir()
    shutil.copy(identity.certificate, folder / "tls.crt")
    shutil.copy(identity.key, folder / "tls.key")
    return folder


@pytest.fixture
def remote(podman: Podman, build: Build, tmp_path: Path) -> Iterator[Remote]:
    """Not started yet; without what it depends on, which is not asked."""
    build("collector", "prometheus", "jaeger")
    yield Remote(podman, "docker-compose.yml", tmp_path)
    podman.end()


def start(remote: Remote, tls: Path) -> None:
    done = remote.compose("--profile", "remote", "up", "--detach", SERVICE, TLS_DIRECTORY=str(tls))
    assert done.returncode == 0, done.stderr


def test_with_certificate_and_token_it_takes_what_comes_over_tls(
    remote: Remote, tls: Path, identity: certificates.Identity
) -> None:
    start(remote, tls)
    trust = ssl.create_default_context(cafile=str(identity.authority))
    assert wait(lambda: post(remote, SENT, trust=trust).status_code, lambda code: code == 200) == 200
    assert post(remote, SENT, token="wrong", trust=trust).status_code == 401
    assert httpx.post("http://127.0.0.1:4328/v1/traces", content=b"").status_code == 400
    # This one is for other machines, so here it answers at any address.
    gateway = remote.podman("network", "inspect", "openhands-otel", "--format", "{{(index .Subnets 0).Gateway}}")
    with pytest.raises(httpx.ConnectError, match="certificate"):
        httpx.post(f"https://{gateway}:4328/v1/traces", verify=trust)


def test_without_the_folder_it_does_not_start(remote: Remote, tmp_path: Path) -> None:
    folder = tmp_path / "nothing"
    done = remote.compose("--profile", "remote", "up", "--detach", SERVICE, TLS_DIRECTORY=str(folder))
    assert "bind source path does not exist" in done.stderr
    assert not folder.exists()
    assert SERVICE not in remote.podman("ps", "--format", "{{.Names}}")


@pytest.mark.parametrize("missing", ["tls.crt", "tls.key"])
def test_without_one_of_the_files_it_ends_and_says_so(remote: Remote, tls: Path, missing: str) -> None:
    (tls / missing).unlink()
    start(remote, tls)
    assert says(remote, "failed to load TLS cert and key")


def test_a_key_that_its_root_may_not_read_is_no_key(remote: Remote, tls: Path) -> None:
    """Without its privileges root reads what is its own, or everybody's (docs/operations.md)."""
    os.chown(tls / "tls.key", 1000, 1000)
    (tls / "tls.key").chmod(0o600)
    start(remote, tls)
    assert says(remote, "tls.key: permission denied")


@pytest.mark.parametrize("settings", ["", "OTLP_TOKEN=\n"])
def test_without_a_token_it_is_not_even_tried(remote: Remote, tls: Path, settings: str) -> None:
    remote.settings.write_text(f"GRAFANA_PASSWORD=x\n{settings}")
    done = remote.compose("--profile", "remote", "up", "--detach", SERVICE, TLS_DIRECTORY=str(tls))
    assert done.returncode != 0
    assert "there is no token, make one with 'make compose-up'" in done.stderr
    assert remote.podman("ps", "--all", "--quiet") == ""


def says(remote: Remote, what: str) -> bool:
    return wait(lambda: what in remote.podman.logs(remote.container(SERVICE)), bool)
