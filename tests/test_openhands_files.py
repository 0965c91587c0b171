"""What OpenHands left on disk, read without it: where it lies, what stands in it, and what others put there.

``compat/test_openhands_files.py`` has the files that real releases write.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openhands_otel._internal.exact import ExactSum
from openhands_otel._internal.openhands_files.finding import default_roots
from openhands_otel._internal.openhands_files.reading import Reading, read
from openhands_otel._internal.openhands_files.state_file import SIZE_LIMIT

EXACT = 1e-9
NOW = 1_790_000_000.0
HOUR = 3600.0


def call(number: int, cost: float | None = 0.25, when: float = NOW, model: str = "openai/gpt-4o") -> dict[str, Any]:
    return {"number": number, "cost": cost, "when": when + number, "model": model}


def meter(calls: Iterable[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """As OpenHands writes it: a call without a price has no cost."""
    calls = list(calls)
    priced = [each for each in calls if each["cost"]]
    return {
        "model_name": "openai/gpt-4o",
        "accumulated_cost": sum(each["cost"] for each in priced),
        "costs": [{"model": each["model"], "cost": each["cost"], "timestamp": each["when"]} for each in priced],
        "token_usages": [
            {
                "model": each["model"],
                "prompt_tokens": 100 + each["number"],
                "completion_tokens": 10,
                "response_id": f"answer-{each['number']}",
            }
            for each in calls
        ],
        "response_latencies": [
            {"model": each["model"], "latency": 1.5, "response_id": f"answer-{each['number']}"} for each in calls
        ],
    } | more


def state(meters: dict[str, Any], identity: str | None = None) -> dict[str, Any]:
    return {
        "id": identity or str(uuid.uuid4()),
        "agent": {"kind": "Agent", "llm": {"model": "openai/gpt-4o", "usage_id": "agent"}},
        "execution_status": "finished",
        "stats": {"usage_to_metrics": meters},
    }


def write(folder: Path, found: Any, modified: float = NOW + HOUR) -> Path:
    """Put a conversation into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "base_state.json"
    path.write_bytes(found if isinstance(found, bytes) else json.dumps(found).encode())
    os.utime(path, (modified, modified))
    return path


def cost(reading: Reading, **keys: str) -> float:
    return ExactSum(
        part
        for row in reading.rows
        if all(row.keys.get(name) == value for name, value in keys.items())
        for part in row.amount.cost.parts
    ).value


def read_now(*roots: Path, **options: Any) -> Reading:
    return read(roots, now=NOW + 2 * HOUR, **options)


# ---------------------------------------------------------------- where it lies


def test_every_place_where_openhands_keeps_conversations(tmp_path: Path) -> None:
    home, here, named, server = (tmp_path / name for name in ("home", "here", "named", "server"))
    assert default_roots({}, home, here) == []
    canvas = [home / ".openhands" / "agent-canvas" / name for name in ("conversations", "dev_conversations")]
    ours = [*canvas, home / ".openhands" / "conversations", here / "workspace" / "conversations"]
    for folder in (*ours, named / "conversations", server, home / "mine"):
        folder.mkdir(parents=True)
    assert default_roots({}, home, here) == ours
    elsewhere = {"OPENHANDS_CONVERSATIONS_DIR": "~/mine", "OH_CONVERSATIONS_PATH": str(server)}
    assert default_roots(elsewhere, home, here) == [*canvas, home / "mine", server]
    assert default_roots({"OPENHANDS_PERSISTENCE_DIR": str(named)}, home, here)[2] == named / "conversations"


@pytest.mark.parametrize(
    "root",
    [".", "project", "project/conversations", "project/conversations/a", "project/conversations/a/base_state.json"],
)
def test_a_folder_at_any_depth(tmp_path: Path, root: str) -> None:
    write(tmp_path / "project" / "conversations" / "a", state({"agent": meter([call(1)])}))
    assert cost(read_now(tmp_path / root)) == 0.25


def test_two_ways_to_one_folder_count_once(tmp_path: Path) -> None:
    write(tmp_path / "real" / "a", state({"agent": meter([call(1)])}))
    write(tmp_path / "else" / "b", state({"agent": meter([call(2)])}))
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "c").symlink_to(tmp_path / "else" / "b")
    (tmp_path / "real" / "round").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "a" / "subagents").symlink_to(tmp_path / "real")
    reading = read_now(tmp_path / "link", tmp_path / "real", tmp_path / "real" / "a")
    assert cost(reading) == 0.5
    assert len(reading.conversations) == 2


