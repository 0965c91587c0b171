"""Bearer tokens that a viewer's owner gave out by name: each says what its bearer may do, and can be taken back alone.

The file has digests only: a token is shown once, when it is made. A viewer reads the file again whenever it changed, so
what is given or taken back holds within a second, without a restart.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from openhands_otel._internal.host.state_folder import make_private_folder, state_folder
from openhands_otel._internal.host.watched_files import WatchedFiles

try:
    import fcntl
except ImportError:
    fcntl = None

TOKEN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_VERSION: Final = 1
_LONGEST: Final = 4 * 1024 * 1024


class Right(StrEnum):
    """What a bearer may do."""

    SEND = "send"
    LOOK = "look"


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody was let in for. ``name`` is empty where no named token was shown; then all is permitted."""

    name: str = ""
    rights: frozenset[Right] = frozenset(Right)
    service: str | None = None
    """The only service (service.name) of which may be sent or seen; None for every one."""
    created: float = 0.0
    """Unix seconds."""
    digest: str = ""

    @property
    def described(self) -> str:
        """What it permits, in words."""
        may = " and ".join(right for right in Right if right in self.rights)
        return may if self.service is None else f"{may}, service {self.service}"


class TokensError(Exception):
    """The file of named tokens cannot be used; the message is one line."""


def tokens_file() -> Path:
    """Where a viewer of this user keeps them unless told otherwise; raises RuntimeError where there is no home."""
    return state_folder() / "viewer-tokens.json"


def digest_of(secret: str) -> str:
    """Nothing slower is needed: a secret of ours has 256 bits, so none is found by trying."""
    return hashlib.sha256(secret.encode()).hexdigest()


def read(path: Path) -> list[Grant]:
    """All that are in a file, none where there is none; raises TokensError."""
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TokensError(f"the file of tokens {path} cannot be read: {error.strerror}") from None
    try:
        if len(content) > _LONGEST:
            raise ValueError
        held = json.loads(content)
        if held["version"] != _VERSION:
            raise TokensError(f"the file of tokens {path} is of another version: use the release that wrote it")
        return [_grant(each) for each in held["tokens"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise TokensError(f"{path} is no file of tokens: 'openhands-otel token add' makes one") from None


def _grant(record: dict[str, Any]) -> Grant:
    rights = frozenset(Right(each) for each in record["rights"])
    name, service, digest = record["name"], record["service"], record["sha256"]
    if not (rights and TOKEN_NAME.fullmatch(name) and re.fullmatch("[0-9a-f]{64}", digest)):
        raise ValueError
    if not isinstance(service, str | None):
        raise TypeError
    return Grant(name, rights, service, float(record["created"]), digest)


def add(path: Path, name: str, rights: frozenset[Right], service: str | None = None) -> str:
    """Make a token and return it: it is nowhere else. Raises TokensError where there is one of that name."""
    secret = secrets.token_urlsafe(32)
    with _changing(path) as grants:
        if any(each.name == name for each in grants):
            raise TokensError(f"there is a token '{name}': revoke it first, or choose another name")
        grants.append(Grant(name, rights, service, time.time(), digest_of(secret)))
    return secret


def revoke(path: Path, name: str) -> None:
    """Take one back; raises TokensError where there is none of that name."""
    with _changing(path) as grants:
        kept = [each for each in grants if each.name != name]
        if len(kept) == len(grants):
            raise TokensError(f"there is no token '{name}': 'openhands-otel token list' shows them")
        grants[:] = kept


@contextmanager
def _changing(path: Path) -> Generator[list[Grant]]:
    """The grants of a file, written back at the end; one process at a time, and a reader sees the old or the new."""
    try:
        if path.parent == tokens_file().parent:
            make_private_folder(path.parent)
        with _locked(path.with_name(path.name + ".lock")):
            grants = read(path)
            yield grants
            _write(path, grants)
    except OSError as error:
        raise TokensError(f"the file of tokens {path} cannot be written: {error.strerror}") from None


@contextmanager
def _locked(path: Path) -> Generator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, grants: list[Grant]) -> None:
    records = [
        {
            "name": each.name,
            "rights": sorted(each.rights),
            "service": each.service,
            "created": each.created,
            "sha256": each.digest,
        }
        for each in grants
    ]
    beside = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"version": _VERSION, "tokens": records}, file, indent=1)
        file.flush()
        os.fsync(descriptor)
    beside.replace(path)


class NamedTokens:
    """A file of them as a viewer sees it. ``path`` None: there is none."""

    def __init__(self, path: Path | None) -> None:
        """Reads it for the first time; raises TokensError."""

        def by_digest() -> dict[str, Grant]:
            return {} if path is None else {each.digest: each for each in read(path)}

        self._file = WatchedFiles(() if path is None else (path,), by_digest, TokensError, f"the file of tokens {path}")

    def grant_of(self, secret: str) -> Grant | None:
        """What a token permits now; None if it is not among them."""
        grants = self._file.now
        return grants.get(digest_of(secret)) if grants else None

    def holds(self, grant: Grant) -> bool:
        """Whether it is still as it was given."""
        return self._file.now.get(grant.digest) == grant

    def __len__(self) -> int:
        return len(self._file.now)
