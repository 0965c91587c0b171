"""A configuration file of OpenTelemetry's as plain values: YAML or JSON, references to variables replaced.

The loader of ``opentelemetry-configuration`` does it where that is installed, and holds the file against the schema.
Without it YAML takes ``pyyaml``, which much of what is installed beside OpenHands brings along, and we do not.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final, cast

from openhands_otel._internal.host.network import chain_of

Tree = dict[str, Any]

_REFERENCE: Final = re.compile(r"\$\$|\$\{(?:env:)?([A-Za-z_]\w*)(?::-([^}]*))?\}|\$\{", re.ASCII)
_ALONE: Final = re.compile(r"\$\{[^}]*\}")
_QUOTED: Final = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|['\"].*")
_HARMLESS: Final = frozenset(("string", "object", "array", "number", "integer", "boolean", "null", *",:?-[]{}"))
"""What of that is no part of anybody's file: JSON's types, YAML's own signs."""
_DEVELOPMENT: Final = "_development"


class ConfigFileError(ValueError):
    """A file that cannot be used; the message says why, without its name."""


def read_tree(file: Path, environ: Mapping[str, str]) -> Tree:
    """What stands in ``file``, with variables out of ``environ``.

    Raises:
        ConfigFileError: It cannot be read, or is none.
    """
    tree = _by_opentelemetry(file)
    if tree is None:
        tree = _by_ourselves(file, environ)
    if not isinstance(tree, dict):
        raise ConfigFileError("it holds no mapping of names to values")
    found = cast(Tree, tree)
    version = found.get("file_format")
    if not (isinstance(version, str) and re.match(r"[01]\.\d", version)):
        shown = "no file_format" if version is None else f"file_format {str(version)[:20]!r}"
        raise ConfigFileError(f"it has {shown}; '1.0' is known here, in quotes")
    return found


def _by_opentelemetry(file: Path) -> object:
    """None where its loader is not installed."""
    try:
        loader: Any = importlib.import_module("opentelemetry.configuration")
    except ImportError:
        return None
    # It logs what it raises, with a traceback.
    name = "opentelemetry.configuration.file._loader"
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        return _plain(loader.load_config_file(file))
    except Exception as error:
        unread = next((each for each in chain_of(error) if _place_of(each) is not None), None)
        raise ConfigFileError(_without_values(str(error) if unread is None else _problem_of(unread))) from None
    finally:
        logger.disabled = before


def _plain(value: object) -> object:
    """The loader's objects as what they were made of."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list):
        return [_plain(each) for each in cast(list[object], value)]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in cast(dict[str, object], value).items()}
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    given = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    given |= getattr(value, "additional_properties", None) or {}
    return {_spelled(name): _plain(each) for name, each in given.items() if each is not None}


def _spelled(name: str) -> str:
    return f"{name.removesuffix(_DEVELOPMENT)}/development" if name.endswith(_DEVELOPMENT) else name


def _by_ourselves(file: Path, environ: Mapping[str, str]) -> object:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigFileError(error.strerror or type(error).__name__) from None
    except UnicodeDecodeError:
        raise ConfigFileError("it is no text in UTF-8") from None
    if file.suffix.lower() == ".json":
        try:
            return _replaced(json.loads(text), environ)
        except json.JSONDecodeError as error:
            raise ConfigFileError(f"it is no JSON: {error}") from None
    return _yaml(text, environ)


def _replaced(value: object, environ: Mapping[str, str]) -> object:
    if isinstance(value, str):
        return substituted(value, environ)
    if isinstance(value, list):
        return [_replaced(each, environ) for each in cast(list[object], value)]
    if isinstance(value, dict):
        return {name: _replaced(each, environ) for name, each in cast(dict[str, object], value).items()}
    return value


def _yaml(text: str, environ: Mapping[str, str]) -> object:
    try:
        import yaml
    except ImportError:
        raise ConfigFileError("to read YAML the package pyyaml is missing: pip install pyyaml") from None
    loader: Any = yaml.SafeLoader(text)
    seen: set[int] = set()

    def substitute(node: Any) -> None:
        # A node that an alias names stands there once.
        if node is None or id(node) in seen:
            return
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for _, value in node.value:
                substitute(value)
        elif isinstance(node, yaml.SequenceNode):
            for each in node.value:
                substitute(each)
        elif isinstance(node, yaml.ScalarNode) and node.tag.endswith(":str"):
            given = str(node.value)
            node.value = substituted(given, environ)
            if node.style is None and _ALONE.fullmatch(given):
                # A reference alone and without quotes is what its value looks like: a number, a truth, nothing.
                node.tag = str(loader.resolve(yaml.ScalarNode, node.value, (True, False)))

    try:
        root = loader.get_single_node()
        substitute(root)
        return None if root is None else loader.construct_document(root)
    except yaml.YAMLError as error:
        raise ConfigFileError(f"it is no YAML: {_without_values(_problem_of(error))}") from None
    finally:
        loader.dispose()


def _place_of(error: BaseException) -> Any:
    return getattr(error, "problem_mark", None)


def _problem_of(error: BaseException) -> str:
    """What PyYAML finds wrong, and where, without the piece of the file that it shows beside it."""
    place = _place_of(error)
    said = getattr(error, "problem", None) or type(error).__name__
    return said if place is None else f"line {place.line + 1}, column {place.column + 1}: {said}"


def _without_values(text: str) -> str:
    """What a library said of a file, in one line: what it quotes may be a header's value, unless it names a type."""
    line = " ".join(text.split())
    return _QUOTED.sub(lambda quoted: quoted[0] if quoted[0][1:-1] in _HARMLESS else "'...'", line)[:300]


def substituted(text: str, environ: Mapping[str, str]) -> str:
    """``text`` with ``${NAME}`` and ``${NAME:-default}`` replaced and ``$$`` for a dollar, as the specification has it.

    Raises:
        ConfigFileError: A reference is none.
    """

    def replace(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        if found[1] is None:
            raise ConfigFileError("a '${' in it is no reference such as ${NAME:-default}")
        return environ.get(found[1], found[2] or "")

    return _REFERENCE.sub(replace, text)
