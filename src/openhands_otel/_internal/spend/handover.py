"""What an import hands to a viewer: spend that was read from OpenHands' own files, conversation by conversation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from openhands_otel._internal.exact import COUNT_LIMIT, MONEY_LIMIT, SECONDS_LIMIT
from openhands_otel._internal.spend.amounts import TOKEN_FIELDS
from openhands_otel._internal.spend.rows import QUARTER_S, Dimension, SpendRow

ROWS_LIMIT: Final = 20_000
"""Of one conversation, 6 MB: it would have run for half a year without a pause. More of it is left out, the oldest."""
_BATCH: Final = 2_000
"""Rows, or conversations, of one handover, unless one alone has more."""
IMPORT_LIMIT: Final = 16 * 1024 * 1024
_FIRST: Final = 2 * QUARTER_S
"""The first quarter-hour that is a date, unix seconds: 0 stands for none."""

ShortText = Annotated[str, Field(max_length=256)]
Dollars = Annotated[float, Field(ge=0, le=MONEY_LIMIT, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=SECONDS_LIMIT, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=COUNT_LIMIT)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReadRow(_Strict):
    """What was spent in one quarter-hour in one place; ``begin`` in unix seconds."""

    begin: Annotated[float, Field(gt=QUARTER_S, le=4e10, allow_inf_nan=False)]
    provider: ShortText = ""
    model: ShortText = ""
    role: ShortText = ""
    agent: ShortText = ""
    usage_id: ShortText = ""
    cost_source: ShortText = ""
    cost: Dollars = 0.0
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    cache_read_tokens: Count = 0
    cache_write_tokens: Count = 0
    reasoning_tokens: Count = 0
    calls: Count = 0
    unpriced_calls: Count = 0
    seconds: Seconds = 0.0


class ReadConversation(_Strict):
    """All that was read of a conversation: it takes the place of what was read before."""

    conversation_id: Annotated[str, Field(min_length=1, max_length=256)]
    until: Seconds
    """When its file was last written, unix seconds: what came later was not read."""
    known: Annotated[list[tuple[Seconds, Seconds]], Field(max_length=ROWS_LIMIT)] = []
    """Since and until when the reader knew instrumented processes to have held it, unix seconds."""
    rows: Annotated[list[ReadRow], Field(max_length=ROWS_LIMIT)]


class Handover(_Strict):
    """One request."""

    conversations: Annotated[list[ReadConversation], Field(max_length=_BATCH)]


def handovers(
    rows: Iterable[SpendRow], modified: Mapping[str, float], known: Mapping[str, list[tuple[float, float]]]
) -> Iterator[Handover]:
    """``rows`` of conversations, with what is known of these by id. What has no date stands at its latest."""
    of: dict[str, list[ReadRow]] = defaultdict(list)
    for row in rows:
        of[row.keys[Dimension.CONVERSATION]].append(_read_row(row))
    batch: list[ReadConversation] = []
    count = 0
    for name, until in modified.items():
        found = sorted(of[name], key=lambda row: row.begin)[-ROWS_LIMIT:]
        if batch and (count + len(found) > _BATCH or len(batch) == _BATCH):
            yield Handover(conversations=batch)
            batch, count = [], 0
        batch.append(
            ReadConversation(conversation_id=name, until=max(0.0, until), known=known.get(name, []), rows=found)
        )
        count += len(found)
    if batch:
        yield Handover(conversations=batch)


def _read_row(row: SpendRow) -> ReadRow:
    amount = row.amount
    return ReadRow.model_validate(
        {
            # A file whose time was wiped, as archives have them, is of 1970: there is no date before.
            "begin": max(_FIRST, row.end // QUARTER_S * QUARTER_S if row.begin is None else row.begin),
            "cost": min(amount.cost.value, MONEY_LIMIT),
            "calls": amount.calls,
            "unpriced_calls": amount.unpriced_calls,
            "seconds": min(amount.seconds.value, SECONDS_LIMIT),
        }
        | {name: min(getattr(amount, name), COUNT_LIMIT) for name in TOKEN_FIELDS.values()}
        | {name: text[:256] for name, text in row.keys.items() if name != Dimension.CONVERSATION}
    )
