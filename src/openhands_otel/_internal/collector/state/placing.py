"""Where spend belongs: in which quarter-hour, whose, on what; kept until it is written with the records it came by.

There are two ways to tell it, and they are kept apart. Totals are made of what processes say as a whole
(``Cube.FLEET``), so its rows always add up to them. What they say of each conversation (``Cube.CONVERSATIONS``) knows
the conversation, the usage id and labels too. Where the two differ, something is said of no conversation.

What is booked here and the record whose series it was read from are written in one transaction: after a ``kill -9`` the
journal tells again exactly what neither of them has.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

from openhands_otel import semconv
from openhands_otel._internal.collector.points.series import Attributes
from openhands_otel._internal.spend.amounts import CALLS_FIELD, COUNTERS, SECONDS_FIELD, TOKEN_FIELDS, Amount

UNDATED: Final = 0
"""Stands for the quarter-hour of what has no date."""
PROCESS_RECORDS: Final = "processes"
CONVERSATION_RECORDS: Final = "conversations"
RecordKey = tuple[str, str]
"""Table (one of these) and key of a record of the database."""


class Cube(IntEnum):
    """Whose account of the spend a row is of."""

    FLEET = 0
    CONVERSATIONS = 1
    READ = 2
    """Read from OpenHands' own files."""


class Place(NamedTuple):
    """What a row of the archive is told apart by, beside its quarter-hour; empty where it is not known."""

    cube: Cube
    conversation: str = ""
    service: str = ""
    namespace: str = ""
    labels: str = "{}"
    """Of the process, as JSON with sorted names."""
    own_labels: str = "{}"
    """Of the calls."""
    provider: str = ""
    model: str = ""
    role: str = ""
    agent: str = ""
    usage_id: str = ""
    cost_source: str = ""
    run: str = ""


Booked = tuple[int, Place, Amount]
"""Quarter-hour, place and what was spent there, more or less."""

_TEXT: Final = {
    semconv.PROVIDER_NAME: "provider",
    semconv.REQUEST_MODEL: "model",
    semconv.LLM_ROLE: "role",
    semconv.AGENT_NAME: "agent",
    semconv.USAGE_ID: "usage_id",
    semconv.COST_SOURCE: "cost_source",
}


@lru_cache(8_192)
def place_of(cube: Cube, conversation: str, resource: Attributes, service: str, attributes: Attributes) -> Place:
    """Where a point belongs, by its process and its own attributes."""
    place = Place(
        cube,
        conversation,
        service,
        str(dict(resource).get(semconv.SERVICE_NAMESPACE, "")),
        _labels(resource),
        _labels(attributes),
    )
    return place._replace(**{_TEXT[name]: str(value) for name, value in attributes if name in _TEXT})


def attributes_of(place: Place) -> Attributes:
    """The opposite: attributes of a process's series whose spend belongs to a place."""
    found: dict[str, str] = {name: getattr(place, field) for name, field in _TEXT.items() if getattr(place, field)}
    found |= {semconv.LABEL_PREFIX + name: value for name, value in json.loads(place.own_labels).items()}
    return tuple(sorted(found.items()))


def _labels(attributes: Attributes) -> str:
    prefix = semconv.LABEL_PREFIX
    # At NUL, which no sender of ours lets through, SQLite believes a text in JSON to end: it would be another's.
    found = {
        name.removeprefix(prefix): str(value).replace("\0", "\\x00")
        for name, value in attributes
        if name.startswith(prefix)
    }
    environment = dict(attributes).get(semconv.DEPLOYMENT_ENVIRONMENT)
    if environment is not None:
        found.setdefault("environment", str(environment))
    return json.dumps(found, sort_keys=True, separators=(",", ":"))


FLEET_MEASURES: Final[Mapping[str, str]] = {metric.name: field for metric, field in COUNTERS.items()}
"""The field of an amount that each fleet counter which totals are made of adds to."""
_CONVERSATION_MEASURES: Final[Mapping[str, str]] = {
    semconv.CONVERSATION_COST.name: "cost",
    semconv.CONVERSATION_CALLS.name: CALLS_FIELD,
    semconv.CONVERSATION_UNPRICED.name: "unpriced_calls",
    semconv.CONVERSATION_CACHE_SAVINGS.name: "savings",
    semconv.CONVERSATION_LLM_TIME.name: SECONDS_FIELD,
}
_TOKEN_MEASURES: Final[Mapping[object, str]] = {kind.value: field for kind, field in TOKEN_FIELDS.items()}


def conversation_measure(metric: str, attributes: Attributes) -> str | None:
    """The field of an amount that a series of a conversation adds to; None where it is no spend."""
    if metric == semconv.CONVERSATION_TOKENS.name:
        return _TOKEN_MEASURES.get(dict(attributes).get(semconv.TOKEN_TYPE))
    return _CONVERSATION_MEASURES.get(metric)


class Unbooked:
    """What is to be written with each record."""

    def __init__(self) -> None:
        self._by_record: dict[RecordKey, dict[tuple[int, Place], Amount]] = {}

    def amount(self, record: RecordKey, quarter: int, place: Place) -> Amount:
        """The amount to add to."""
        return self._by_record.setdefault(record, {}).setdefault((quarter, place), Amount())

    def take(self, record: RecordKey) -> list[Booked]:
        """What is to be written with a record now."""
        return [(*where, amount) for where, amount in self._by_record.pop(record, {}).items()]

    def put_back(self, record: RecordKey, booked: Iterable[Booked]) -> None:
        """It could not be written."""
        for quarter, place, amount in booked:
            self.amount(record, quarter, place).include(amount)

    def clear(self) -> None:
        """Forget all of it."""
        self._by_record.clear()
