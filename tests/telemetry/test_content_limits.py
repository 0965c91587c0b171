"""What of a content may leave: without secrets, within limits, all of it or nothing."""

from __future__ import annotations

import pytest

from openhands_otel._internal.content import (
    Content,
    Message,
    Reasoning,
    Text,
    TitleCaptured,
    ToolAnswer,
    ToolRequest,
)
from openhands_otel._internal.labels import VALUE_LIMIT
from openhands_otel._internal.tracing.content_limits import MESSAGES_LIMIT, TEXT_LIMIT, redacted, redacted_title
from openhands_otel._internal.tracing.redaction import REDACTED, Redaction

KEY = "sk-planted4711planted4711"
REDACTION = Redaction(environ={})


def test_every_text_is_redacted() -> None:
    parts = (Text(KEY), Reasoning(KEY), ToolRequest("1", KEY, {"a": [KEY]}), ToolAnswer("1", KEY))
    message = Message("user", parts)
    said = redacted(Content((KEY,), (message,), (message,), {KEY: {"x": KEY}}, KEY, KEY), REDACTION).content
    clean = Message(
        "user",
        (Text(REDACTED), Reasoning(REDACTED), ToolRequest("1", REDACTED, {"a": [REDACTED]}), ToolAnswer("1", REDACTED)),
    )
    assert said == Content((REDACTED,), (clean,), (clean,), {REDACTED: {"x": REDACTED}}, REDACTED, REDACTED)


def test_a_value_is_redacted_by_its_name() -> None:
    said = redacted(Content(arguments={"password": "hm", "n": 1, "ok": True, "api_key": {"a": 1}}), REDACTION)
    assert said.content.arguments == {"password": REDACTED, "n": 1, "ok": True, "api_key": REDACTED}


def test_a_number_that_is_a_secret_is_taken_out() -> None:
    content = Content(arguments={"pin": 47110815, "n": 4711}, secrets=frozenset({"47110815"}))
    assert redacted(content, REDACTION).content.arguments == {"pin": REDACTED, "n": 4711}


def test_what_is_too_long_or_too_deep_or_no_json_is_left_out_and_never_cut() -> None:
    deep: object = "planted"
    for _ in range(50):
        deep = [deep]
    said = redacted(Content(result="a" * TEXT_LIMIT + "b", arguments=[deep, {1, 2}, b"planted"]), REDACTION).content
    assert said.result == f"[left out: {TEXT_LIMIT + 1} characters]"
    assert "planted" not in str(said.arguments)
    assert "left out" in str(said.arguments)


def test_the_newest_messages_have_room_and_the_others_are_counted() -> None:
    each = TEXT_LIMIT // 2
    messages = tuple(Message("user", (Text(f"{number:02}" + "x" * (each - 2)),)) for number in range(20))
    said = redacted(Content(input=messages), REDACTION)
    assert len(said.content.input) == MESSAGES_LIMIT // each
    assert said.content.input[-1] == messages[-1]
    assert said.left_out == 20 - len(said.content.input)


def test_a_redaction_that_fails_leaves_nothing() -> None:
    class Broken(Redaction):
        def text(self, text: str, secrets: object = ()) -> str:
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError):
        redacted(Content(system=("fine",)), Broken())


def test_content_does_not_show_itself() -> None:
    assert "planted" not in repr(Content(system=("planted",), input=(Message("user", (Text("planted"),)),)))


@pytest.mark.parametrize(
    ("title", "left"),
    [
        ("Mend the login", "Mend the login"),
        (f"Use {KEY} here", f"Use {REDACTED} here"),
        ("Say tea-4711 aloud", f"Say {REDACTED} aloud"),
        pytest.param(f"Use {KEY[:6]}\u200b{KEY[6:]} here", f"Use {REDACTED} here", id="a key with what hides in it"),
        pytest.param(f"Use \x1b[1m{KEY[:6]}\x1b[0m{KEY[6:]}\nhere", f"Use {REDACTED} here", id="coloured, two lines"),
        pytest.param("\u202e\r\n", "", id="nothing to show"),
        pytest.param("a" * 300, "a" * VALUE_LIMIT, id="long"),
        pytest.param("b" * 190 + f" {KEY}", "b" * 190 + " [redacted", id="a key where it is cut"),
        pytest.param("a" * 5000, "[left out: 5000 characters]", id="a text"),
    ],
)
def test_a_title_is_redacted_before_it_is_cut(title: str, left: str) -> None:
    captured = TitleCaptured(1, "c", title, frozenset({"tea-4711"}))
    assert redacted_title(captured, REDACTION) == left
    assert "planted" not in repr(captured)
