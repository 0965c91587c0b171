"""Carries instrumentation into the processes that multiprocessing starts anew (spawn, forkserver).

They are Pythons with a ``-c`` program, which here gets a line in front. No variable is needed for it, so nothing is
there for the agent's tools to inherit. Forked children need nothing. POSIX only: on Windows such workers start plain.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final

from openhands_otel.sdk.import_hooks import when_imported

_WORKERS: Final = ("from multiprocessing.spawn import", "from multiprocessing.forkserver import")
_PREFIX: Final = """\
try:
    from openhands_otel.launch.start import start
except ImportError:
    pass
else:
    start()
    del start
"""


def follow() -> None:
    """From now on, children started by multiprocessing are instrumented as this process is."""
    when_imported("multiprocessing.util", _watch)


def _watch(util: ModuleType) -> None:
    spawn: Any = getattr(util, "spawnv_passfds", None)
    if spawn is None or hasattr(spawn, "__wrapped__"):
        return

    @functools.wraps(spawn)
    def spawnv_passfds(path: Any, args: Sequence[Any], passfds: Any) -> Any:
        return spawn(path, with_start(args), passfds)

    vars(util)["spawnv_passfds"] = spawnv_passfds


def with_start(args: Sequence[Any]) -> Sequence[Any]:
    """The same command line with a program that starts instrumentation first, if it is a worker's."""
    return [_PREFIX + word if isinstance(word, str) and word.startswith(_WORKERS) else word for word in args]
