"""What the fleet's token counters grow by under the newest GenAI names: split further, and never another sum."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openhands_otel import semconv
from openhands_otel._internal.ledger.ledger import Ledger
from openhands_otel.events import LLMCallEnded, LLMCallStarted, Origin, ResponseMetadata, TokensUsed
from openhands_otel.semconv import GenAINames, Modality, TokenType

ORIGIN = Origin(
    "c", model="m", provider="p", agent="Agent", labels=(("team", "red"), ("run", "7")), server=("llm.example.com", 443)
)


def ledger(names: GenAINames = GenAINames.NEWEST) -> Ledger:
    return Ledger(series_limit=100, conversation_limit=10, fleet_labels=["team"], names=names)


def used(counts: tuple[int, int, int, int, int], call: int | None = 1, **more: object) -> TokensUsed:
    return TokensUsed(1, ORIGIN, *counts, 1000, "r", call, **more)  # type: ignore[arg-type]


def totals(ledger: Ledger) -> dict[TokenType, Counter[str]]:
    """By token type, and in each by modality."""
    found: dict[TokenType, Counter[str]] = {}
    for kind, metric in semconv.TOKEN_COUNTERS.items():
        found[kind] = Counter()
        for key, value in ledger.fleet[metric.name].items():
            found[kind][str(dict(key.detail)[semconv.TOKEN_MODALITY])] += int(value)
    return found


counts = st.tuples(*[st.integers(0, 10**12)] * 5)
split = st.lists(st.tuples(st.sampled_from(Modality), st.integers(-5, 10**12)), max_size=5).map(tuple)


@given(st.lists(st.tuples(counts, split, split), min_size=1, max_size=4))
def test_however_tokens_are_split_they_add_up_to_what_was_used(
    calls: list[tuple[tuple[int, int, int, int, int], tuple[object, ...], tuple[object, ...]]],
) -> None:
    newest, today = ledger(), ledger(GenAINames.TODAY)
    for used_up, given_in, given_out in calls:
        for each in (newest, today):
            each.apply(used(used_up, input_modalities=given_in, output_modalities=given_out))
    for place, (kind, by_modality) in enumerate(totals(newest).items()):
        assert by_modality.total() == sum(used_up[place] for used_up, _, _ in calls)
        assert by_modality.total() == today.fleet[semconv.TOKEN_COUNTERS[kind].name].total
        assert min(by_modality.values()) >= 0


def test_what_no_modality_is_known_of_is_unknown_and_parts_go_with_a_whole_of_one_kind() -> None:
    held = ledger()
    held.apply(used((100, 20, 30, 5, 7), input_modalities=((Modality.TEXT, 60), (Modality.IMAGE, 10))))
    assert totals(held) == {
        TokenType.INPUT: {"text": 60, "image": 10, "unknown": 30},
        TokenType.OUTPUT: {"unknown": 20},
        # What is cached may be of either kind.
        TokenType.CACHE_READ: {"unknown": 30},
        TokenType.CACHE_WRITE: {"unknown": 5},
        TokenType.REASONING: {"unknown": 7},
    }
    whole = ledger()
    whole.apply(
        used((100, 20, 30, 5, 7), input_modalities=((Modality.TEXT, 400),), output_modalities=((Modality.AUDIO, 20),))
    )
    assert totals(whole) == {
        TokenType.INPUT: {"text": 100},
        TokenType.OUTPUT: {"audio": 20},
        TokenType.CACHE_READ: {"text": 30},
        TokenType.CACHE_WRITE: {"text": 5},
        TokenType.REASONING: {"audio": 7},
    }


def details(ledger: Ledger) -> list[dict[str, object]]:
    found = [key for key, _ in ledger.fleet[semconv.INPUT_TOKENS.name].items()]
    assert {(key.provider, key.model, key.agent, key.labels) for key in found} <= {
        ("p", "m", "Agent", (("team", "red"),))
    }
    return [dict(key.detail) for key in found]


SERVER = {semconv.SERVER_ADDRESS: "llm.example.com", semconv.SERVER_PORT: 443}


def test_tokens_say_which_model_answered_and_where() -> None:
    held = ledger()
    held.apply(used((1, 2, 0, 0, 0), response_model="m-2026"))
    assert details(held) == [{semconv.RESPONSE_MODEL: "m-2026", **SERVER, semconv.TOKEN_MODALITY: "unknown"}]


@pytest.mark.parametrize("response", [None, ResponseMetadata(model="m-2026")])
def test_a_call_without_tokens_adds_a_zero_to_each_counter_once_it_has_ended(response: ResponseMetadata | None) -> None:
    held = ledger()
    held.apply(LLMCallStarted(1, ORIGIN, 1))
    assert not any(totals(held).values())
    held.apply(LLMCallEnded(2, ORIGIN, 1, "TimeoutError", 0.5, response))
    assert totals(held) == {kind: {"unknown": 0} for kind in TokenType}
    model = {} if response is None else {semconv.RESPONSE_MODEL: "m-2026"}
    assert details(held) == [{**model, **SERVER, semconv.TOKEN_MODALITY: "unknown"}]


def test_a_call_with_tokens_adds_no_zero_beside_them() -> None:
    held = ledger()
    held.apply(LLMCallStarted(1, ORIGIN, 1))
    held.apply(LLMCallStarted(1, ORIGIN, 2))
    held.apply(used((3, 1, 0, 0, 0), call=1, input_modalities=((Modality.TEXT, 3),)))
    held.apply(LLMCallEnded(2, ORIGIN, 1, None, 0.5))
    assert totals(held)[TokenType.INPUT] == {"text": 3}
    held.apply(LLMCallEnded(2, ORIGIN, 2, None, 0.5))
    assert [key for key, _ in held.fleet[semconv.INPUT_TOKENS.name].items()][1:]
