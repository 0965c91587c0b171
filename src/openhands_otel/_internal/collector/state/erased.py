"""Streams whose names and money somebody had forgotten: of each a hash, and what it had reached.

What is told of them again (a retry, a late point, the next cumulative one) counts only by what comes on top.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from openhands_otel._internal.collector.points.series import Counted, Point

_DIGEST: Final = 16
Record = dict[str, Any]
"""What the archive keeps, plain enough for JSON."""


def hash_of(salt: str, *names: object) -> str:
    """What stands for names that are forgotten; without the file's salt nobody can try names on it."""
    return hashlib.blake2b(repr(names).encode(), digest_size=_DIGEST, key=salt.encode()).hexdigest()


@dataclass(slots=True)
class Erased:
    """Those of one process, or of one conversation."""

    salt: str = ""
    streams: dict[str, list[Any]] = field(default_factory=dict[str, "list[Any]"])
    """Records of series by hash."""

    def put(self, series: Counted, *names: object) -> None:
        """Forget a series."""
        series.erase()
        self.streams[hash_of(self.salt, *names)] = series.record()

    def take(self, *names: object) -> Counted | None:
        """A series that speaks again."""
        if not self.streams:
            return None
        record = self.streams.pop(hash_of(self.salt, *names), None)
        return None if record is None else Counted.from_record(record)

    def grows(self, points: Iterable[tuple[Point, tuple[object, ...]]], now: int) -> bool:
        """Whether some points, each with the names of its series, tell of more than is forgotten."""
        for point, names in points:
            if point.value is None:
                continue
            record = self.streams.get(hash_of(self.salt, *names))
            series = Counted() if record is None else Counted.from_record(record)
            before = series.reached
            series.apply(point, now)
            if series.reached > before:
                return True
        return False

    def record(self) -> Record:
        """As the archive keeps it."""
        return {"salt": self.salt, "streams": self.streams} if self.streams else {}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Erased:
        """The opposite."""
        return cls(record.get("salt", ""), dict(record.get("streams", {})))
