"""Whether a dashboard is one by Grafana's own model: its foundation SDK reads it, writes the same, and finds each type.

Grafana itself cannot be run in the tests. What its model does not know, it drops while reading; what has a value of
another type, or none of an enumeration, is found by the annotations of its classes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from pydantic import ConfigDict, TypeAdapter, ValidationError

plugins.register_default_plugins()


def problems(dashboard: dict[str, Any]) -> list[str]:
    """What is wrong with it, a line each."""
    read = Dashboard.from_json(dashboard)
    written = json.loads(JSONEncoder().encode(read))
    return [*_differences(dashboard, written), *_misfits(read)]


def _differences(given: Any, written: Any, path: str = "") -> Iterator[str]:
    if isinstance(given, dict) and isinstance(written, dict):
        for name in given.keys() | written.keys():
            if name not in written:
                yield f"{path}.{name}: unknown to Grafana"
            elif name not in given:
                yield f"{path}.{name}: missing"
            else:
                yield from _differences(given[name], written[name], f"{path}.{name}")
    elif isinstance(given, list) and isinstance(written, list) and len(given) == len(written):
        for number, (one, other) in enumerate(zip(given, written, strict=True)):
            yield from _differences(one, other, f"{path}[{number}]")
    elif given != written:
        yield f"{path}: {given!r} is read as {written!r}"


def _misfits(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _misfits(each, f"{path}.{name}")
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _misfits(each, f"{path}[{number}]")
    elif hasattr(type(value), "from_json"):
        for name, adapter in _adapters(type(value)).items():
            held = getattr(value, name)
            try:
                adapter.validate_python(held)
            except ValidationError as error:
                for each in error.errors():
                    # What the SDK doesn't read into a class of its own stays a plain object.
                    if not (each["type"] == "is_instance_of" and isinstance(each["input"], dict)):
                        yield f"{path}.{name}: {each['msg']}, not {each['input']!r}"
            yield from _misfits(held, f"{path}.{name}")


@functools.cache
def _adapters(model: type) -> Mapping[str, TypeAdapter[Any]]:
    known = ConfigDict(arbitrary_types_allowed=True)
    return {name: TypeAdapter(hint, config=known) for name, hint in get_type_hints(model).items()}
