"""Answers of the API: a model as JSON, and what is wrong in one line."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

JSON: Final = "application/json"


def as_json(model: BaseModel) -> Response:
    """A model as it is now."""
    return Response(model.model_dump_json(), media_type=JSON, headers={"cache-control": "no-store"})


def problem(status: int, message: str) -> Response:
    """Why there is no answer."""
    return JSONResponse({"message": message}, status)
