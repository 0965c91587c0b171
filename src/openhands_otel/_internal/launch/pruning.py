"""Takes bundles out of a cache that nobody uses any more.

One rule: a bundle goes when no ``run`` has begun with it for 30 days, and no process on this machine names it in its
environment or command line as it was started with, which is how a process comes to a bundle. Where the system does not
tell what processes were started with (``/proc``), all stay. What another user's processes have in their environment it
tells nobody: a bundle that only these use, begun with by no ``run`` for 30 days, goes.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

KEPT_S: Final = 30 * 86_400
_PROC: Final = Path("/proc")


def mark(file: Path) -> None:
    """Note that a ``run`` begins with the bundle that ``file`` is in; where that cannot be noted, it is not."""
    with suppress(OSError):
        os.utime(file)


def prune(cache: Path, pattern: str, marked: str) -> None:
    """Remove what ``pattern`` finds in ``cache`` and nobody uses; ``marked`` is the file in each that tells of its use.

    What was begun and not finished, under a name with a dot, is treated the same. Never raises: what cannot be removed
    stays.
    """
    with suppress(OSError):
        old = [each for found in (pattern, f".{pattern}") for each in cache.glob(found) if _is_old(each, marked)]
        started = list(_started_with()) if old else []
        if not started:
            return
        for folder in old:
            name = os.fsencode(folder.name)
            if not any(name in words for words in started):
                _remove(folder, marked)


def _is_old(folder: Path, marked: str) -> bool:
    file = folder / marked
    with suppress(OSError):
        return time.time() - (file if file.exists() else folder).stat().st_mtime > KEPT_S
    return False


def _started_with() -> Iterator[bytes]:
    """Environment and command line of each process that may be looked at."""
    for process in _PROC.glob("[0-9]*"):
        for name in ("environ", "cmdline"):
            with suppress(OSError):
                yield (process / name).read_bytes()


def _remove(folder: Path, marked: str) -> None:
    """Out of the way first: a ``run`` that begins meanwhile makes a new one, or has marked this one, and it stays."""
    away = folder.with_name(f".{folder.name.lstrip('.')}-away")
    with suppress(OSError):
        folder.rename(away)
        if _is_old(away, marked):
            shutil.rmtree(away, ignore_errors=True)
        else:
            away.rename(folder)
