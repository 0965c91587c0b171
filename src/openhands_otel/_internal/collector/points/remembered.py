"""What was read from some bytes, so that the same bytes need not be read again: an agent says the same each time."""

from __future__ import annotations

from typing import Final

_KEY_LIMIT: Final = 4_096
"""Bytes of one key: what is larger no agent of ours says."""
_OF_ENTRY: Final = 320
_OF_BYTE: Final = 16
"""Bytes of memory that an entry takes at most, and for each byte of its key: measured with the worst that fits in."""


class Remembered[T]:
    """Values by the bytes that they were read from, in at most ``limit`` bytes of memory; then it begins anew."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[bytes, T] = {}
        self._size = 0
        self.get = self._held.get
        """What was read from these bytes; None where that is not known (any more)."""

    def __len__(self) -> int:
        return len(self._held)

    def put(self, key: bytes, value: T) -> None:
        """Remember this, unless its key is large."""
        if len(key) > _KEY_LIMIT:
            return
        size = _OF_ENTRY + _OF_BYTE * len(key)
        if self._size + size > self._limit:
            self._held.clear()
            self._size = 0
        self._size += size
        self._held[key] = value