def test_a_folder_that_is_none_is_said_to_be(tmp_path: Path) -> None:
    reading = read_now(tmp_path / "nowhere")
    assert reading.rows == []
    assert reading.skipped == [(tmp_path / "nowhere", "No such file or directory")]


def test_events_are_no_conversations_and_sub_agents_have_a_parent(tmp_path: Path) -> None:
    write(tmp_path / "a", state({"agent": meter([call(1)])}, identity="a"))
    write(tmp_path / "a" / "events" / "x", state({"agent": meter([call(2)])}))
    write(tmp_path / "a" / "subagents" / "b", state({"agent": meter([call(3)])}, identity="b"))
    write(tmp_path / "a" / "subagents" / "b" / "subagents" / "c", state({"agent": meter([call(4)])}, identity="c"))
    reading = read_now(tmp_path)
    parents = {name: about.parent_id for name, about in reading.conversations.items()}
    assert parents == {"a": None, "b": "a", "c": "b"}
    assert cost(reading, role="subagent") == 0.5
    assert cost(reading, role="agent") == 0.25


def test_the_id_is_written_as_telemetry_writes_it(tmp_path: Path) -> None:
    identity = uuid.uuid4()
    found = state({"agent": meter([call(1)])})
    del found["id"]
    write(tmp_path / identity.hex, found)
    assert list(read_now(tmp_path).conversations) == [str(identity)]


# ---------------------------------------------------------------- what stands in it


