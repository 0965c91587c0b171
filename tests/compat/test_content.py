"""What is said, on spans: only where it is asked for, and never a secret."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from openhands_otel import subscribe
from openhands_otel._internal import guard
from openhands_otel._internal.content import MessageCaptured
from openhands_otel._internal.demo.answers import refuse
from openhands_otel._internal.tracing.redaction import Redaction
from openhands_otel.events import Event
from openhands_otel.semconv import CONVERSATION_TITLE, CONVERSATION_TITLED

from .scenario import Scenario, called, said
from .traced import Traced, instrument_again

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
KEY = "sk-planted4711planted4711"


def capturing(scenario: Scenario, monkeypatch: pytest.MonkeyPatch, mode: str = "SPAN_ONLY") -> Traced:
    monkeypatch.setenv(CAPTURE, mode)
    traced = Traced()
    instrument_again(traced)
    return traced


def thinking(scenario: Scenario, **options: Any) -> Any:
    scenario.script("main", [called("think", {"thought": f"a thought, {KEY}"}), said("the answer", prompt=3000)])
    conversation = scenario.conversation(scenario.llm("main"), **options)
    scenario.run(conversation, f"the question, {KEY}")
    return conversation


def every_byte(traced: Traced) -> str:
    return json.dumps([json.loads(span.to_json()) for span in traced.spans])


def test_messages_arguments_and_results_stand_on_the_spans_that_own_them(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = capturing(scenario, monkeypatch)
    thinking(scenario)
    first, second = (dict(span.attributes or {}) for span in traced.named("chat"))
    (system, *_) = json.loads(str(first["gen_ai.system_instructions"]))
    assert system["type"] == "text"
    assert len(system["content"]) > 100
    (question,) = json.loads(str(first["gen_ai.input.messages"]))
    assert (question["role"], question["parts"][0]["type"]) == ("user", "text")
    assert question["parts"][0]["content"] == "the question, [redacted]"
    (request,) = (each for each in json.loads(str(first["gen_ai.output.messages"]))[0]["parts"] if "name" in each)
    assert (request["type"], request["name"]) == ("tool_call", "think")
    assert request["arguments"] == {"thought": "a thought, [redacted]"}
    *_, answer = json.loads(str(second["gen_ai.input.messages"]))
    assert (answer["role"], answer["parts"][0]["type"]) == ("tool", "tool_call_response")
    assert answer["parts"][0]["id"] == request["id"]
    (done,) = json.loads(str(second["gen_ai.output.messages"]))
    assert (done["role"], done["parts"]) == ("assistant", [{"type": "text", "content": "the answer"}])
    tool = dict(traced.one("execute_tool").attributes or {})
    assert json.loads(str(tool["gen_ai.tool.call.arguments"])) == {"thought": "a thought, [redacted]"}
    assert tool["gen_ai.tool.call.result"] == answer["parts"][0]["response"]
    assert "planted" not in every_byte(traced)


@pytest.mark.parametrize("mode", ["NO_CONTENT", "true", "EVENT_ONLY"])
def test_other_modes_leave_spans_without_content(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    traced = capturing(scenario, monkeypatch, mode)
    scenario.script("main", lambda request: refuse(401, text="planted"))
    with pytest.raises(Exception):  # noqa: B017, PT011
        scenario.run(scenario.conversation(scenario.llm("main")), "the question")
    thinking(scenario)
    exported = every_byte(traced)
    for word in ("the question", "a thought", "the answer", "planted"):
        assert word not in exported


@pytest.mark.parametrize(
    ("mode", "told"),
    [("SPAN_ONLY", {"Mend [redacted]"}), ("NO_CONTENT", set[str]()), ("EVENT_ONLY", set[str]()), ("true", set[str]())],
)
def test_a_title_is_told_with_content_on_spans_and_never_else(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, mode: str, told: set[str]
) -> None:
    capturing(scenario, monkeypatch, mode)
    conversation = thinking(scenario)
    scenario.script("title", [said(f"Mend {KEY}")])
    conversation.generate_title(scenario.llm("title"))
    scenario.settle()
    assert KEY not in repr(scenario.receiver.bodies)
    assert {point.attributes[CONVERSATION_TITLE] for point in scenario.facts(CONVERSATION_TITLED.name)} == told


def test_a_secret_that_openhands_knows_is_taken_out(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = capturing(scenario, monkeypatch)
    scenario.script("main", [called("think", {"thought": "hush-hush and my-llm-key"}), said("hush-hush")])
    conversation = scenario.conversation(scenario.llm("main", api_key="my-llm-key"))
    conversation.update_secrets({"word": "hush-hush"})
    scenario.run(conversation, "say hush-hush")
    exported = every_byte(traced)
    assert "say [redacted]" in exported
    assert "hush" not in exported
    assert "my-llm-key" not in exported


def test_an_exceptions_message_is_content_too(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = capturing(scenario, monkeypatch)
    scenario.script("main", lambda request: refuse(401, text=f"no such key: {KEY}"))
    with pytest.raises(Exception):  # noqa: B017, PT011
        scenario.run(scenario.conversation(scenario.llm("main")))
    for span in (traced.one("chat"), traced.one("invoke_agent")):
        assert "no such key" in str(span.status.description)
    assert "planted" not in every_byte(traced)


def test_where_redaction_fails_nothing_is_exported(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Redaction, text: str, secrets: Any = ()) -> str:
        raise RuntimeError("planted")

    monkeypatch.setattr(Redaction, "text", broken)
    traced = capturing(scenario, monkeypatch)
    before = guard.error_counts().get("Spans.put", 0)
    thinking(scenario)
    assert guard.error_counts()["Spans.put"] > before
    assert len(traced.named("chat")) == 2
    exported = every_byte(traced)
    for word in ("the question", "a thought", "the answer", "planted", "gen_ai.input.messages"):
        assert word not in exported
    scenario.check()


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", "(" * 5000], ids=["syntax", "number", "depth"])
def test_a_pattern_that_is_none_captures_nothing_and_says_so(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, pattern: str
) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_REDACT", f"fine {pattern}")
    with caplog.at_level(logging.WARNING, "openhands_otel"):
        traced = capturing(scenario, monkeypatch)
    assert "OPENHANDS_OTEL_REDACT" in caplog.text
    thinking(scenario)
    assert len(traced.named("chat")) == 2
    assert "the question" not in every_byte(traced)


def test_a_pattern_of_ones_own_is_heeded(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_REDACT", r"ACME-\d+ the\squestion")
    traced = capturing(scenario, monkeypatch)
    thinking(scenario)
    assert "the question" not in every_byte(traced)
    assert "a thought" in every_byte(traced)


def test_nobody_else_hears_what_is_said(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = capturing(scenario, monkeypatch)
    heard: list[Event] = []
    unsubscribe = subscribe(heard.append, kinds=object)  # pyright: ignore[reportArgumentType]
    try:
        thinking(scenario)
    finally:
        unsubscribe()
    assert heard
    assert not [event for event in heard if isinstance(event, MessageCaptured)]
    scenario.settle()
    assert traced.named("chat")
    assert not [body for body in scenario.receiver.bodies if b"question" in body]
