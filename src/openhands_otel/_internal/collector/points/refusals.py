"""What the receivers left out, whose it was and why: told to the sender, and to everyone who watches.

A log of fixed size. The same again (one sender, one rule) is counted, not listed again; beyond the limit the entry that
is quiet the longest goes, and its count stays.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from openhands_otel.stats import Refusal

LOG_LIMIT: Final = 64
_REQUEST_LIMIT: Final = 16
"""Different refusals of one request that are listed; more share one entry."""
_TEXT_LIMIT: Final = 300
_NAME_LIMIT: Final = 100

RefusalKey = tuple[str, str, str]
"""Service, instance, and the rule that was broken."""


@dataclass(slots=True)
class Refused:
    """One sender's points (or requests) that broke one rule."""

    reason: str
    points: int = 0
    requests: int = 0


@dataclass(slots=True)
class Refusals:
    """What was left out of one request. ``of`` says whose points are looked at now."""

    count: int = 0
    reason: str = ""
    """The first reason, with the name of who is to blame: what the sender is told."""
    entries: dict[RefusalKey, Refused] = field(default_factory=dict[RefusalKey, Refused])
    _service: str = ""
    _instance: str = ""

    def of(self, service: str, instance: str) -> None:
        self._service, self._instance = service[:_NAME_LIMIT], instance[:_NAME_LIMIT]

    def add(self, reason: str, count: int = 1, rule: str = "") -> None:
        """``rule`` is the part of the reason that stays the same when the value changes."""
        if not count:
            return
        self.count += count
        reason = reason[:_TEXT_LIMIT]
        if not self.reason:
            self.reason = f"{reason} ({whose(self._service, self._instance)})" if self._service else reason
        key = (self._service, self._instance, (rule or reason)[:_TEXT_LIMIT])
        if key not in self.entries and len(self.entries) >= _REQUEST_LIMIT:
            key, reason = (self._service, "", "more"), "was refused for several reasons more"
        entry = self.entries.get(key)
        if entry is None:
            if len(self.entries) >= 2 * _REQUEST_LIMIT:
                key = next(reversed(self.entries))
            entry = self.entries.setdefault(key, Refused(reason))
        entry.points += count


class RefusalLog:
    """What was refused since the collector started."""

    def __init__(self) -> None:
        self._held: OrderedDict[RefusalKey, Refusal] = OrderedDict()
        self.total = 0
        """Points and requests refused, the forgotten entries' too."""

    def take(self, refusals: Refusals) -> None:
        """Take over what was left out of one request."""
        for (service, instance, rule), entry in refusals.entries.items():
            self._add((service, instance, rule), entry.reason, entry.points, 0)

    def refuse_request(self, reason: str, peer: str) -> None:
        """A request that could not be taken at all: of whom only the address is known."""
        reason = reason[:_TEXT_LIMIT]
        self._add(("", peer[:_NAME_LIMIT], reason), reason, 0, 1)

    def newest(self, most: int = LOG_LIMIT) -> tuple[Refusal, ...]:
        """Latest first."""
        return tuple(self._held[key] for key, _ in zip(reversed(self._held), range(most), strict=False))

    def _add(self, key: RefusalKey, reason: str, points: int, requests: int) -> None:
        self.total += points + requests
        now = time.time_ns()
        before = self._held.pop(key, None)
        if before is None and len(self._held) >= LOG_LIMIT:
            self._held.popitem(last=False)
        service, instance, _ = key
        self._held[key] = Refusal(
            service=service or None,
            instance=instance or None,
            reason=reason,
            points=points + (before.points if before else 0),
            requests=requests + (before.requests if before else 0),
            first_unix_nano=before.first_unix_nano if before else now,
            last_unix_nano=now,
        )


def whose(service: str | None, instance: str | None) -> str:
    """A sender in words."""
    if not service:
        return instance or "an unknown sender"
    return f"{service}, instance {instance}" if instance else service