def test_a_call_has_its_time_model_tokens_and_seconds(tmp_path: Path) -> None:
    other = call(2, cost=0.5, model="gpt-4o-mini")
    write(tmp_path / "a", state({"agent": meter([call(1), other])}, identity="a"))
    first, second = sorted(read_now(tmp_path).rows, key=lambda row: row.amount.cost.value)
    assert (first.begin, first.end) == (NOW // 900 * 900, NOW // 900 * 900 + 900)
    same = {"conversation": "a", "usage_id": "agent", "role": "agent", "agent": "Agent"}
    assert first.keys == same | {"model": "gpt-4o", "provider": "openai"}
    assert second.keys == same | {"model": "gpt-4o-mini"}
    assert (first.amount.prompt_tokens, second.amount.prompt_tokens) == (101, 102)
    assert (first.amount.calls, first.amount.seconds.value, first.amount.unpriced_calls) == (1, 1.5, 0)
    assert first.amount.read_cost.value == first.amount.cost.value == 0.25


def test_releases_before_1_0_named_it_otherwise(tmp_path: Path) -> None:
    found = state({})
    found["stats"] = {"service_to_metrics": {"agent": meter([call(1)])}}
    found["agent"]["llm"]["service_id"] = found["agent"]["llm"].pop("usage_id")
    write(tmp_path / "a", found)
    assert cost(read_now(tmp_path), role="agent") == 0.25


def test_calls_without_a_price_are_unpriced_and_dated_by_those_with_one(tmp_path: Path) -> None:
    calls = [call(1), call(2, cost=None, when=NOW + HOUR, model="ollama/qwen"), call(3, when=NOW + HOUR)]
    write(tmp_path / "a", state({"agent": meter(calls)}), modified=NOW + HOUR)
    reading = read_now(tmp_path)
    free = next(row for row in reading.rows if row.keys["model"] == "qwen")
    assert (free.amount.calls, free.amount.unpriced_calls, free.amount.cost.value) == (1, 1, 0.0)
    assert free.begin is not None
    assert sum(row.amount.calls for row in reading.rows) == 3
    assert sum(row.amount.unpriced_calls for row in reading.rows) == 1


def test_a_price_that_some_calls_of_a_model_lack(tmp_path: Path) -> None:
    write(tmp_path / "a", state({"agent": meter([call(1), call(2, cost=None), call(3)])}))
    rows = read_now(tmp_path).rows
    assert sum(row.amount.calls for row in rows) == 3
    assert sum(row.amount.unpriced_calls for row in rows) == 1
    assert sum(row.amount.prompt_tokens for row in rows) == 101 + 102 + 103


def test_a_model_without_any_price_is_dated_by_what_came_of_its_answers(tmp_path: Path) -> None:
    calls = [call(number, cost=None, model="ollama/qwen") for number in (1, 2, 3)]
    write(tmp_path / "a", state({"agent": meter(calls)}), modified=NOW + HOUR)
    events = tmp_path / "a" / "events"
    events.mkdir()
    for number, when in enumerate((NOW - HOUR, NOW, NOW + HOUR)):
        event = events / f"event-0000{number}-{uuid.uuid4()}.json"
        event.write_text(json.dumps({"thought": "hm", "llm_response_id": f"answer-{number + 1}"}))
        os.utime(event, (when, when))
    reading = read_now(tmp_path)
    assert [(row.begin, row.amount.calls) for row in reading.rows] == [
        ((NOW + hours) // 900 * 900, 1) for hours in (-HOUR, 0, HOUR)
    ]
    assert [row.amount.calls for row in read_now(tmp_path, since=NOW).rows] == [1, 1]


def test_what_has_no_date_is_before_one(tmp_path: Path) -> None:
    found = meter([call(1)])
    found["costs"] += [{"model": "gpt-4o", "cost": 0.5}, {"model": "gpt-4o", "cost": 1.0, "timestamp": 1e12}]
    found["accumulated_cost"] = 1.75
    write(tmp_path / "a", state({"agent": found}), modified=NOW + HOUR)
    event = tmp_path / "a" / "events" / "event-00000-x.json"
    event.parent.mkdir()
    event.touch()
    os.utime(event, (NOW, NOW))
    reading = read_now(tmp_path)
    assert cost(reading) == 1.75
    assert [(row.begin, row.end, row.amount.cost.value) for row in reading.rows if row.begin is None] == [
        (None, NOW + HOUR, 1.5)
    ]
    # It may be older than what is asked for; where the conversation itself is younger, it cannot be.
    assert cost(read_now(tmp_path, since=NOW + 1)) == 0.25
    assert cost(read_now(tmp_path, since=NOW)) == 1.75
    assert cost(read_now(tmp_path, until=NOW + HOUR)) == 0.25


def test_a_total_above_the_list_is_a_row_and_one_below_it_is_not(tmp_path: Path) -> None:
    write(tmp_path / "a", state({"agent": meter([call(1)], accumulated_cost=1.0)}))
    write(tmp_path / "b", state({"agent": meter([call(2)], accumulated_cost=0.1)}))
    write(tmp_path / "c", state({"agent": meter([], accumulated_cost=0.125)}))
    reading = read_now(tmp_path)
    assert cost(reading, cost_source="unlisted") == 0.75 + 0.125
    assert cost(reading) == 1.0 + 0.25 + 0.125


def test_sums_of_floats_make_no_difference(tmp_path: Path) -> None:
    calls = [call(number, cost=0.1 + number * 1e-7) for number in range(1000)]
    write(tmp_path / "a", state({"agent": meter(calls)}))
    assert not [row for row in read_now(tmp_path).rows if row.keys.get("cost_source")]


def test_a_period(tmp_path: Path) -> None:
    calls = [call(number, when=NOW + number * HOUR) for number in range(-3, 4)]
    write(tmp_path / "a", state({"agent": meter(calls)}), modified=NOW + 3 * HOUR)
    write(tmp_path / "b", state({"agent": meter([call(9, when=NOW - HOUR * 50)])}), modified=NOW - HOUR * 40)
    assert cost(read_now(tmp_path)) == 2.0
    assert cost(read_now(tmp_path, since=NOW)) == 1.0
    assert cost(read_now(tmp_path, until=NOW)) == 1.0
    assert cost(read_now(tmp_path, since=NOW - HOUR - 1, until=NOW + 1)) == 0.5
    # What was last written before is not even read.
    assert list(read_now(tmp_path, since=NOW).conversations) == [
        about.id for about in read_now(tmp_path / "a").conversations.values()
    ]


# ---------------------------------------------------------------- doubles


def test_a_copy_of_a_difference_counts_once(tmp_path: Path) -> None:
    shared = meter([call(1)], accumulated_cost=1.0)
    write(tmp_path / "a", state({"agent": shared, "again": shared}))
    write(tmp_path / "b", state({"agent": meter([call(1), call(2)], accumulated_cost=1.25)}))
    write(tmp_path / "a" / "subagents" / "s", state({"agent": meter([call(3)], accumulated_cost=0.5)}))
    found = state({"agent": shared, "task:1": meter([call(3)], accumulated_cost=0.5)})
    write(tmp_path / "c", found)
    assert cost(read_now(tmp_path)) == pytest.approx(1.25 + 0.5, abs=EXACT)


def test_a_copied_total_without_a_list_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "a", state({"agent": meter([], accumulated_cost=1.0)}))
    write(tmp_path / "b", state({"agent": meter([], accumulated_cost=1.0)}))
    write(tmp_path / "c", state({"agent": meter([], accumulated_cost=2.0)}))
    assert cost(read_now(tmp_path)) == 3.0


def test_a_backup_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "today" / "a", state({"agent": meter([call(1), call(2)])}, identity="a"))
    write(tmp_path / "backup" / "a", state({"agent": meter([call(1)])}, identity="a"), modified=NOW)
    reading = read_now(tmp_path)
    assert cost(reading) == 0.5
    assert reading.conversations["a"].path == tmp_path / "today" / "a" / "base_state.json"


