"""What a provider says of its response: id, model and why it stopped. Never any of its content."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from openhands_otel._internal.guard import guarded
from openhands_otel._internal.model_names import without_path
from openhands_otel.events import ResponseMetadata


@guarded
def response_metadata(result: Any) -> ResponseMetadata | None:
    """Read it from an ``LLMResponse``; None where there is none."""
    return metadata_of(getattr(result, "raw_response", None))


@guarded
def metadata_of(raw: Any) -> ResponseMetadata | None:
    """Read it from the response as litellm hands it out; None where there is none."""
    if raw is None:
        return None
    reasons = tuple(_finish_reasons(raw))
    model = _text(getattr(raw, "model", None))
    return ResponseMetadata(_text(getattr(raw, "id", None)), model and without_path(model), reasons)


def _finish_reasons(raw: Any) -> Iterable[str]:
    choices: Any = getattr(raw, "choices", None)
    if isinstance(choices, list):
        found: list[Any] = [getattr(choice, "finish_reason", None) for choice in choices]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    else:
        # The Responses API has a status instead, and a reason only where the answer is not complete.
        reason = getattr(getattr(raw, "incomplete_details", None), "reason", None)
        found = [reason or getattr(raw, "status", None)]
    return [reason for each in found if (reason := _text(each))]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
