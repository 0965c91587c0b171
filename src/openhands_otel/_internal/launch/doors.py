"""The ways in which a Python process starts another one, each with a clean environment where it is the agent's.

``clean`` gives an environment as it would be without us. All of Python's own ways end in one of these functions:
``subprocess``, asyncio, ``os.popen`` and libtmux in ``Popen``, multiprocessing and joblib in ``fork_exec``,
``os.spawn*``, ``pty`` and pexpect in ``os.execv*``. uvloop starts processes by itself. Not reached: ``system`` and
``exec`` of C libraries.
"""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Final

from openhands_otel._internal.launch.agent_side import Replace, bound, is_for_agent

Clean = Callable[[Mapping[str, str]], dict[str, str]]

_POPEN_ENV: Final = 10
"""Where ``env`` stands among Popen's positional arguments, ``self`` apart."""
_FORK_EXEC_ENV: Final = 5

before_exec: Final[list[Callable[[], object]]] = []
"""Called before the application has this process become another program; they raise nothing."""


def close(replace: Replace, clean: Clean) -> None:
    """Have what is started for the agent from now on started with a clean environment."""
    cleaned = functools.partial(_cleaned, clean)
    replace(subprocess.Popen, "__init__", lambda original: _popen(original, cleaned))
    replace(os, "system", lambda original: _system(original, cleaned))
    for name in ("posix_spawn", "posix_spawnp"):
        replace(os, name, lambda original: _posix_spawn(original, cleaned))
    replace(os, "execve", lambda original: _execve(original, cleaned))
    # After it, since it goes on there.
    replace(os, "execv", lambda original: _execv(original, os.execve, cleaned))
    try:
        import _posixsubprocess
    except ImportError:
        return
    replace(_posixsubprocess, "fork_exec", lambda original: _fork_exec(original, cleaned))


def close_uvloop(replace: Replace, clean: Clean, module: ModuleType) -> None:
    """uvloop gives the environment of the process to libuv, unless it is told another one."""
    cleaned = functools.partial(_cleaned, clean)
    for name in ("subprocess_exec", "subprocess_shell"):
        replace(module.Loop, name, lambda original: _with_keyword(original, cleaned))


Cleaned = Callable[[Any], dict[str, str] | None]


def _cleaned(clean: Clean, given: Any) -> dict[str, str] | None:
    """What to start with instead of the environment ``given`` (None: this process's); None where it is right so."""
    try:
        if not is_for_agent():
            return None
        environment = _as_text(os.environ if given is None else given)
        result = clean(environment)
        return None if result == environment else result
    except Exception:
        # An env that the original will refuse, with its own words.
        return None


def _as_text(environment: Mapping[Any, Any]) -> dict[str, str]:
    """All of these functions take bytes as well, and mix them."""
    return {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()}


def _popen(original: Callable[..., None], cleaned: Cleaned) -> Callable[..., None]:
    @functools.wraps(original)
    def start(popen: Any, *args: Any, **kwargs: Any) -> None:
        run = bound(original, popen)
        clean = cleaned(args[_POPEN_ENV] if len(args) > _POPEN_ENV else kwargs.get("env"))
        if clean is None:
            run(*args, **kwargs)
        elif len(args) > _POPEN_ENV:
            run(*args[:_POPEN_ENV], clean, *args[_POPEN_ENV + 1 :], **kwargs)
        else:
            run(*args, **{**kwargs, "env": clean})

    return start


def _fork_exec(original: Callable[..., int], cleaned: Cleaned) -> Callable[..., int]:
    @functools.wraps(original)
    def fork_exec(*args: Any) -> int:
        clean = cleaned(_as_mapping(args[_FORK_EXEC_ENV]))
        if clean is None:
            return original(*args)
        pairs = [os.fsencode(f"{name}={value}") for name, value in clean.items()]
        return original(*args[:_FORK_EXEC_ENV], pairs, *args[_FORK_EXEC_ENV + 1 :])

    return fork_exec


def _as_mapping(pairs: Sequence[bytes] | None) -> dict[str, str] | None:
    if pairs is None:
        return None
    return dict(os.fsdecode(pair).split("=", 1) for pair in pairs)


def _posix_spawn(original: Callable[..., int], cleaned: Cleaned) -> Callable[..., int]:
    @functools.wraps(original)
    def posix_spawn(path: Any, argv: Any, env: Any, /, *args: Any, **kwargs: Any) -> int:
        clean = cleaned(env)
        return original(path, argv, env if clean is None else clean, *args, **kwargs)

    return posix_spawn


def _execve(original: Callable[..., Any], cleaned: Cleaned) -> Callable[..., Any]:
    @functools.wraps(original)
    def execve(path: Any, argv: Any, env: Any) -> Any:
        _leave()
        clean = cleaned(env)
        return original(path, argv, env if clean is None else clean)

    return execve


def _execv(original: Callable[..., Any], execve: Callable[..., Any], cleaned: Cleaned) -> Callable[..., Any]:
    @functools.wraps(original)
    def execv(path: Any, argv: Any, /) -> Any:
        _leave()
        clean = cleaned(None)
        return original(path, argv) if clean is None else execve(path, argv, clean)

    return execv


def _leave() -> None:
    # What runs for the agent here is a child on its way to a tool.
    if before_exec and not is_for_agent():
        for prepare in tuple(before_exec):
            prepare()


def _system(original: Callable[..., int], cleaned: Cleaned) -> Callable[..., int]:
    @functools.wraps(original)
    def system(command: Any) -> int:
        clean = cleaned(None) if os.name == "posix" else None
        if clean is None:
            return original(command)
        # It runs a shell with the environment of the process, which others use at this moment: so the shell puts it
        # right.
        return original(_shell_words(clean).encode("utf-8", "surrogateescape") + os.fsencode(command))

    return system


def _shell_words(clean: Mapping[str, str]) -> str:
    words = [f"unset {name}; " for name in os.environ if name not in clean and name.isidentifier()]
    changed = {name: value for name, value in clean.items() if os.environ.get(name) != value}
    return "".join(words + [f"export {name}={shlex.quote(value)}; " for name, value in changed.items()])


def _with_keyword(original: Callable[..., Any], cleaned: Cleaned) -> Callable[..., Any]:
    @functools.wraps(original)
    def subprocess_start(self: Any, *args: Any, **kwargs: Any) -> Any:
        clean = cleaned(kwargs.get("env"))
        return bound(original, self)(*args, **(kwargs if clean is None else {**kwargs, "env": clean}))

    return subprocess_start
