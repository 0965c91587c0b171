"""Children say when they are ready, are quoted when they fail, and never outlive the one who started them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from openhands_otel._internal.demo.children import Child, ChildFailed

READY = 'import json, os, sys; print(json.dumps({"pid": os.getpid()}), flush=True);'


def child(directory: Path, code: str) -> Child:
    return Child("child", [sys.executable, "-c", code], os.environ, directory)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_child_is_stopped_when_its_block_ends_however_it_ends(tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupted() -> None:
        with child(tmp_path, READY + "import time; time.sleep(60)") as running:
            pids.append(running.ready(20)["pid"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [is_alive(pid) for pid in pids] == [False]


def test_a_child_that_will_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openhands_otel._internal.demo.children._STOP_TIMEOUT_S", 0.2)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + READY + "time.sleep(60)"

    with child(tmp_path, deaf) as running:
        pid = running.ready(20)["pid"]

    assert not is_alive(pid)


def test_a_child_that_dies_before_it_is_ready_is_quoted(tmp_path: Path) -> None:
    code = "import sys; print('port in use', file=sys.stderr); sys.exit(3)"

    with (
        child(tmp_path, code) as running,
        pytest.raises(ChildFailed, match="child ended with exit code 3") as failure,
    ):
        running.ready(20)

    assert failure.value.log == ["port in use"]


def test_a_child_that_never_becomes_ready_is_given_up(tmp_path: Path) -> None:
    with (
        child(tmp_path, "import time; time.sleep(60)") as running,
        pytest.raises(ChildFailed, match="was not ready after 0 s"),
    ):
        running.ready(0.2)
