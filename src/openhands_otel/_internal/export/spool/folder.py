"""The folder of spools: files of 0600 in a folder of 0700, each replaced as a whole and locked while it is in use.

The lock is on the file itself, taken before it gets its name, so whoever finds a file unlocked finds one whose owner
has gone. A lock on a file that has been replaced meanwhile is worth nothing, and is told by its inode.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from openhands_otel._internal.export.spool.file import (
    ACKNOWLEDGED,
    HEADER_LIMIT,
    MARK,
    NotASpool,
    Spool,
    decode,
    encode,
)
from openhands_otel._internal.export.spool.thinning import counters_only
from openhands_otel._internal.host.state_folder import make_private_folder, state_folder
from openhands_otel._internal.log import logger
from openhands_otel._internal.money import dollars

try:
    import fcntl
except ImportError:
    # Windows, where there are no such locks.
    fcntl = None


SPOOL_SUFFIX: Final = ".spool"
SPOOL_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of all files together."""
_NEW: Final = ".new"
_LEFT_BEHIND_S: Final = 60.0
"""Age of a file without a name from which on its writer has died over it."""


class Unusable(Exception):
    """No spool can be kept here; the message says what is wrong with what."""


class Busy(Exception):
    """Somebody else is at the file: the process that it is of, or another that sends it."""


@dataclass(frozen=True, slots=True)
class SpoolEntry:
    """One file. ``spool`` is None where it is damaged or none, which ``problem`` says."""

    path: Path
    spool: Spool | None
    problem: str
    living: bool
    size: int

    @property
    def id(self) -> str:
        """What people call it."""
        return self.path.name.removesuffix(SPOOL_SUFFIX)[:8]


def spool_folder() -> Path:
    """The folder, there or not; raises Unusable where there is no home."""
    try:
        return state_folder() / "spool"
    except RuntimeError:
        raise Unusable("there is no home directory to keep it in: set XDG_STATE_HOME") from None


def usable_folder() -> Path:
    """The folder, made where it is missing, and nobody else's; raises Unusable."""
    if fcntl is None:
        raise Unusable("this system has no file locks")
    folder = spool_folder()
    try:
        for each in (folder.parent, folder):
            make_private_folder(each)
            found = each.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise Unusable(f"{each} is not a folder of this user's own")
    except OSError as error:
        raise Unusable(
            f"{folder} cannot be written ({error.strerror}): set XDG_STATE_HOME to a folder that can"
        ) from None
    return folder


class LockedFile:
    """A file that this process alone may replace or remove, until ``release``."""

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> LockedFile:
        """Lock a file that is there; raises Busy, or OSError where it cannot be opened."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            _lock(descriptor)
            if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
                raise Busy
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    def write(self, spool: Spool) -> None:
        """Replace it, or make it; raises OSError, and then what was there is there still."""
        data = encode(spool)
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}{_NEW}")
        descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _lock(descriptor)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.rename(new, self.path)
        except BaseException as error:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(new)
            if isinstance(error, Busy):
                raise OSError(str(error)) from None
            raise
        self.release()
        self._descriptor = descriptor

    def read(self) -> Spool:
        """What stands in it; raises NotASpool or OSError."""
        return _read(self.path)

    def remove(self) -> None:
        """It is not needed any more."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        self.release()

    def release(self) -> None:
        """Leave it to others. In a forked child: to the parent, whose lock this does not touch."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def entries(folder: Path, whole: bool) -> list[SpoolEntry]:
    """All spools, the longest untouched first. What cannot be read is among them, with its problem.

    Unless they are to be ``whole``, what is to be sent is neither read nor checked.
    """
    found: list[tuple[float, SpoolEntry]] = []
    for path in _files(folder):
        with contextlib.suppress(OSError):
            about = path.lstat()
            found.append((about.st_mtime, _entry(path, about.st_size, whole)))
    return [entry for _, entry in sorted(found, key=lambda each: (each[0], each[1].path.name))]


def _entry(path: Path, size: int, whole: bool) -> SpoolEntry:
    try:
        spool, problem = _read(path, whole), ""
    except NotASpool as error:
        spool, problem = None, str(error)
    except OSError as error:
        spool, problem = None, f"it cannot be read ({error.strerror})"
    return SpoolEntry(path, spool, problem, _is_locked(path), size)


def _is_locked(path: Path) -> bool:
    try:
        LockedFile.take(path).release()
    except Busy:
        return True
    except OSError:
        return False
    return False


def _read(path: Path, whole: bool = True) -> Spool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
            raise NotASpool("it is not a file of this user's own")
        if about.st_size > SPOOL_LIMIT:
            raise NotASpool("it is larger than all of them may be together")
        return decode(file.read()) if whole else decode(file.readline(99) + file.readline(HEADER_LIMIT), whole=False)


def _lock(descriptor: int) -> None:
    if fcntl is None:
        raise Busy("no file locks")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise Busy("it is locked") from None


def _files(folder: Path) -> Iterator[Path]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        if name.endswith(SPOOL_SUFFIX):
            yield folder / name
        elif name.endswith(_NEW):
            _remove_if_left_behind(folder / name)


def _remove_if_left_behind(path: Path) -> None:
    with contextlib.suppress(OSError, Busy):
        if time.time() - path.lstat().st_mtime > _LEFT_BEHIND_S:
            LockedFile.take(path).remove()


def make_room(folder: Path, size: int, own: Path) -> int:
    """Thin what lies longest until ``size`` bytes more find room beside it; returns the bytes that there is room for.

    First quarter-hours go, then all that is no counter; if that is not enough, the oldest file goes, with a line.
    """
    sizes = {path: size for path in _files(folder) if path != own and (size := _size(path))}
    for thin in (_without_marks, _counters_only, None):
        for path in sorted(sizes, key=_touched):
            if sum(sizes.values()) + size <= SPOOL_LIMIT:
                return SPOOL_LIMIT - sum(sizes.values())
            sizes[path] = _thin(path, thin)
    return max(0, SPOOL_LIMIT - sum(sizes.values()))


def _size(path: Path) -> int:
    """Bytes; none of a file that others have sent meanwhile."""
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _touched(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def _thin(path: Path, thin: Callable[[Spool], Spool] | None) -> int:
    try:
        file = LockedFile.take(path)
    except (Busy, OSError):
        return _size(path)
    try:
        spool = file.read()
    except (NotASpool, OSError):
        spool = None
    try:
        if thin is None or spool is None:
            _say_dropped(path, spool)
            file.remove()
            return 0
        before = path.stat()
        file.write(thin(spool))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return path.stat().st_size
    except OSError:
        return _size(path)
    finally:
        file.release()


def _say_dropped(path: Path, spool: Spool | None) -> None:
    what = (
        "a damaged spool" if spool is None else f"the spool of {dollars(spool.owed.cost)} for {spool.destination.shown}"
    )
    logger.warning("%s is dropped: %s holds %d MB and there is no room", what, path.parent, SPOOL_LIMIT // 1024**2)


def _without_marks(spool: Spool) -> Spool:
    return spool.without(MARK)


def _counters_only(spool: Spool) -> Spool:
    return replace(spool, parts=[counters_only(part) for part in spool.without(MARK, ACKNOWLEDGED).parts])
