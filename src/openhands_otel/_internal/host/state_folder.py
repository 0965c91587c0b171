"""The folder of what outlives the processes of this package. It is this user's alone: 0700, every file in it 0600.

What earlier releases left open to others is corrected. Beside the history and the spool it has a token, which stands
for "the same user" where the kernel does not tell whose a connection is.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from openhands_otel._internal.host.neighbours import tells_owners
from openhands_otel._internal.host.network import is_this_machine
from openhands_otel._internal.host.token_file import TokenFileError, read_token

_OTHERS: Final = 0o077
_BESIDE: Final = ("", "-wal", "-shm", "-journal")
"""Files that belong to a database of SQLite."""


def state_folder() -> Path:
    """Where it is, what the XDG base directories call state; raises RuntimeError where there is no home."""
    state = os.environ.get("XDG_STATE_HOME", "")
    # One that depends on where a process stands is to be ignored.
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "openhands-otel"


def history_file() -> Path:
    """Where a viewer of this user keeps its history unless told otherwise; raises RuntimeError as well."""
    return state_folder() / "history.sqlite3"


def make_private_folder(folder: Path) -> None:
    """Make ``folder``, if it is missing, and let nobody else in; raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _close_to_others(folder)


def keep_private(database: Path) -> None:
    """Make a database's folder, if it is missing, and its file nobody else's; raises OSError."""
    database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(RuntimeError):
        if database.parent == state_folder():
            _close_to_others(database.parent)
    # Made before SQLite makes it: that gives its journals the rights of the file that they belong to.
    os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    beside = [path for path in database.parent.iterdir() if path.name.startswith(database.name)]
    for path in {*beside, *(database.with_name(database.name + suffix) for suffix in _BESIDE)}:
        _close_to_others(path)


def own_token(create: bool = False) -> str | None:
    """The token that stands for this user on this machine; None if there is none, or nowhere to keep it."""
    try:
        path = state_folder() / "viewer-token"
        if create and not path.exists():
            import secrets

            make_private_folder(path.parent)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
        _close_to_others(path)
        return read_token(path)
    except (OSError, RuntimeError, TokenFileError):
        return None


def unasked_token(url: str) -> str | None:
    """The token that a client shows by itself: to what listens on this machine, where the kernel tells nobody whose
    a connection is. Where it does a viewer needs none of us, and whoever else listens there is to see none."""
    try:
        here = is_this_machine(urlsplit(url if "//" in url else f"//{url}").hostname or "")
    except ValueError:
        return None
    return own_token() if here and not tells_owners() else None


def _close_to_others(path: Path) -> None:
    """Of another's files nothing is changed, nor of what is no plain file or folder."""
    with contextlib.suppress(OSError):
        found = path.lstat()
        mine = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
        plain = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
        if mine and plain and found.st_mode & _OTHERS:
            path.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
