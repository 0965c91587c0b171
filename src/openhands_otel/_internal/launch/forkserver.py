"""Children of multiprocessing's fork server, which is started once and inherits from whoever needed it first.

So the agent's may come from a server of the application, and the other way round. A child gets what is theirs with its
preparation data: an object that, unpickled there, puts its environment right before anything of the program runs.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from openhands_otel._internal.launch import footprint
from openhands_otel._internal.launch.agent_side import is_for_agent
from openhands_otel._internal.launch.footprint import is_auto_instrumentation

KEY: Final = "openhands_otel"
"""multiprocessing looks for the keys that it knows."""
_CALLER: Final = "multiprocessing.popen_forkserver"

_WITHDRAW: Final = """
try:
    from openhands_otel._internal.launch.footprint import withdraw
except ImportError:
    pass
else:
    withdraw(credentials=True)
"""
_JOIN: Final = """
try:
    from openhands_otel._internal.launch.footprint import join
except ImportError:
    pass
else:
    join({environment!r})
"""


class _Instruction:
    def __init__(self, program: str) -> None:
        self._program = program

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (self._program, {})


def preparing(original: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Wraps ``multiprocessing.spawn.get_preparation_data``."""

    @functools.wraps(original)
    def get_preparation_data(*args: Any, **kwargs: Any) -> dict[str, Any]:
        data, agents = original(*args, **kwargs), is_for_agent()
        if agents:
            data["sys_path"] = [entry for entry in data["sys_path"] if not is_auto_instrumentation(entry)]
        if sys._getframe(1).f_globals.get("__name__") == _CALLER:  # pyright: ignore[reportPrivateUsage]
            data[KEY] = _Instruction(_WITHDRAW if agents else _JOIN.format(environment=_ours()))
        return data

    return get_preparation_data


def _ours() -> dict[str, str]:
    clean = footprint.leave().removed_from(os.environ, os.environ)
    return {name: value for name, value in os.environ.items() if clean.get(name) != value}
