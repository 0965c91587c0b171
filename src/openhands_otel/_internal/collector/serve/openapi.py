"""The description of the viewer's API, as OpenAPI 3.1 has it."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter

from openhands_otel._internal.asking.endpoints import ENDPOINTS, JSON, Endpoint, Parameter
from openhands_otel._internal.collector.serve.answers import COUNT_HEADER
from openhands_otel._internal.version import __version__
from openhands_otel.stats import ChangesUpdate, Update


@cache
def openapi() -> dict[str, Any]:
    """The description as it is served."""
    shared: dict[str, Any] = {}
    paths = {each.path: {each.method.lower(): _operation(each, shared)} for each in ENDPOINTS}
    shared["Update"] = _schema(Update, shared)
    shared["ChangesUpdate"] = _schema(ChangesUpdate, shared)
    shared["Problem"] = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "openhands-otel viewer", "version": __version__},
        "paths": paths,
        "components": {"schemas": shared, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
    }


def _schema(
    of: Any, shared: dict[str, Any], mode: Literal["serialization", "validation"] = "serialization"
) -> dict[str, Any]:
    """Of a type; the models in it go to ``shared``."""
    schema = TypeAdapter(of).json_schema(ref_template="#/components/schemas/{model}", mode=mode)
    shared |= schema.pop("$defs", {})
    return schema


def _operation(endpoint: Endpoint[Any], shared: dict[str, Any]) -> dict[str, Any]:
    schema = _schema(endpoint.answer, shared)
    good: dict[str, Any] = {"description": "What was asked for.", "content": {endpoint.media_type: {"schema": schema}}}
    if endpoint.paged:
        good["headers"] = {COUNT_HEADER: {"schema": {"type": "integer"}, "description": "How many there are in all."}}
    body = endpoint.body and {JSON: {"schema": _schema(endpoint.body, shared, "validation")}}
    problem = {JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        "summary": endpoint.about,
        "parameters": [
            *([_described(endpoint.in_path, "path")] if endpoint.in_path is not None else []),
            *(_described(parameter, "query") for parameter in endpoint.parameters),
        ],
        **({"requestBody": {"required": True, "content": body}} if body else {}),
        "responses": {"200": good, "default": {"description": "Why not, in one line.", "content": problem}},
    }


def _described(parameter: Parameter, place: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": parameter.kind}
    if parameter.among:
        schema["enum"] = list(parameter.among)
    if parameter.repeated:
        schema = {"type": "array", "items": schema}
    return {
        "name": parameter.name,
        "in": place,
        "required": place == "path" or parameter.required,
        "description": parameter.about,
        "schema": schema,
    }
