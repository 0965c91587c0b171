"""Containers for the tests of this folder, and what they are given."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stack.prometheus_api import Prometheus

from forked import Prepared, with_openhands

from . import engine, images


@pytest.fixture(scope="session", autouse=True)
def podman() -> Iterator[engine.Podman]:
    """Before anything that listens: from here on this process is in a network of its own."""
    if reason := engine.missing():
        pytest.skip(f"no containers here: {reason}")
    try:
        network = engine.own_machine()
    except OSError as error:
        pytest.skip(f"no containers here: {error}")
    with tempfile.TemporaryDirectory(prefix="openhands-otel-podman-") as folder:
        podman = engine.Podman(Path(folder) / "podman", network)
        try:
            images.busybox(podman, Path(folder) / "busybox")
            tried = podman.run("podman", "run", "--rm", images.BUSYBOX, "true")
            if tried.returncode:
                pytest.skip(f"no containers here: {tried.stderr.strip()}")
            yield podman
        finally:
            podman.end()


Build = Callable[..., None]


@pytest.fixture(scope="session")
def build(podman: engine.Podman, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """``build("collector", ...)`` makes stand-in images that are not there yet."""
    made: set[str] = set()

    def build(*programs: str) -> None:
        for program in set(programs) - made:
            images.build(podman, tmp_path_factory.mktemp(program), program)
        made.update(programs)

    return build


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    found = Prometheus("http://127.0.0.1:9090")
    yield found
    found.close()


@pytest.fixture(scope="session")
def prepared(podman: engine.Podman) -> Iterator[Prepared]:
    """Starts processes that have OpenHands imported already."""
    prepared = with_openhands()
    try:
        yield prepared
    finally:
        prepared.stop()
