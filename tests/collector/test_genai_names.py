"""A viewer understands either generation of GenAI names, and counts nothing twice where both are sent."""

from __future__ import annotations

import time
from typing import Any

import pytest
from telemetry.pipes import call, origin, pipeline, put

from openhands_otel import events, semconv
from openhands_otel.semconv import Modality
from otlp_receiver import http_receiver

from .held import HeldStore

CALLS = 7_000_001, 7_000_002
"""Numbers that no other test's calls have."""


def heard(switch: str) -> dict[str, Any]:
    """What a viewer says of three calls, one of which failed, that a process sends under ``switch``."""
    whose = origin("c", server=("host", 443))
    failed, pictured = CALLS
    split = ((Modality.TEXT, 20), (Modality.IMAGE, 25)), ((Modality.TEXT, 10),)
    used = events.TokensUsed(time.time_ns(), whose, 50, 10, 5, 0, 3, 9, "r", pictured, "gpt-4o-2026", *split)
    with http_receiver() as receiver, HeldStore() as held:
        with pipeline({"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, semconv.STABILITY_OPT_IN: switch}) as pipe:
            put(pipe, *call(whose, 0.25))
            put(pipe, events.LLMCallStarted(time.time_ns(), whose, failed))
            put(pipe, events.LLMCallEnded(time.time_ns(), whose, failed, "E", 1.0))
            put(pipe, events.LLMCallStarted(time.time_ns(), whose, pictured))
            put(pipe, used, events.LLMCallEnded(time.time_ns(), whose, pictured, None, 1.0))
            assert pipe.flush(50)
        assert [held.take_body(body) for body in receiver.bodies] == [0] * len(receiver.bodies)
        totals = held.store.totals().model_dump()
        counters = dict[Any, float]()
        for *_, newest in receiver.streams(semconv.INPUT_TOKENS.name).values():
            modality = newest.attributes.get(semconv.TOKEN_MODALITY)
            counters[modality] = counters.get(modality, 0) + newest.value
    told = {name: value for name, value in totals.items() if "unix" not in name and "rate" not in name}
    return {"totals": told, "counters": counters}


@pytest.mark.parametrize("switch", [semconv.NEWEST_GENAI, semconv.BOTH_GENAI])
def test_its_totals_are_the_same_whatever_the_names(switch: str) -> None:
    today, other = heard(""), heard(switch)
    assert other["totals"] == today["totals"]
    assert other["totals"]["accumulated_cost"] == 0.25
    assert other["totals"]["accumulated_token_usage"]["prompt_tokens"] == 150
    assert today["counters"] == {None: 150}
    assert other["counters"] == {"text": 20, "image": 25, "unknown": 105}
