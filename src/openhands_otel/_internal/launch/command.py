"""Reads a command as a shell and the kernel would: which file it names, and whether that is a Python and which program.

Only what is understood for certain counts as Python. The rest (an interactive Python, an option that is not known
here, a shell script) is said to be no Python, and ``run`` takes its other way.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ProgramKind = Literal["script", "module", "code", "stdin"]

_PYTHON = re.compile(r"(python|pypy)(3(\.\d+)?)?t?(\.exe)?", re.IGNORECASE)
_PLAIN_FLAGS = frozenset("bBdEiIOPqsSuvR")
_FLAGS_WITH_VALUE = frozenset("WX")
_LAST_FLAGS: dict[str, ProgramKind] = {"c": "code", "m": "module"}
_NO_SITECUSTOMIZE = frozenset("IES")
_SHEBANG_LIMIT = 1024
_FROZEN_TAIL = 64 * 1024
_PYINSTALLER = b"MEI\x0c\x0b\x0a\x0b\x0e"
"""What PyInstaller's programs have near their end."""


@dataclass(frozen=True, slots=True)
class PythonProgram:
    """``python [options] program arguments``, with the program's kind."""

    interpreter: str
    words: tuple[str, ...]
    """The command as its process gets it; the first one is how the command names the interpreter."""
    options: tuple[str, ...]
    kind: ProgramKind
    program: str
    arguments: tuple[str, ...]

    @property
    def passes_sitecustomize(self) -> bool:
        """Whether its options keep this Python from what stands in PYTHONPATH."""
        options = iter(self.options)
        for option in options:
            if not _NO_SITECUSTOMIZE.isdisjoint(option):
                return True
            if option[-1] in _FLAGS_WITH_VALUE:
                next(options)
        return False


def with_bootstrap(python: PythonProgram, launch: Path | None = None) -> list[str]:
    """The command line that does the same, with ``bootstrap.py`` of the folder ``launch`` in front of the program."""
    word, *words = python.words
    bootstrap = str((launch or Path(__file__).parent) / "bootstrap.py")
    return [word, *python.options, bootstrap, python.kind, python.program, str(len(python.arguments)), *words]


def find(word: str) -> str | None:
    """The file that a shell would run for ``word``."""
    return shutil.which(word)


def is_frozen(file: str) -> bool:
    """Whether it is a Python program that PyInstaller has made one file of: it looks at no PYTHONPATH."""
    try:
        with Path(file).open("rb") as content:
            content.seek(max(0, content.seek(0, 2) - _FROZEN_TAIL))
            return _PYINSTALLER in content.read()
    except OSError:
        return False


def read_python(file: str, words: Sequence[str]) -> PythonProgram | None:
    """What the command ``words``, whose first word is ``file``, makes Python do; None if it is not Python's."""
    shebang = _shebang(file)
    if shebang is None:
        return _read(file, words[0], words[1:]) if _is_python(file) else None
    interpreter, option = shebang
    words = (file, *words[1:])
    if Path(interpreter).name == "env":
        named = option.removeprefix("-S ").split()
        found = shutil.which(named[0]) if named and "=" not in named[0] else None
        if found is None or not _is_python(found) or _shebang(found):
            return None
        return _read(found, named[0], (*named[1:], *words))
    if not _is_python(interpreter) or _shebang(interpreter):
        return None
    return _read(interpreter, interpreter, (option, *words) if option else words)


def _is_python(file: str) -> bool:
    return _PYTHON.fullmatch(Path(file).name) is not None


def _shebang(file: str) -> tuple[str, str] | None:
    """(interpreter, its one argument or nothing), as the kernel splits the line."""
    try:
        with Path(file).open("rb") as content:
            line = content.readline(_SHEBANG_LIMIT)
    except OSError:
        return None
    if not line.startswith(b"#!"):
        return None
    interpreter, _, option = line[2:].decode(errors="replace").strip().partition(" ")
    return interpreter, option.strip()


def _read(interpreter: str, word: str, words: Sequence[str]) -> PythonProgram | None:
    command = (word, *words)
    options: list[str] = []
    rest = list(words)
    while rest:
        argument = rest.pop(0)
        if argument == "-" or not argument.startswith("-"):
            kind = "stdin" if argument == "-" else "script"
            return PythonProgram(interpreter, command, tuple(options), kind, argument, tuple(rest))
        flags = argument[1:]
        position = next((n for n, flag in enumerate(flags) if flag not in _PLAIN_FLAGS), None)
        if position is None:
            options.append(argument)
            continue
        flag, value = flags[position], flags[position + 1 :]
        if not value:
            if not rest:
                return None
            value = rest.pop(0)
        if flag in _FLAGS_WITH_VALUE:
            options += [f"-{flags[: position + 1]}", value]
        elif flag in _LAST_FLAGS:
            options += [f"-{flags[:position]}"] if position else []
            return PythonProgram(interpreter, command, tuple(options), _LAST_FLAGS[flag], value, tuple(rest))
        else:
            return None
    return None if sys.stdin.isatty() else PythonProgram(interpreter, command, tuple(options), "stdin", "", ())
