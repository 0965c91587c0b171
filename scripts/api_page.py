"""Makes docs/api.md of the docstrings of the public modules: ``make api``.

Docstrings are read, nothing is imported. A function says its arguments, what it returns and raises in sections
(``Args:``, ``Returns:``, ``Raises:``). A field says what it is by its ``description``, by the string behind it, or by
its module's list of fields that several classes have (``Fields:``). ``Since X.Y.Z.`` at the end of a module's docstring
is of all its names, of a name's own docstring of that one.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src"
PAGE = ROOT / "docs/api.md"
MODULES = ("", ".auto", ".events", ".stats", ".client", ".testing", ".settings", ".semconv")

INTRODUCTION = """\
# API

<!-- Made of the docstrings by scripts/api_page.py: make api -->

What can be imported, and nothing else is promised. What may change when: a public name changes or goes only after a
release that deprecates it; whatever has a name that begins with an underscore, at any time; names on the wire, as
[metrics.md](metrics.md) says.

Money is US dollars, `*_s` and `seconds` are seconds, `at` and `*_unix_nano` are unix nanoseconds, tokens are counts.
"""

_SECTION = re.compile(r"^(Args|Returns|Raises|Fields):$", re.MULTILINE)
_ITEM = re.compile(r"^(\w+): ", re.MULTILINE)
_QUESTION = re.compile(r"^Question\[(.+)\]$")
"""What a client's method asks: whoever calls it gets what is in the brackets."""
_SINCE = re.compile(r"\s*Since (\d+\.\d+\.\d+)\.\s*$")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function


@dataclass
class Text:
    """A docstring, taken apart."""

    body: str = ""
    since: str = ""
    sections: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, node: Documented) -> Text:
        doc = ast.get_docstring(node) or ""
        found = _SINCE.search(doc)
        body, *rest = _SECTION.split(_SINCE.sub("", doc))
        sections = {
            name: textwrap.dedent(text.strip("\n")).strip() for name, text in zip(rest[::2], rest[1::2], strict=True)
        }
        return cls(body.strip(), found.group(1) if found else "", sections)

    def items(self, section: str) -> dict[str, str]:
        """``name: what it is`` of a section, by name."""
        _, *rest = _ITEM.split(self.sections.get(section, ""))
        return {name: _line(text) for name, text in zip(rest[::2], rest[1::2], strict=True)}


