"""Answers of the API: models as JSON, and what is wrong in one line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from openhands_otel._internal.asking.endpoints import JSON

COUNT_HEADER: Final = "x-total-count"
"""Of a page: how many there are in all."""


def as_json(model: BaseModel) -> Response:
    """A model as it is now."""
    return Response(model.model_dump_json(), media_type=JSON, headers={"cache-control": "no-store"})


def json_list(models: Iterable[BaseModel | str], count: int | None = None) -> Response:
    """Models, or their JSON, as a list; ``count`` where it is a page: how many there are in all."""
    parts = ",".join(each if isinstance(each, str) else each.model_dump_json() for each in models)
    return Response(f"[{parts}]", media_type=JSON, headers=None if count is None else {COUNT_HEADER: str(count)})


def problem(status: int, message: str) -> Response:
    """Why there is no answer."""
    return JSONResponse({"message": message}, status)
