"""What is public is named, typed, and needs nothing that is not."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openhands_otel import OpenHandsInstrumentor

HERE = Path(__file__).parent
ROOT = HERE.parent
PACKAGE = ROOT / "src/openhands_otel"
PUBLIC = sorted(
    "openhands_otel" if path.stem == "__init__" else f"openhands_otel.{path.stem}"
    for path in PACKAGE.glob("*.py")
    if path.stem not in {"__main__", "auto"}
)
"""Public modules; ``auto`` instruments the process that imports it."""


def public_objects() -> Iterator[tuple[str, Any]]:
    for name in PUBLIC:
        module = importlib.import_module(name)
        for each in module.__all__:
            yield f"{name}.{each}", getattr(module, each)


def test_there_is_one_public_module_for_each_purpose() -> None:
    names = ["client", "events", "semconv", "settings", "stats", "testing"]
    assert ["openhands_otel", *(f"openhands_otel.{name}" for name in names)] == PUBLIC


@pytest.mark.parametrize("path", [*PACKAGE.glob("[a-z]*.py")], ids=lambda path: path.stem)
def test_each_public_name_stands_in_all(path: Path) -> None:
    tree = ast.parse(path.read_text())
    named: set[str] = set()
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                named.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]):
                named.add(name)
    stated = {
        name
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        for name in ast.literal_eval(node.value)
    }
    assert stated == {name for name in named if not name.startswith("_")}


def test_no_internal_name_stands_in_docs_examples_or_deployments() -> None:
    """Benchmarks, tests and scripts of this repository may use internals: they change with them."""
    found = [
        str(path.relative_to(ROOT))
        for place in ("docs", "examples", "deploy", "README.md")
        for path in ([ROOT / place] if (ROOT / place).is_file() else (ROOT / place).rglob("*"))
        if path.suffix in {".md", ".py", ".toml", ".yaml", ".yml", ".json", ".sh", ".txt"} or path.name == "Dockerfile"
        if "openhands_otel._internal" in path.read_text() or "openhands_otel/_internal" in path.read_text()
    ]
    assert found == []


def test_no_public_signature_needs_a_type_that_is_not_public() -> None:
    """Whatever a user gives, gets or reads has a name that he may import."""
    public = {id(value) for _, value in public_objects()}
    internal = [
        f"{where}: {found.__module__}.{found.__qualname__}"
        for where, value in public_objects()
        for found in _classes_in(value)
        if "._internal" in found.__module__ and id(found) not in public
    ]
    assert internal == []


def _classes_in(value: Any) -> Iterator[type]:
    """Classes in the annotations of a function, or of what a class shows."""
    if inspect.isfunction(value):
        for hint in _hints(value).values():
            yield from _named_in(hint)
    elif inspect.isclass(value):
        if not issubclass(value, OpenHandsInstrumentor):
            for name, hint in _hints(value).items():
                yield from () if name.startswith("_") else _named_in(hint)
        own = [each for each in value.__mro__ if each.__module__ == value.__module__]
        for name, member in (pair for each in own for pair in vars(each).items()):
            function = member.fget if isinstance(member, property) else inspect.unwrap(member)
            if inspect.isfunction(function) and (not name.startswith("_") or name == "__init__"):
                yield from _classes_in(function)
    else:
        yield from _named_in(value)


def _hints(value: Any) -> dict[str, Any]:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    return typing.get_type_hints(value, localns={"MeterProvider": MeterProvider, "TracerProvider": TracerProvider})


def _named_in(hint: Any) -> Iterator[type]:
    arguments = typing.get_args(hint)
    for argument in arguments:
        yield from _named_in(argument)
        if isinstance(argument, list):
            yield from (each for inner in argument for each in _named_in(inner))
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
        yield hint


def test_uses_that_are_right_have_their_types_and_wrong_ones_are_errors() -> None:
    pyright = [sys.executable, "-m", "pyright", "-p", str(HERE / "typing")]
    checked = subprocess.run(pyright, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_a_keyword_that_is_none_is_refused_with_the_nearest_one() -> None:
    instrumentor = OpenHandsInstrumentor()
    with pytest.raises(TypeError) as refused:
        instrumentor.instrument(meter_providr=None)  # type: ignore[arg-type]
    assert "'meter_providr', did you mean 'meter_provider'?" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not instrumentor.is_instrumented_by_opentelemetry


def test_the_keywords_of_opentelemetrys_own_are_taken() -> None:
    instrumentor = OpenHandsInstrumentor()
    try:
        instrumentor.instrument(skip_dep_check=True, raise_exception_on_conflict=True)
        assert instrumentor.is_instrumented_by_opentelemetry
    finally:
        instrumentor.uninstrument()


def test_the_page_about_the_api_is_what_the_docstrings_say() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import api_page  # pyright: ignore[reportMissingImports]
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    assert (ROOT / "docs/api.md").read_text() == api_page.page(), "make api"
