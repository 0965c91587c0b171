"""Makes one ES module of several: Canvas runs an extension's entry file alone, and nothing that it would import.

For modules as this package writes them: one import a line, of names from a file beside it; what is exported is declared
in the line that exports it. Anything else is an error, so that nothing is left out in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_IMPORT: Final = re.compile(r'^import \{ ([^}]+) \} from "\./([a-z_]+)\.js";\n', re.MULTILINE)
_EXPORT: Final = re.compile(r"^export (?=(?:(?:async )?function\*? |const |let |class )(\w+))", re.MULTILINE)
_LEFT: Final = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)


class UnsupportedModule(ValueError):
    """A module is written in a way that cannot be taken apart; the message names it."""


def bundle(entry: str, source_of: Callable[[str], str]) -> str:
    """The module ``entry`` with all that it imports, each in a function of its own.

    Args:
        entry: Name of a module, without ``.js``; what it exports, the whole exports.
        source_of: The text of a module by its name.

    Raises UnsupportedModule.
    """
    done: list[str] = []
    written: dict[str, str] = {}

    def add(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise UnsupportedModule(f"{' imports '.join((*above, name))}: a circle")
        if name in done:
            return
        source = source_of(name)
        for match in _IMPORT.finditer(source):
            add(match[2], (*above, name))
            exported = {each[1] for each in _EXPORT.finditer(source_of(match[2]))}
            for wanted in match[1].split(","):
                if (asked := wanted.strip().partition(" as ")[0]) not in exported:
                    raise UnsupportedModule(f"{name}.js: {match[2]}.js has no {asked}")
        done.append(name)
        written[name] = _as_entry(source) if name == entry else _as_function(name, source)
        left = _LEFT.search(written[name] if name != entry else _EXPORT.sub("", written[name]))
        if left is not None:
            raise UnsupportedModule(f"{name}.js: cannot be bundled: {left[0]}")

    add(entry, ())
    return "\n".join(written[name] for name in done)


def _as_function(name: str, source: str) -> str:
    exported = ", ".join(match[1] for match in _EXPORT.finditer(source))
    return (
        f"const {_variable(name)} = (() => {{\n{_EXPORT.sub('', _as_entry(source))}return {{ {exported} }};\n}})();\n"
    )


def _as_entry(source: str) -> str:
    return _IMPORT.sub(lambda match: f"const {{ {match[1].replace(' as ', ': ')} }} = {_variable(match[2])};\n", source)


def _variable(name: str) -> str:
    return f"${name}"
