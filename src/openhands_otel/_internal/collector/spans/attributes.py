"""Attributes of spans as JSON, within limits: anybody may send as many and as long ones as a request has room for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final, cast

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

ATTRIBUTES: Final = 256
"""Attributes of one span that are kept; OpenTelemetry's SDKs send 128 at most."""
TEXT: Final = 512 * 1024
"""Characters of all texts of one span that are kept: what our instrumentation captures of a call has room in it."""
_NAME: Final = 256
_DEPTH: Final = 8
_LARGEST: Final = 2**53
"""Beyond it JavaScript counts wrongly."""


class SpanRoom:
    """What one span may still take."""

    def __init__(self) -> None:
        self.text = TEXT
        self.left_out = 0
        """Attributes, events and links that had no room."""

    def attributes(self, given: Iterable[KeyValue], first: frozenset[str] = frozenset(), most: int = ATTRIBUTES) -> Any:
        """A dict of them; those named in ``first`` have the first claim."""
        kept: dict[str, Any] = {}
        for item in sorted(given, key=lambda item: item.key not in first):
            name, value = item.key[:_NAME], plain(item.value)
            size = len(name) + _length(value)
            if len(kept) >= most or size > self.text:
                self.left_out += 1
                continue
            self.text -= size
            kept[name] = value
        return kept


def plain(value: AnyValue, depth: int = _DEPTH) -> Any:
    """A value that JSON has."""
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value if math.isfinite(value.double_value) else str(value.double_value)
        case "bytes_value":
            return value.bytes_value.hex()
        case "array_value" if depth:
            return [plain(each, depth - 1) for each in value.array_value.values]
        case "kvlist_value" if depth:
            return {each.key: plain(each.value, depth - 1) for each in value.kvlist_value.values}
        case None:
            return None
        case _:
            return "..."


def text_of(attributes: dict[str, Any], name: str) -> str | None:
    """An attribute that is a text and says something."""
    value = attributes.get(name)
    return value[:_NAME] if isinstance(value, str) and value else None


def number_of(attributes: dict[str, Any], name: str, most: float) -> float | None:
    """An attribute that is a number between 0 and ``most``."""
    value = attributes.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        return None
    return float(value)


def count_of(attributes: dict[str, Any], name: str) -> int | None:
    """An attribute that is a whole number from 0 on."""
    value = attributes.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LARGEST:
        return None
    return int(value)


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return 8 + sum(map(_length, cast(list[Any], value)))
    if isinstance(value, dict):
        return 8 + sum(len(name) + _length(each) for name, each in cast(dict[str, Any], value).items())
    return 8
