"""What a provider says of the modality of its tokens, and of the chunks of its answer: asked for by the newest names.

litellm puts what a provider says into ``prompt_tokens_details`` and ``completion_tokens_details`` (Chat Completions) or
``input_tokens_details`` and ``output_tokens_details`` (Responses). Most say nothing, and some only part of it.
"""

from __future__ import annotations

from typing import Any

from openhands_otel.semconv import Modality

ModalityCounts = tuple[tuple[Modality, int], ...]

_FIELDS = ((Modality.TEXT, "text_tokens"), (Modality.IMAGE, "image_tokens"), (Modality.AUDIO, "audio_tokens"))


def modalities_of(answer: Any) -> tuple[ModalityCounts, ModalityCounts]:
    """Of the input and of the output of a response as litellm hands it out."""
    usage = getattr(answer, "usage", None)
    return _counts(usage, "prompt", "input"), _counts(usage, "completion", "output")


def _counts(usage: Any, *directions: str) -> ModalityCounts:
    for direction in directions:
        details = getattr(usage, f"{direction}_tokens_details", None)
        if details is not None:
            found = ((modality, getattr(details, name, None)) for modality, name in _FIELDS)
            return tuple((modality, count) for modality, count in found if isinstance(count, int) and count > 0)
    return ()


class ChunkTimes:
    """When the chunks of one logical call came. An attempt that is made again begins anew."""

    __slots__ = ("_attempt", "_last", "seconds")

    def __init__(self) -> None:
        self.seconds: list[float] = []
        """From each chunk to the next."""
        self._attempt = -1
        self._last = 0.0

    def note(self, at: float, attempt: int) -> None:
        """A chunk came at ``at``, by the clock that does not go back, in the ``attempt``-th attempt."""
        if attempt == self._attempt:
            self.seconds.append(at - self._last)
        self._attempt, self._last = attempt, at