def test_answers_with_one_id_are_not_one(tmp_path: Path) -> None:
    """Local servers give every answer the same; an ACP agent's turns all have the session's."""
    found = meter([call(number) for number in range(3)])
    for number in range(3):
        found["token_usages"][number]["response_id"] = found["response_latencies"][number]["response_id"] = "chatcmpl-1"
        found["token_usages"][number]["prompt_tokens"] = 100
        found["response_latencies"][number]["latency"] = 1.5 + number / 7
    write(tmp_path / "a", state({"agent": found}))
    assert sum(row.amount.prompt_tokens for row in read_now(tmp_path).rows) == 300
    assert sum(row.amount.calls for row in read_now(tmp_path).rows) == 3


@pytest.mark.parametrize("written", [("response_latencies",), ("response_latencies", "costs")], ids=["time", "cost"])
@pytest.mark.parametrize("halves", [("a",), ("b",), ("a", "b"), ("a", "b", "c")])
def test_an_answer_counts_once_also_where_a_file_was_saved_before_all_of_it_was_there(
    written: tuple[str, ...], halves: tuple[str, ...], tmp_path: Path
) -> None:
    """Conversations of several threads share an LLM, and each is saved when it changes itself."""
    whole = meter([call(1), call(2)])
    half = whole | {name: whole[name][:1] for name in ("response_latencies", "costs", "token_usages")}
    half |= {name: whole[name] for name in written}
    half["accumulated_cost"] = sum(each["cost"] for each in half["costs"])
    for name in ("a", "b", "c"):
        write(tmp_path / name, state({"agent": half if name in halves else whole}, identity=name))
    rows = read_now(tmp_path).rows
    told = set(halves) != {"a", "b", "c"}
    assert sum(row.amount.calls for row in rows) == 2
    assert sum(row.amount.seconds.value for row in rows) == 3.0
    assert sum(row.amount.prompt_tokens for row in rows) == 101 + 102 * told
    assert sum(row.amount.cost.value for row in rows) == 0.25 + 0.25 * (told or "costs" in written)


# ---------------------------------------------------------------- what we counted


def test_only_what_lies_outside_of_presence(tmp_path: Path) -> None:
    calls = [call(number, when=NOW + number * HOUR) for number in range(5)]
    write(tmp_path / "a", state({"agent": meter(calls)}, identity="a"), modified=NOW + 5 * HOUR)
    spans = {"a": [(NOW - 5, NOW + 5), (NOW + 3 * HOUR, NOW + 3 * HOUR + 3)]}
    assert cost(read_now(tmp_path, presence=spans)) == 0.75
    assert cost(read_now(tmp_path, presence={"b": [(0.0, 2 * NOW)]})) == 1.25
    assert cost(read_now(tmp_path, presence={"a": []})) == 1.25


def test_a_parents_copy_of_what_was_counted_under_the_sub_agent(tmp_path: Path) -> None:
    write(tmp_path / "a", state({"agent": meter([call(1)]), "task:1": meter([call(2)])}, identity="a"))
    write(tmp_path / "a" / "subagents" / "s", state({"agent": meter([call(2)])}, identity="s"))
    assert cost(read_now(tmp_path, presence={"s": [(NOW, NOW + 9)]})) == 0.25
    assert cost(read_now(tmp_path, presence={"a": [(NOW, NOW + 9)]})) == 0.0


# ---------------------------------------------------------------- what others put there


