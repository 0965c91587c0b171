"""Time zones by name, and the zone of this machine, whichever way it is set."""

from __future__ import annotations

import os
import struct
from io import BytesIO
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

MACHINE: Final = "local"
"""Stands for this machine's zone where that has no name of its own, and may be given instead of a name."""
_LOCALTIME: Final = Path("/etc/localtime")
_DEBIAN_NAME: Final = Path("/etc/timezone")
_FOLDER: Final = "zoneinfo/"


class ZoneError(ValueError):
    """There is no such time zone; the message is one line that says what to write."""


def zone_of(name: str | None) -> ZoneInfo:
    """The zone of an IANA name; this machine's for None, nothing and "local". Raises ZoneError."""
    wanted = (name or "").strip()
    if wanted in ("", MACHINE):
        return machine_zone()
    zone = _named(wanted)
    if zone is not None:
        return zone
    meant = next((known for known in available_timezones() if known.casefold() == wanted.casefold()), None)
    cure = f"is it {meant}?" if meant else "use a name such as Europe/Berlin, Asia/Kolkata or UTC"
    raise ZoneError(f"'{wanted}' is no time zone that is known here: {cure}")


def machine_zone() -> ZoneInfo:
    """What ``TZ`` says, else what /etc/localtime is; UTC where neither says anything, as the C library has it."""
    said = os.environ.get("TZ")
    if said is not None:
        return _of_variable(said.removeprefix(":"))
    try:
        target = os.path.realpath(_LOCALTIME)
        named = _named(target.partition(_FOLDER)[2]) if _FOLDER in target else None
        if named is None and _DEBIAN_NAME.exists():
            named = _named(_DEBIAN_NAME.read_text().strip())
        return named or _read(_LOCALTIME)
    except (OSError, ValueError):
        return ZoneInfo("UTC")


def _of_variable(said: str) -> ZoneInfo:
    try:
        if os.path.isabs(said):
            return _named(said.partition(_FOLDER)[2]) or _read(Path(said))
        return _named(said) or _of_rule(said)
    except (OSError, ValueError):
        return ZoneInfo("UTC")


def _named(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (OSError, ValueError, LookupError):
        # A folder, a path that leads elsewhere, characters that no name has; or there is none.
        return None


def _read(file: Path) -> ZoneInfo:
    with file.open("rb") as content:
        return ZoneInfo.from_file(content, key=MACHINE)


def _of_rule(rule: str) -> ZoneInfo:
    """A rule such as ``CET-1CEST,M3.5.0,M10.5.0/3``: wrapped as a file of zone data, which may end in one."""
    # Counts: no transition, one type of local time, one character of its name.
    header = b"TZif2" + bytes(15) + struct.pack(">6l", 0, 0, 0, 0, 1, 1)
    block = struct.pack(">lbb", 0, 0, 0) + b"\0"
    return ZoneInfo.from_file(BytesIO((header + block) * 2 + b"\n" + rule.encode() + b"\n"), key=MACHINE)
