"""Fault of the kind *check, then act*: hooks that are attached twice, or not at all, when two things happen at once.

Attaching is idempotent per attribute, whatever is imported, subscribed and ended at the same time, in other threads and
inside of each other; and nobody waits for an import, so no lock of ours can stand across those of Python.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from openhands_otel import OpenHandsInstrumentor
from openhands_otel._internal.demo.answers import call, say
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel._internal.patching.import_hooks import when_imported
from openhands_otel._internal.patching.patching import Patches
from otlp_receiver import http_receiver

PROGRAM = Path(__file__).parent / "programs" / "attach.py"
PATIENCE_S = 60


@pytest.fixture
def make_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], str]]:
    """Make a module of this name and source; it can be imported by the name that is returned."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def make(name: str, source: str) -> str:
        (tmp_path / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        made.append(name)
        return name

    yield make
    for name in made:
        sys.modules.pop(name, None)


def test_with_the_sdk_each_tool_call_and_each_cost_is_seen_once(llm_server: LLMServer) -> None:
    """Real processes: OpenHands is imported in one thread while others subscribe, end and are collected."""
    llm_server.script("main", lambda request: call("think", {"thought": "."}) if request.turn == 0 else say("done"))
    running = {
        scenario: subprocess.Popen(
            [sys.executable, PROGRAM, scenario, llm_server.base_url("main")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPENHANDS_SUPPRESS_BANNER": "1"},
        )
        for scenario in ("before", "within")
    }
    try:
        for scenario, process in running.items():
            out, errors = process.communicate(timeout=500)
            assert process.returncode == 0, errors
            assert "openhands_otel" not in errors, errors
            result = json.loads(out.splitlines()[-1])
            assert result == {
                "listeners": 2,
                "costs": ["CostAdded"] * 2,
                "tools": 2,
                "calls": 4,
                "left": [],
            }, scenario
    finally:
        for process in running.values():
            process.kill()


@pytest.mark.parametrize("number", range(20))
def test_each_interest_hears_of_each_load_once(make_module: Callable[[str, str], str], number: int) -> None:
    """Many threads ask for a module while one imports it: whoever asks when, it hears once, of the whole module."""
    name = make_module(f"raced_{number}", f"import time\ntime.sleep({number % 5 / 1000})\nwhole = True\n")
    heard: dict[int, list[bool]] = {index: [] for index in range(9)}

    def ask(index: int) -> None:
        barrier.wait(PATIENCE_S)
        if index == 0:
            importlib.import_module(name)
        when_imported(name, lambda module: heard[index].append(module.whole))

    barrier = threading.Barrier(len(heard))
    when_imported(name, lambda module: heard[8].append(module.whole)) if number % 2 else None
    with ThreadPoolExecutor(len(heard)) as pool:
        list(pool.map(ask, heard))
    expected = {index: [True] for index in heard}
    if number % 2:
        expected[8] = [True, True]
    assert heard == expected


def test_whoever_asks_within_an_import_hears_at_its_end(make_module: Callable[[str, str], str]) -> None:
    """Asked for in the module itself, before anybody was interested: not the half of it, and not twice."""
    name = make_module(
        "asking",
        "from openhands_otel._internal.patching.import_hooks import when_imported\n"
        "heard = []\n"
        "when_imported('asking', lambda module: heard.append(module.whole))\n"
        "assert not heard\n"
        "whole = True\n",
    )
    module = importlib.import_module(name)
    assert module.heard == [True]
    assert type(module.__spec__).__name__ == "ModuleSpec"
    when_imported(name, lambda module: module.heard.append("again"))
    assert module.heard == [True, "again"]


def test_an_import_that_fails_and_one_that_is_done_again(make_module: Callable[[str, str], str]) -> None:
    """A half module is nobody's; each whole one is told of, also by ``reload`` and after ``del sys.modules``."""
    heard: list[ModuleType] = []
    name = make_module("failing", "import os\nif os.environ.get('FAILING'): raise RuntimeError\n")
    os.environ["FAILING"] = "yes"
    try:
        forget = when_imported(name, heard.append)
        with pytest.raises(RuntimeError):
            importlib.import_module(name)
        assert heard == []
    finally:
        del os.environ["FAILING"]
    first = importlib.import_module(name)
    assert heard == [first]
    importlib.reload(first)
    assert heard == [first, first]
    del sys.modules[name]
    second = importlib.import_module(name)
    assert heard == [first, first, second]
    forget()
    importlib.reload(second)
    assert len(heard) == 3


def test_an_attribute_is_replaced_once_and_put_back(make_module: Callable[[str, str], str]) -> None:
    """Patched by many threads and undone by others: one layer while it lasts, the identical object afterwards."""

    class Owner:
        def method(self) -> int:
            return 1

    original = vars(Owner)["method"]
    for _ in range(200):
        calls: list[Any] = []
        patches = Patches()

        def patch(patches: Patches = patches, calls: list[Any] = calls) -> None:
            assert patches.after(Owner, "method", lambda args, kwargs: calls.append(args))

        threads = [threading.Thread(target=patch) for _ in range(3)]
        undoing = threading.Thread(target=patches.undo)
        for thread in (*threads[:2], undoing, threads[2]):
            thread.start()
        for thread in (*threads, undoing):
            thread.join()
        assert vars(Owner)["method"] is original
    patches = Patches()
    for _ in range(3):
        patches.after(Owner, "method", lambda args, kwargs: calls.append(args))
    calls.clear()
    assert Owner().method() == 1
    assert len(calls) == 1
    patches.undo()
    assert vars(Owner)["method"] is original


def test_what_is_undone_in_the_middle_of_replacing_is_put_back() -> None:
    """As a finalizer or a signal's handler may do it, in the same thread."""

    class Owner:
        def method(self) -> int:
            return 1

    original = vars(Owner)["method"]
    patches = Patches()

    def make(function: Callable[..., Any]) -> Callable[..., Any]:
        patches.undo()
        return lambda *args: function(*args)

    patches.replace(Owner, "method", make)
    assert vars(Owner)["method"] is original


def test_instrumented_by_many_threads_at_once_there_is_one_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """And ended and begun by others in between: what was spent while it stood is counted once."""
    from openhands.sdk.llm.utils.metrics import Metrics

    with http_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{receiver.url}/v1/metrics")
        instrumentor = OpenHandsInstrumentor()
        try:
            for _ in range(3):
                barrier = threading.Barrier(6)

                def begin(index: int, barrier: threading.Barrier = barrier) -> None:
                    barrier.wait(PATIENCE_S)
                    if index == 5:
                        OpenHandsInstrumentor().uninstrument()
                    OpenHandsInstrumentor().instrument()

                with ThreadPoolExecutor(6) as pool:
                    list(pool.map(begin, range(6)))
                Metrics().add_cost(0.25)
                assert instrumentor.is_instrumented_by_opentelemetry
                instrumentor.uninstrument()
            assert receiver.total("openhands.llm.cost") == 0.75
        finally:
            instrumentor.uninstrument()
