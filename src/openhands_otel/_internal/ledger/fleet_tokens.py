"""Token counters as the newest GenAI conventions have them: by modality, response model and server; 0 where a call
brought none. Also what else is told of a call by those names alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from openhands_otel import semconv
from openhands_otel._internal.labels import Labels
from openhands_otel._internal.ledger.fleet import FleetKey, MoreAttributes, fleet_key
from openhands_otel.events import LLMCallEnded, Origin, TokensUsed
from openhands_otel.semconv import Metric, Modality, TokenType

_PARTS = {
    TokenType.INPUT: (TokenType.CACHE_READ, TokenType.CACHE_WRITE),
    TokenType.OUTPUT: (TokenType.REASONING,),
}
_NONE = TokensUsed(0, Origin(), 0, 0, 0, 0, 0, 0, "")


def detail_of(origin: Origin, response_model: str | None) -> MoreAttributes:
    """What the newest names say of a call, beside what both generations say."""
    model = () if response_model is None else ((semconv.RESPONSE_MODEL, response_model),)
    if origin.server is None:
        return model
    host, port = origin.server
    return (*model, (semconv.SERVER_ADDRESS, host), (semconv.SERVER_PORT, port))


def token_amounts(event: TokensUsed, labels: Labels) -> Iterator[tuple[Metric, FleetKey, int]]:
    """What each counter grows by, under which key. Each grows, if only by 0."""
    return _amounts(event, event.origin, labels, detail_of(event.origin, event.response_model))


def no_tokens(event: LLMCallEnded, labels: Labels) -> Iterator[tuple[Metric, FleetKey, int]]:
    """The same of a call that ended, and that no tokens were reported of."""
    model = None if event.response is None else event.response.model
    return _amounts(_NONE, event.origin, labels, detail_of(event.origin, model))


def _amounts(
    used: TokensUsed, origin: Origin, labels: Labels, detail: MoreAttributes
) -> Iterator[tuple[Metric, FleetKey, int]]:
    for kind, modality, count in _by_modality(used):
        of_modality = (*detail, (semconv.TOKEN_MODALITY, modality.value))
        yield semconv.TOKEN_COUNTERS[kind], fleet_key(origin, labels=labels, detail=of_modality), count


def _by_modality(used: TokensUsed) -> Iterator[tuple[TokenType, Modality, int]]:
    counts = dict(zip(TokenType, used.counts, strict=True))
    for whole, given in ((TokenType.INPUT, used.input_modalities), (TokenType.OUTPUT, used.output_modalities)):
        split = _split(counts[whole], given)
        for modality, count in split:
            yield whole, modality, count
        # What is cached is not split by anybody: it is known where the whole is of one modality.
        of_parts = split[0][0] if len(split) == 1 else Modality.UNKNOWN
        for part in _PARTS[whole]:
            yield part, of_parts, counts[part]


def _split(total: int, given: tuple[tuple[Modality, int], ...]) -> list[tuple[Modality, int]]:
    """``total`` by modality; never more, whatever was said, and what nothing was said of is of unknown modality."""
    split: list[tuple[Modality, int]] = []
    left = total
    for modality, count in given:
        count = min(count, left)
        if count > 0:
            split.append((modality, count))
            left -= count
    if left or not split:
        split.append((Modality.UNKNOWN, left))
    return split
