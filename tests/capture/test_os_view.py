"""``os.environ`` as OpenHands sees it: all that Python's own can, and nothing of ours.

The kind of fault: a stand-in that can only what its first user needed (``|`` was missing). Rule: each operation has the
result that it has on the original of a process without us, and what is written is written to the original.
"""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from openhands_otel._internal.launch.os_view import OsView

HIDDEN = "OS_VIEW_HIDDEN"


@pytest.fixture
def view(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv(HIDDEN, "secret")
    monkeypatch.setenv("OS_VIEW_KEPT", "kept")

    def clean(environment: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in environment.items() if name != HIDDEN}

    before = dict(os.environ)
    yield OsView(clean)
    for name in set(os.environ) - set(before):
        del os.environ[name]


READS: dict[str, Callable[[Any], object]] = {
    "|": lambda os: os.environ | {"A": "B"},
    "| from the right": lambda os: {"A": "B"} | os.environ,
    "copy": lambda os: os.environ.copy(),
    "copy.copy": lambda os: dict(copy.copy(os.environ)),
    "copy.deepcopy": lambda os: dict(copy.deepcopy(os.environ)),
    "dict": lambda os: dict(os.environ),
    "unpacked": lambda os: {**os.environ},
    "keys": lambda os: sorted(os.environ.keys()),
    "items": lambda os: sorted(os.environ.items()),
    "iteration": lambda os: sorted(os.environ),
    "len": lambda os: len(os.environ),
    "in": lambda os: (HIDDEN in os.environ, "OS_VIEW_KEPT" in os.environ),
    "get": lambda os: (os.environ.get(HIDDEN), os.environ.get("OS_VIEW_KEPT")),
    "getenv": lambda os: (os.getenv(HIDDEN, "default"), os.getenv("OS_VIEW_KEPT")),
    "getenvb": lambda os: (os.getenvb(HIDDEN.encode()), os.getenvb(b"OS_VIEW_KEPT")),
    "environb": lambda os: dict(os.environb),
    "encodekey": lambda os: (os.environ.encodekey("A"), os.environ.decodevalue(b"\xff")),
    "repr": lambda os: repr(os.environ)[:8],
    "type": lambda os: isinstance(os.environ, type(__import__("os").environ)),
    "==": lambda os: os.environ == dict(os.environ),
    "expand": lambda os: (os.sep, os.path.join("a", "b"), os.getpid()),
    "dir": lambda os: dir(os),
}


@pytest.mark.parametrize("name", READS)
def test_reading_gives_what_it_gives_without_us(view: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    seen = READS[name](view)
    monkeypatch.delenv(HIDDEN)

    assert seen == READS[name](os)


def assigned(os: Any) -> None:
    os.environ |= {"OS_VIEW_A": "1"}


WRITES: dict[str, Callable[[Any], object]] = {
    "item": lambda os: os.environ.__setitem__("OS_VIEW_A", "1"),
    "update": lambda os: os.environ.update(OS_VIEW_A="1"),
    "setdefault": lambda os: os.environ.setdefault("OS_VIEW_A", "1"),
    "|=": assigned,
    "environb": lambda os: os.environb.__setitem__(b"OS_VIEW_A", b"1"),
    "pop": lambda os: os.environ.pop("OS_VIEW_KEPT"),
    "pop of what is not there": lambda os: os.environ.pop("OS_VIEW_NOWHERE", "default"),
    "del": lambda os: os.environ.__delitem__("OS_VIEW_KEPT"),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_is_written_is_written_to_the_original(view: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real = os.environ
    expected = {key: value for key, value in os.environ.items() if key != HIDDEN}
    if name in ("pop", "del"):
        del expected["OS_VIEW_KEPT"]
    elif "not there" not in name:
        expected["OS_VIEW_A"] = "1"

    WRITES[name](view)

    assert os.environ is real
    assert dict(view.environ) == expected
    assert dict(os.environ) == {**expected, HIDDEN: "secret"}
    assert os.popen("echo $OS_VIEW_A").read().strip() == expected.get("OS_VIEW_A", "")


def test_mistakes_are_those_of_the_original(view: Any) -> None:
    for module in (view, os):
        with pytest.raises(KeyError, match="OS_VIEW_NOWHERE"):
            module.environ["OS_VIEW_NOWHERE"]
        with pytest.raises(KeyError, match="OS_VIEW_NOWHERE"):
            del module.environ["OS_VIEW_NOWHERE"]
        with pytest.raises(TypeError, match="str expected"):
            module.environ["A"] = 1
        with pytest.raises((AttributeError, pickle.PicklingError)):
            pickle.dumps(module.environ)


def test_a_test_that_puts_an_environment_of_its_own_there_gets_its_own_back(view: Any) -> None:
    real = os.environ
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view, "environ", {"A": "B", HIDDEN: "secret"})
        assert dict(view.environ) == {"A": "B"}
    assert os.environ is real
