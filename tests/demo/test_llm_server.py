"""The scripted provider plays what it is told, and real OpenHands arrives at the provider's own bill."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request as HTTPRequest
from urllib.request import urlopen

import pytest

from openhands_otel._internal.demo.answers import Answer, LLMRequest, ToolCall, Usage, call, refuse, say
from openhands_otel._internal.demo.bill import Bill
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel._internal.demo.pricing import MODELS, price

CENT_FRACTION = 1e-9
USAGE = Usage(input=1200, cached=1024, output=90, reasoning=64)


def post(url: str, body: Any, method: str = "POST", **headers: str) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urlopen(HTTPRequest(url, data, headers, method=method), timeout=100) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        return error.code, json.load(error)


def ask(server: LLMServer, text: str = "hello", model: str = "gpt-4o", **headers: str) -> tuple[int, dict[str, Any]]:
    messages = [{"role": "user", "content": text}]
    return post(f"{server.base_url()}/chat/completions", {"model": model, "messages": messages}, **headers)


def said(reply: tuple[int, dict[str, Any]]) -> str:
    return reply[1]["choices"][0]["message"]["content"]


def ask_llm(llm: Any, **options: Any) -> Any:
    from openhands.sdk import Message, TextContent

    return llm.completion([Message(role="user", content=[TextContent(text="hello")])], **options)


def assert_totals_equal(metrics: Any, bill: Bill) -> None:
    tokens = metrics.accumulated_token_usage
    assert metrics.accumulated_cost == pytest.approx(bill.total, abs=CENT_FRACTION)
    assert (
        Usage(
            input=tokens.prompt_tokens,
            cached=tokens.cache_read_tokens,
            output=tokens.completion_tokens,
            reasoning=tokens.reasoning_tokens,
        )
        == bill.tokens
    )


# ---------------------------------------------------------------- prices


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("usage", [USAGE, Usage(input=7, output=3), Usage(input=100_000, cached=99_968, output=1)])
def test_the_price_list_is_the_one_litellm_has(model: str, usage: Usage) -> None:
    import litellm

    response = litellm.ModelResponse(
        model=MODELS[model].dated_name,
        usage=litellm.Usage(
            prompt_tokens=usage.input,
            completion_tokens=usage.output,
            prompt_tokens_details={"cached_tokens": usage.cached},
            completion_tokens_details={"reasoning_tokens": usage.reasoning},
        ),
    )

    assert price(model, usage) == pytest.approx(litellm.completion_cost(response), abs=CENT_FRACTION)


# ---------------------------------------------------------------- scripts


def test_a_script_is_chosen_by_url_key_marker_or_model(llm_server: LLMServer) -> None:
    for name in ("by-url", "by-key", "by-marker", "by-model"):
        llm_server.script(name, [say(name)])
    prompt = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}

    assert said(post(f"{llm_server.base_url('by-url')}/chat/completions", prompt)) == "by-url"
    assert said(ask(llm_server, authorization="Bearer by-key:17")) == "by-key"
    assert said(ask(llm_server, "please [[script:by-marker]]")) == "by-marker"
    assert said(ask(llm_server, model="by-model")) == "by-model"
    assert said(ask(llm_server)) == "Done."
    assert [entry.script for entry in llm_server.bill.entries] == [
        "by-url",
        "by-key",
        "by-marker",
        "by-model",
        "default",
    ]


def test_each_session_and_each_key_starts_a_script_from_its_first_answer(llm_server: LLMServer) -> None:
    llm_server.script("talk", [say("first"), say("second")])
    session_a = {"authorization": "Bearer talk", "x-litellm-session-id": "a"}
    session_b = {"authorization": "Bearer talk", "x-litellm-session-id": "b"}

    assert [said(ask(llm_server, **session_a)) for _ in range(2)] == ["first", "second"]
    assert said(ask(llm_server, **session_b)) == "first"
    assert said(ask(llm_server, authorization="Bearer talk:other")) == "first"
    assert llm_server.bill.of_session("a").total == pytest.approx(llm_server.bill.total / 2)


def test_a_script_that_is_over_or_unknown_says_so_and_bills_nothing(llm_server: LLMServer) -> None:
    llm_server.script("short", [])

    over = ask(llm_server, authorization="Bearer short")
    unknown = post(f"{llm_server.base_url('nobody')}/chat/completions", {"model": "gpt-4o", "messages": []})

    assert over[0] == 400
    assert "script 'short' has no answer left" in over[1]["error"]["message"]
    assert unknown[0] == 404
    assert "no script 'nobody'" in unknown[1]["error"]["message"]
    assert llm_server.bill.entries == ()


def test_a_script_may_be_a_function_of_the_request(llm_server: LLMServer) -> None:
    def echo(request: LLMRequest) -> Answer:
        return say(f"{request.turn} {request.api} {request.session_id} {request.body['messages'][-1]['content']}")

    llm_server.script("default", echo)

    ask(llm_server, "one", **{"x-litellm-session-id": "s"})
    assert said(ask(llm_server, "two", **{"x-litellm-session-id": "s"})) == "1 chat s two"


def test_usage_that_no_script_names_is_measured_and_repeated_prompts_come_from_the_cache(llm_server: LLMServer) -> None:
    long_prompt = "x" * 8000

    for text in (long_prompt, long_prompt + "y" * 4000, "z" + long_prompt):
        ask(llm_server, text)

    first, longer, other = (entry.usage for entry in llm_server.bill.entries)
    assert first.cached == 0
    assert first.input >= 2000
    assert longer.input >= first.input + 1000
    assert 0 <= first.input - longer.cached < 2 * 128
    assert other.cached == 0


def test_hidden_reasoning_is_measured_as_part_of_the_output(llm_server: LLMServer) -> None:
    llm_server.script("default", [say("x" * 40, reasoning=500)])

    ask(llm_server)

    assert llm_server.bill.tokens.output == 510
    assert llm_server.bill.tokens.reasoning == 500


@pytest.mark.parametrize("body", [b"", b"{not json", b"[1]"])
def test_a_malformed_body_is_refused_and_not_billed(llm_server: LLMServer, body: bytes) -> None:
    status, reply = post(f"{llm_server.base_url()}/chat/completions", body)

    assert status == 400
    assert "not a JSON object" in reply["error"]["message"]
    assert llm_server.bill.entries == ()


def test_many_conversations_at_once_each_get_their_own_script_and_an_exact_bill(llm_server: LLMServer) -> None:
    turns = 20
    heard: dict[str, list[str]] = {}

    def talk(name: str) -> None:
        headers = {"authorization": f"Bearer {name}"}
        heard[name] = [said(ask(llm_server, **headers)) for _ in range(turns)]

    names = [f"c{number}" for number in range(8)]
    for name in names:
        llm_server.script(name, [say(f"{name}.{turn}", usage=USAGE) for turn in range(turns)])
    threads = [threading.Thread(target=talk, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)

    assert heard == {name: [f"{name}.{turn}" for turn in range(turns)] for name in names}
    assert llm_server.bill.total == pytest.approx(160 * (price("gpt-4o", USAGE) or 0), abs=CENT_FRACTION)
    assert sorted(entry.request for entry in llm_server.bill.entries) == list(range(160))


# ---------------------------------------------------------------- through the real LLM class


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4o-mini", "gpt-5-mini"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_llm_class_books_what_was_billed(
    llm_server: LLMServer, make_llm: Callable[..., Any], model: str, stream: bool
) -> None:
    from openhands.sdk import Message, TextContent

    llm_server.script("two", [say("A sentence that is long enough for pieces.", usage=USAGE), say("B", usage=USAGE)])
    llm = make_llm("two", model=model, stream=stream)
    pieces: list[Any] = []
    options = {"on_token": pieces.append} if stream else {}
    message = Message(role="user", content=[TextContent(text="hello")])
    answer = llm.responses if llm.uses_responses_api() else llm.completion

    replies = [answer([message], **options) for _ in range(2)]

    assert replies[0].message.content[0].text == "A sentence that is long enough for pieces."
    assert bool(pieces) == stream
    assert_totals_equal(llm.metrics, llm_server.bill)
    assert len(llm.metrics.costs) == 2


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5-mini"])
@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_arrive_with_their_arguments(
    llm_server: LLMServer, make_llm: Callable[..., Any], model: str, stream: bool
) -> None:
    from openhands.sdk import Message, TextContent

    arguments = {"command": "echo 'a quoted \"word\"'", "timeout": 3.5}
    llm_server.script("call", [Answer(tool_calls=(ToolCall(name="terminal", arguments=arguments),) * 2, usage=USAGE)])
    llm = make_llm("call", model=model, stream=stream)
    options = {"on_token": lambda _: None} if stream else {}
    answer = llm.responses if llm.uses_responses_api() else llm.completion

    reply = answer([Message(role="user", content=[TextContent(text="hello")])], **options)

    calls = reply.message.tool_calls
    assert [(tool_call.name, json.loads(tool_call.arguments)) for tool_call in calls] == [("terminal", arguments)] * 2


@pytest.mark.parametrize("status", [429, 500])
def test_a_refused_request_is_retried_and_billed_once(
    llm_server: LLMServer, make_llm: Callable[..., Any], status: int
) -> None:
    llm_server.script("flaky", [refuse(status), say("at last", usage=USAGE)])
    llm = make_llm("flaky", num_retries=2)

    ask_llm(llm)

    assert llm_server.provider.requests == 2
    assert len(llm_server.bill.entries) == 1
    assert_totals_equal(llm.metrics, llm_server.bill)


def test_a_wrong_key_is_refused_without_a_retry(llm_server: LLMServer, make_llm: Callable[..., Any]) -> None:
    from openhands.sdk.llm.exceptions import LLMAuthenticationError

    llm_server.script("locked", [refuse(401)])

    with pytest.raises(LLMAuthenticationError):
        ask_llm(make_llm("locked"))
    assert llm_server.bill.entries == ()


def test_empty_choices_are_billed_and_booked_once_for_each_try(
    llm_server: LLMServer, make_llm: Callable[..., Any]
) -> None:
    llm_server.script("hollow", [Answer(empty=True, usage=USAGE), say("full", usage=USAGE)])
    llm = make_llm("hollow", num_retries=2)

    ask_llm(llm)

    assert len(llm_server.bill.entries) == 2
    assert_totals_equal(llm.metrics, llm_server.bill)


def test_a_cost_in_the_response_header_is_what_openhands_adds(
    llm_server: LLMServer, make_llm: Callable[..., Any]
) -> None:
    llm_server.script("dear", [say("that was dear", usage=USAGE, cost=0.5)])
    llm = make_llm("dear")

    ask_llm(llm)

    assert [cost.cost for cost in llm.metrics.costs] == [0.5]
    assert_totals_equal(llm.metrics, llm_server.bill)


def test_a_model_without_a_price_has_tokens_and_no_cost(llm_server: LLMServer, make_llm: Callable[..., Any]) -> None:
    llm_server.script("free", [say("who knows", usage=USAGE)])
    llm = make_llm("free", model="model-without-price")

    with pytest.warns(UserWarning, match="Cost calculation failed"):
        ask_llm(llm)

    assert llm_server.bill.entries[0].cost is None
    assert llm.metrics.costs == []
    assert_totals_equal(llm.metrics, llm_server.bill)


def test_an_answer_without_usage_is_billed_though_openhands_cannot_see_it(
    llm_server: LLMServer, make_llm: Callable[..., Any]
) -> None:
    llm_server.script("silent", [say("ok", usage=USAGE, usage_sent=False)])
    llm = make_llm("silent")

    ask_llm(llm)

    assert llm_server.bill.total == pytest.approx(price("gpt-4o", USAGE))
    assert llm.metrics.token_usages == []


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_takes_as_long_as_its_script_says(
    llm_server: LLMServer, make_llm: Callable[..., Any], stream: bool
) -> None:
    llm_server.script("slow", [say("a text of some length, in pieces", usage=USAGE, delay=0.2, stream_time=0.2)])
    llm = make_llm("slow", stream=stream)
    start = time.monotonic()

    ask_llm(llm, **({"on_token": lambda _: None} if stream else {}))

    assert time.monotonic() - start >= (0.35 if stream else 0.2)


# ---------------------------------------------------------------- a real conversation


def test_a_real_conversation_costs_what_the_provider_billed(
    llm_server: LLMServer,
    make_llm: Callable[..., Any],
    make_agent: Callable[..., Any],
    make_conversation: Callable[..., Any],
    tmp_path: Any,
) -> None:
    note = tmp_path / "workspace" / "note.txt"
    llm_server.script(
        "work",
        [
            call("terminal", {"command": "echo $((6 * 7)) > answer.txt && cat answer.txt"}),
            call("file_editor", {"command": "create", "path": str(note), "file_text": "the answer is 42\n"}),
            refuse(429),
            call("finish", {"message": "There it is."}, usage=Usage(input=9000, cached=8192, output=50, reasoning=30)),
        ],
    )
    conversation = make_conversation(make_agent(make_llm("work", num_retries=2)))

    conversation.send_message("Write the answer into a file.")
    conversation.run()

    assert (tmp_path / "workspace" / "answer.txt").read_text() == "42\n"
    assert note.read_text() == "the answer is 42\n"
    assert conversation.state.execution_status.value == "finished"
    assert len(llm_server.bill.entries) == 3
    assert {entry.session_id for entry in llm_server.bill.entries} == {str(conversation.id)}
    assert_totals_equal(conversation.conversation_stats.get_combined_metrics(), llm_server.bill)


# ---------------------------------------------------------------- life of the server


def test_a_stopped_server_answers_nobody_not_even_on_an_open_connection() -> None:
    from http.client import HTTPConnection, HTTPException

    with LLMServer() as server:
        connection = HTTPConnection(server.url.removeprefix("http://"), timeout=100)
        connection.request("GET", "/bill")
        connection.getresponse().read()

    connection.auto_open = 0
    with suppress(OSError):
        connection.request("GET", "/bill")
    with pytest.raises((HTTPException, OSError)):
        connection.getresponse()


@pytest.fixture
def server_process() -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    command = [sys.executable, "-m", "openhands_otel._internal.demo.llm_server", "--ready-json", "--stop-on-eof"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def test_it_runs_as_a_process_that_takes_scripts_and_tells_its_bill_over_http(
    server_process: tuple[subprocess.Popen[bytes], dict[str, Any]],
) -> None:
    process, ready = server_process
    answers = [say("hello yourself", usage=USAGE).model_dump()]

    assert post(f"{ready['url']}/scripts/hello", answers, method="PUT") == (200, {"answers": 1})
    assert post(f"{ready['url']}/scripts/bad", [{"txt": "misspelt"}], method="PUT")[0] == 400
    prompt = {"model": "gpt-4o", "messages": []}
    assert said(post(f"{ready['url']}/s/hello/v1/chat/completions", prompt)) == "hello yourself"
    with urlopen(f"{ready['url']}/bill", timeout=100) as response:
        bill = json.load(response)

    assert ready["pid"] == process.pid
    assert bill["total"] == pytest.approx(price("gpt-4o", USAGE), abs=CENT_FRACTION)
    assert bill["tokens"] == USAGE.model_dump()
    assert bill["entries"][0]["script"] == "hello"
    assert abs(time.time_ns() - bill["entries"][0]["at"]) < 60e9


def test_the_process_ends_with_its_parent_or_when_told_to(
    server_process: tuple[subprocess.Popen[bytes], dict[str, Any]],
) -> None:
    process, _ = server_process
    assert process.stdin is not None

    process.stdin.close()

    assert process.wait(timeout=100) == 0