class Module:
    """One public module, and the page's part about it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tree = ast.parse(_source(name).read_text())
        self.text = Text.of(self.tree)
        self.names = next(
            ast.literal_eval(node.value)
            for node in self.tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        )
        self.missing: list[str] = []
        """What ought to say what it is and does not."""

    def page(self) -> Iterator[str]:
        """Markdown."""
        yield f"## {self.name}"
        yield _markdown(self.text.body)
        yield f"Since {self._since(self.text)}."
        constants: list[tuple[str, str, str]] = []
        for name, node, doc in self._definitions():
            match node:
                case ast.ClassDef():
                    yield from self._class(node)
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    yield from self._function(node, "###")
                case _:
                    value = None if isinstance(node, ast.ImportFrom) else node.value
                    if isinstance(value, ast.Name):
                        # Internal, and so no word for a reader.
                        value = ast.Constant(getattr(importlib.import_module(self.name), name))
                    if not (isinstance(value, ast.Call) and ast.unparse(value.func) == "Metric"):
                        constants.append((f"`{name}`", _value(value), _line(doc)))
        if constants:
            yield _table(("constant", "value", "meaning"), constants)
        if any(isinstance(node, ast.ClassDef) and node.name == "Metric" for _, node, _ in self._definitions()):
            yield "The other constants are the metrics themselves (Metric), which [metrics.md](metrics.md) lists."

    def _definitions(self) -> Iterator[tuple[str, ast.stmt, str]]:
        """Public names in the order of the source; what is imported only to be public, from where it is."""
        for position, node in enumerate(self.tree.body):
            for name in _names(node):
                if name in self.names and name != "__version__":
                    yield name, node, _string_after(self.tree.body, position)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("openhands_otel"):
                home = ast.parse(_source(node.module or "").read_text())
                for alias in node.names:
                    if alias.name == "__version__":
                        yield alias.name, node, "Release of this package."
                    elif alias.name in self.names and f"{node.module}" not in PUBLIC:
                        yield from ((alias.name, each, "") for each in home.body if alias.name in _names(each))

    def _since(self, text: Text) -> str:
        since = text.since or self.text.since
        if not since:
            self.missing.append(f"{self.name}: since when")
        return since

    def _class(self, node: ast.ClassDef) -> Iterator[str]:
        text = Text.of(node)
        yield f"### {node.name}"
        yield self._prose(node.name, text)
        values = [
            (f"`{each.value.value}`", _line(_string_after(node.body, position)))
            for position, each in enumerate(node.body)
            if isinstance(each, ast.Assign) and isinstance(each.value, ast.Constant)
        ]
        if values:
            yield _table(("value", "meaning"), values)
        if fields := [*self._fields(node)]:
            yield _table(("field", "type", "default", "meaning"), fields)
        methods = [each for each in node.body if isinstance(each, Function)]
        for each in methods:
            if each.name == "__init__" and "Args" in text.sections:
                yield from self._callable(each, node.name, text)
        inherited = (each for base in self._bases(node) for each in base.body if isinstance(each, Function))
        for each in (*inherited, *methods):
            if not each.name.startswith("_"):
                yield from self._function(each, "####", node.name)

    def _bases(self, node: ast.ClassDef) -> Iterator[ast.ClassDef]:
        """Internal classes of the same module that a public one is made of."""
        named = {ast.unparse(base) for base in node.bases}
        for each in self.tree.body:
            if isinstance(each, ast.ClassDef) and each.name.startswith("_") and each.name in named:
                yield each

    def _fields(self, node: ast.ClassDef) -> Iterator[tuple[str, ...]]:
        shared = self.text.items("Fields")
        for position, each in enumerate(node.body):
            if not isinstance(each, ast.AnnAssign) or not isinstance(each.target, ast.Name):
                continue
            name = each.target.id
            if name.startswith("_") or name == "model_config":
                continue
            default, described = _default(each.value)
            meaning = _line(described or _string_after(node.body, position)) or shared.get(name, "")
            if name == "type":
                meaning = meaning or "Tells it from the other updates."
            if not meaning:
                self.missing.append(f"{self.name}.{node.name}.{name}")
            yield f"`{name}`", f"`{ast.unparse(each.annotation)}`", default, meaning

    def _function(self, node: Function, level: str, owner: str = "") -> Iterator[str]:
        text = Text.of(node)
        where = f"{owner}.{node.name}" if owner else node.name
        yield f"{level} {where}"
        if any(ast.unparse(each) == "property" for each in node.decorator_list):
            yield f"`{where}: {ast.unparse(node.returns) if node.returns else ''}`"
            yield self._prose(where, text)
        else:
            yield self._prose(where, text)
            yield from self._callable(node, where, text)

    def _callable(self, node: Function, where: str, text: Text) -> Iterator[str]:
        """Signature, arguments, what is returned and raised."""
        described = text.items("Args")
        if node.args.kwarg is not None and node.args.kwarg.arg not in described:
            node.args.kwarg = None
        yield f"```py\n{_signature(where, node)}\n```"
        arguments = [each for each in _arguments(node) if each.arg not in {"self", "cls"}]
        self.missing += [f"{self.name}.{where}({each.arg})" for each in arguments if each.arg not in described]
        if arguments:
            rows = [
                (
                    f"`{each.arg}`",
                    f"`{ast.unparse(each.annotation)}`" if each.annotation else "",
                    described.get(each.arg, ""),
                )
                for each in arguments
            ]
            yield _table(("argument", "type", "meaning"), rows)
        if "Returns" in text.sections:
            yield f"**Returns:** {_line(text.sections['Returns'])}"
        if raised := text.items("Raises"):
            yield _table(("raises", "when"), [(f"`{name}`", when) for name, when in raised.items()])

    def _prose(self, where: str, text: Text) -> str:
        if not text.body:
            self.missing.append(f"{self.name}.{where}")
        own = f"\n\nSince {text.since}." if text.since else ""
        return _markdown(text.body) + own


PUBLIC = {f"openhands_otel{module}" for module in MODULES if module}


def page() -> str:
    """The page as it should be. Raises SystemExit, which names them, where docstrings lack something."""
    modules = [Module(f"openhands_otel{name}") for name in MODULES]
    parts = [INTRODUCTION.rstrip()]
    for module in modules:
        parts += module.page()
    missing = [each for module in modules for each in module.missing]
    if missing:
        raise SystemExit("docstrings do not say: " + ", ".join(missing))
    return "\n\n".join(parts) + "\n"


def _source(module: str) -> Path:
    path = PACKAGE / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _names(node: ast.stmt) -> list[str]:
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
        case ast.Assign(targets=[ast.Name(id=name)]):
            return [name]
    return []


def _string_after(body: list[ast.stmt], position: int) -> str:
    match body[position + 1 : position + 2]:
        case [ast.Expr(value=ast.Constant(value=str() as text))]:
            return text
    return ""


def _default(value: ast.expr | None) -> tuple[str, str]:
    """What is assigned to a field, and its description."""
    if not (isinstance(value, ast.Call) and ast.unparse(value.func).lower() == "field"):
        return _value(value), ""
    given = {keyword.arg: keyword.value for keyword in value.keywords}
    described = given.get("description")
    default = given.get("default")
    shown = _value(default) if default is not None else "empty" if "default_factory" in given else ""
    return shown, ast.literal_eval(described) if described is not None else ""


def _value(value: ast.expr | None) -> str:
    shown = "" if value is None else f"`{ast.unparse(value)}`"
    return shown if len(shown) <= 70 else "..."


def _arguments(node: Function) -> list[ast.arg]:
    named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return named if node.args.kwarg is None else [*named, node.args.kwarg]


def _signature(name: str, node: Function) -> str:
    copied = ast.parse(ast.unparse(node)).body[0]
    assert isinstance(copied, Function)
    copied.args.args = [each for each in copied.args.args if each.arg not in {"self", "cls"}]
    arguments = [re.sub(r"(: .+?)=", r"\1 = ", each) for each in _split(ast.unparse(copied.args))]
    returned = "" if node.returns is None else _QUESTION.sub(r"\1", ast.unparse(node.returns))
    arrow = f" -> {returned}" if returned and returned != "None" else ""
    line = f"{name}({', '.join(arguments)}){arrow}"
    return line if len(line) <= 100 else f"{name}(\n    {',\n    '.join(arguments)},\n){arrow}"


def _split(arguments: str) -> list[str]:
    """At the commas that stand in no brackets."""
    depth, parts = 0, [""]
    for character in arguments:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [stripped for part in parts if (stripped := part.strip())]


def _line(text: str) -> str:
    """For a cell of a table."""
    return _code(" ".join(text.split())).replace("|", "\\|")


def _code(text: str) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", text, flags=re.DOTALL)


def _markdown(text: str) -> str:
    return _code(re.sub(r"::$", ":", text, flags=re.MULTILINE))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *(tuple(cell.replace(" | ", " \\| ") for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |").replace("|  |", "| |") for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} is made\n")
