"""What was read from some files, read again whenever they changed: so that a viewer needs no restart for it.

Files may be half written when they are looked at. What cannot be read then leaves what was good, one line says so, and
the next look tries again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from openhands_otel._internal.log import logger

_LOOK_EVERY_S: Final = 0.5


class WatchedFiles[T]:
    """What ``read`` makes of ``paths``. Where it raises ``failure`` at first, whoever makes this is told.

    ``what`` names them in the log.
    """

    def __init__(self, paths: tuple[Path, ...], read: Callable[[], T], failure: type[Exception], what: str) -> None:
        self._paths, self._read, self._failure, self._what = paths, read, failure, what
        self._seen = self._state()
        self._looked = time.monotonic()
        self._in_trouble = False
        self._held = read()

    @property
    def now(self) -> T:
        """As the files are, or were when they could be read last."""
        moment = time.monotonic()
        if moment - self._looked >= _LOOK_EVERY_S:
            self._looked = moment
            self._look()
        return self._held

    def _look(self) -> None:
        seen = self._state()
        if seen == self._seen and not self._in_trouble:
            return
        try:
            self._held = self._read()
        except self._failure as error:
            if not self._in_trouble:
                logger.error("%s; what was read before is still in use", error)
            self._in_trouble = True
            return
        if self._in_trouble:
            logger.warning("%s can be read again", self._what)
        self._seen, self._in_trouble = seen, False

    def _state(self) -> tuple[int, ...]:
        """Changes whenever a file is replaced, written or gone."""
        found: list[int] = []
        for path in self._paths:
            try:
                stat = path.stat()
                found += [stat.st_ino, stat.st_mtime_ns, stat.st_size]
            except OSError:
                found.append(0)
        return tuple(found)
