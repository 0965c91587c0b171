"""How much memory senders may make the collector use, and what leaves memory first beyond that.

Money never does. What is too much goes to the archive and comes back when it speaks again (processes, conversations),
or shares one series whose sum stays right (attribute sets under our own names), or, where it is not ours, is refused.
Each of these is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from openhands_otel._internal.collector.points.series import Attributes

PROCESS_LIMIT: Final = 1_000
"""Processes in memory, beyond which those that have been silent for a while leave it."""
PROCESS_HARD_LIMIT: Final = 4_000
"""Beyond this the longest silent leave at once, however short they have been."""
PROCESSES_AT_ONCE: Final = 500
"""Processes of one request that are taken before the next look at these limits."""
OWN_BYTES: Final = 96 * 1024 * 1024
"""What processes and their series under our own names may weigh; then the longest silent leave too."""
FOREIGN_BYTES: Final = 64 * 1024 * 1024
"""What series under other names may weigh; more are refused."""
FOREIGN_NAMES: Final = 5_000
OWN_SERIES: Final = 2_000
"""Series of one process that totals are made of; more share one for each metric."""
SHARING: Final = 200_000
"""Series that share one, of all processes, told apart by a number only; more are refused."""
CONVERSATION_BYTES: Final = 96 * 1024 * 1024
"""What conversations may weigh; then the oldest leave, those that are open too."""
CONVERSATION_WEIGHT: Final = 18 * 1024
"""Bytes of one without its series: what viewers are told of it, mostly."""
RESOURCE_ATTRIBUTES: Final = 64
RESOURCE_TEXT: Final = 16 * 1024
"""Attributes of one resource, and characters of all of them; who it is comes first, the rest by its name."""
EXEMPLAR_WEIGHT: Final = 450
"""Bytes of an exemplar, about."""

_SERIES_WEIGHT: Final = 600
"""Bytes of a series without its attributes, about."""
_ATTRIBUTE_WEIGHT: Final = 120


def weigh(attributes: Attributes) -> int:
    """Bytes that a series with these attributes takes, about."""
    weight = _SERIES_WEIGHT
    for name, value in attributes:
        weight += _ATTRIBUTE_WEIGHT + len(name) + (len(value) if isinstance(value, str) else 0)
    return weight


def within(attributes: Attributes, first: Sequence[str]) -> Attributes:
    """As many as a resource may have."""
    kept: list[tuple[str, str | bool | int | float]] = []
    room = RESOURCE_TEXT
    for name, value in sorted(attributes, key=lambda pair: (pair[0] not in first, pair[0])):
        room -= len(name) + (len(value) if isinstance(value, str) else 0)
        if room < 0 or len(kept) >= RESOURCE_ATTRIBUTES:
            break
        kept.append((name, value))
    return tuple(sorted(kept))