BAD: dict[str, bytes] = {
    "empty": b"",
    "half": json.dumps(state({"agent": meter([call(1)])})).encode()[:-40],
    "deep": b"[" * 200_000,
    "deep stats": b'{"stats": {"usage_to_metrics": ' + b'{"a": ' * 100_000,
    "a list": b"[1, 2]",
    "a number": b"1" * 5000,
    "no stats": b'{"id": "x"}',
    "odd stats": b'{"stats": {"usage_to_metrics": [1]}}',
    "not UTF-8": b"\xff\xfe{}\x80",
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_none_is_skipped_and_the_rest_read(tmp_path: Path, name: str) -> None:
    bad = write(tmp_path / "bad", BAD[name])
    write(tmp_path / "good", state({"agent": meter([call(1)])}))
    reading = read_now(tmp_path)
    assert cost(reading) == 0.25
    assert [path for path, _ in reading.skipped] == [bad]
    assert all("\n" not in reason for _, reason in reading.skipped)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(SIZE_LIMIT + 1)


OBSTACLES: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a dangling link": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a huge file": _huge,
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_is_no_plain_file_is_skipped_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "bad").mkdir()
    OBSTACLES[name](tmp_path / "bad" / "base_state.json")
    write(tmp_path / "good", state({"agent": meter([call(1)])}))
    reading = read_now(tmp_path)
    assert cost(reading) == 0.25
    assert [path for path, _ in reading.skipped] == [tmp_path / "bad" / "base_state.json"]


VALUES: list[Any] = [
    *(None, True, "x", "", [], {}, [1], -1, 0, 10**400, 1e308, -1e308, 1e-320, float("nan"), float("inf")),
    *("\ud800", "\x1b[31mred", {"a": 1}, 10**12, NOW, 2.5),
]


def _places(found: Any, path: tuple[Any, ...] = ()) -> Iterable[tuple[Any, ...]]:
    if path:
        yield path
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(found, dict):
        items = found.items()
    elif isinstance(found, list):
        items = enumerate(found)
    for key, value in items:
        yield from _places(value, (*path, key))


TRUE = state({"agent": meter([call(1), call(2)]), "condenser": meter([call(3), call(4, cost=None)])}, identity="a")
PLACES = list(_places(TRUE))


@given(
    changes=st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(VALUES)), max_size=4),
    cut=st.none() | st.integers(0, 2000),
)
@settings(max_examples=150)
def test_no_file_is_fatal_and_every_row_is_one(changes: list[tuple[tuple[Any, ...], Any]], cut: int | None) -> None:
    found = copy.deepcopy(TRUE)
    for place, value in changes:
        target: Any = found
        try:
            for key in place[:-1]:
                target = target[key]
            target[place[-1]] = copy.deepcopy(value)
        except (TypeError, IndexError, KeyError, AttributeError):
            continue
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, "bad"), json.dumps(found).encode()[:cut])
        write(Path(folder, "good"), state({"agent": meter([call(9)])}, identity="good"))
        reading = read_now(Path(folder))
        assert cost(reading, conversation="good") == 0.25
        for row in reading.rows:
            assert row.amount.cost.value >= 0
            assert row.amount.read_cost.value == row.amount.cost.value
            assert row.end <= NOW + 4 * 86_400
            assert all(value and value.encode() for value in row.keys.values())
        json.dumps([[str(path), reason] for path, reason in reading.skipped])


@given(
    lists=st.lists(st.lists(st.integers(0, 12), max_size=8), min_size=1, max_size=6),
    names=st.lists(st.sampled_from(["agent", "condenser", "task:1", "delegate:x"]), min_size=6, max_size=6),
    nested=st.booleans(),
)
@settings(max_examples=80)
def test_however_calls_are_copied_each_counts_once(lists: list[list[int]], names: list[str], nested: bool) -> None:
    """Any file may hold any calls, some of them several times."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for number, (numbers, name) in enumerate(zip(lists, names, strict=False)):
            place = place / "subagents" / str(number) if nested and number else Path(folder, str(number))
            write(place, state({name: meter(call(each, cost=0.1 * (each + 1)) for each in numbers)}))
        reading = read_now(Path(folder))
    distinct = {each for numbers in lists for each in numbers}
    assert cost(reading) == pytest.approx(sum(0.1 * (each + 1) for each in distinct), abs=EXACT)
    assert sum(row.amount.calls for row in reading.rows) == len(distinct)
    assert sum(row.amount.prompt_tokens for row in reading.rows) == sum(100 + each for each in distinct)


def test_reading_imports_neither_openhands_nor_what_is_slow(tmp_path: Path) -> None:
    write(tmp_path / "a", state({"agent": meter([call(1)])}))
    program = (
        "import sys, pathlib; from openhands_otel._internal.openhands_files.reading import read; "
        "print(len(read([pathlib.Path(sys.argv[1])]).rows), *{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True, timeout=100
    )
    rows, *modules = done.stdout.split()
    assert rows == "1"
    assert not {"openhands", "litellm", "httpx", "google"} & set(modules)
