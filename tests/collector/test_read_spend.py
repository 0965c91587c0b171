"""What OpenHands' own files say, imported into a viewer: marked, replaced when it comes again, and gone where a process
tells of the same time."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from viewer_process import Viewer, running_viewer

from openhands_folder import Call, write_conversation
from openhands_otel import semconv
from openhands_otel._internal.cli import main
from openhands_otel._internal.collector.archive import reading, schema
from openhands_otel._internal.collector.archive import spend as spend_rows
from openhands_otel._internal.collector.archive.spend import ArchiveQuestion, Present
from openhands_otel._internal.spend.handover import IMPORT_LIMIT, Handover, ReadConversation, ReadRow
from openhands_otel.stats import Spend
from otlp_sender import Sender

from .held import HeldStore

QUARTER = 900
NOW = time.time() // QUARTER * QUARTER - 40 * QUARTER
"""Ten hours ago, a full quarter-hour."""


def import_(viewer: Viewer, folder: Path, *more: str) -> int:
    return main(["import", "--openhands", str(folder), "--endpoint", viewer.url, *more])


def spend(viewer: Viewer, **query: Any) -> Spend:
    response = viewer.http.get("/api/v1/spend", params={"timezone": "UTC", **query})
    return Spend.model_validate_json(response.raise_for_status().content)


def by(viewer: Viewer, name: str) -> dict[str, float]:
    return {group.keys.get(name, ""): group.accumulated_cost for group in spend(viewer, by=name).groups}


def tell(viewer: Viewer, conversation: str, cost: float, at: float) -> None:
    """As an instrumented process does, from a minute before."""
    sender = Sender("live", start=int((at - 60) * 1e9))
    viewer.send(sender.spend(cost, at=int(at * 1e9)).converse(conversation, cost, at=int(at * 1e9)))


def test_what_was_read_counts_once_however_often_it_comes_and_is_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "history.sqlite3"
    first = write_conversation(tmp_path / "all" / "a", Call(NOW, 0.5), Call(NOW + 3 * QUARTER, 0.25, "openai/gpt-4o"))
    second = write_conversation(tmp_path / "all" / "b", Call(NOW, 2.0))
    with running_viewer(database=database) as viewer:
        for _ in range(2):
            assert import_(viewer, tmp_path / "all") == 0
            found = spend(viewer)
            assert found.total.accumulated_cost == found.total.read_cost == pytest.approx(2.75)
            assert found.total.llm_calls == 3
        assert by(viewer, "conversation") == {first: 0.75, second: 2.0}
        assert by(viewer, "model") == {"gpt-5": 2.5, "gpt-4o": 0.25}
        assert spend(viewer, since=NOW + QUARTER).total.accumulated_cost == 0.25
    assert "$2.7500 of 3 calls in 2 conversations" in capsys.readouterr().out
    with running_viewer(database=database) as viewer:
        assert spend(viewer).total.read_cost == pytest.approx(2.75)
        tell(viewer, "another", 4.0, NOW)
        found = spend(viewer)
        assert (found.total.accumulated_cost, found.total.read_cost) == (pytest.approx(6.75), pytest.approx(2.75))
        assert sum(by(viewer, "conversation").values()) == pytest.approx(6.75)
        assert sum(by(viewer, "service").values()) == pytest.approx(6.75)


def test_what_is_of_1970_is_imported_with_the_rest(tmp_path: Path) -> None:
    """A machine that has lost its clock, and archives that were made without times, leave files of the first minute."""
    write_conversation(tmp_path / "all" / "a", Call(0.0, 0.5))
    write_conversation(tmp_path / "all" / "b", Call(NOW, 2.0))
    wiped = write_conversation(tmp_path / "all" / "c", Call(NOW, 0.25))
    (state,) = (tmp_path / "all" / "c" / wiped.replace("-", "")).iterdir()
    state.write_text(state.read_text().replace(f'"timestamp": {NOW}', '"timestamp": null'))
    os.utime(state, (-5, -5))
    with running_viewer() as viewer:
        for _ in range(2):
            assert import_(viewer, tmp_path / "all") == 0
            assert spend(viewer).total.accumulated_cost == pytest.approx(2.75)
            first, last = (group.keys["day"] for group in spend(viewer, by="day").groups)
            # What is older than the viewer keeps dates for loses its own when the viewer next looks.
            assert first == "1970-01-01" or first.startswith("before")
            assert last == time.strftime("%Y-%m-%d", time.gmtime(NOW))


def test_what_has_lost_its_date_counts_once_when_its_files_are_read_again(tmp_path: Path) -> None:
    """Its files may be there for years."""
    database = tmp_path / "history.sqlite3"
    write_conversation(tmp_path / "all" / "a", Call(NOW, 0.5), Call(NOW + 2 * QUARTER, 0.25))
    write_conversation(tmp_path / "all" / "b", Call(NOW, 2.0))
    for _ in range(2):
        with running_viewer(database=database) as viewer:
            for _ in range(2):
                assert import_(viewer, tmp_path / "all") == 0
                assert spend(viewer).total.accumulated_cost == pytest.approx(2.75)
        with HeldStore(database) as held:
            held.run(held.store.archive.purge(0.0, NOW + QUARTER))
        with running_viewer(database=database) as viewer:
            assert spend(viewer).total.accumulated_cost == pytest.approx(2.75)
            assert spend(viewer, since=NOW).total.accumulated_cost == pytest.approx(0.25)


def test_a_conversation_that_went_on_is_replaced(tmp_path: Path) -> None:
    with running_viewer() as viewer:
        identity = write_conversation(tmp_path / "before", Call(NOW, 0.5))
        assert import_(viewer, tmp_path / "before") == 0
        write_conversation(tmp_path / "after", Call(NOW, 0.5), Call(NOW + QUARTER, 1.0), identity=identity)
        assert import_(viewer, tmp_path / "after") == 0
        assert by(viewer, "conversation") == {identity: 1.5}


def test_what_processes_told_of_is_not_read(tmp_path: Path) -> None:
    with running_viewer() as viewer:
        identity = write_conversation(tmp_path / "all", Call(NOW, 0.5), Call(NOW + 4 * QUARTER, 1.0))
        tell(viewer, identity, 1.0, NOW + 4 * QUARTER)
        for _ in range(2):
            assert import_(viewer, tmp_path / "all") == 0
            found = spend(viewer)
            assert (found.total.accumulated_cost, found.total.read_cost) == (1.5, 0.5)


def test_what_was_read_gives_way_to_what_processes_tell_later(tmp_path: Path) -> None:
    """From a spool, say: the process had no collector while it ran."""
    with running_viewer() as viewer:
        identity = write_conversation(tmp_path / "all", Call(NOW, 0.5), Call(NOW + 4 * QUARTER, 1.0))
        other = write_conversation(tmp_path / "other", Call(NOW + 4 * QUARTER, 8.0))
        assert import_(viewer, tmp_path / "all", "--openhands", str(tmp_path / "other")) == 0
        assert spend(viewer).total.read_cost == 9.5
        tell(viewer, identity, 1.0, NOW + 4 * QUARTER)
        found = spend(viewer)
        assert (found.total.accumulated_cost, found.total.read_cost) == (9.5, 8.5)
        assert by(viewer, "conversation") == {identity: 1.5, other: 8.0}


def test_a_report_of_viewer_and_files_counts_each_dollar_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_viewer() as viewer:
        identity = write_conversation(tmp_path / "all" / "a", Call(NOW, 0.5))
        assert import_(viewer, tmp_path / "all") == 0
        write_conversation(tmp_path / "all" / "b", Call(NOW, 0.25))
        capsys.readouterr()
        words = ["report", "--viewer", viewer.url, "--openhands", str(tmp_path / "all"), "--json"]
        assert main([*words, "--by", "conversation", "--last", "30d"]) == 0
        said = capsys.readouterr().out
        assert json.loads(said)["total"]["accumulated_cost"] == 0.75
        assert identity in said


def test_what_came_of_a_read_conversation_stays_when_its_date_is_forgotten(tmp_path: Path) -> None:
    with running_viewer() as viewer:
        write_conversation(tmp_path / "all", Call(NOW - 300 * 86_400, 0.5))
        assert import_(viewer, tmp_path / "all") == 0
        assert spend(viewer).total.read_cost == 0.5


ROW = {"begin": NOW, "cost": 1.0}
BAD: dict[str, tuple[Any, int]] = {
    "no JSON": ("{", 400),
    "a list": ([], 400),
    "negative": ({"conversations": [{"conversation_id": "c", "until": 1, "rows": [ROW | {"cost": -1}]}]}, 400),
    "too much": ({"conversations": [{"conversation_id": "c", "until": 1, "rows": [ROW | {"cost": 1e300}]}]}, 400),
    "NaN": ('{"conversations": [{"conversation_id": "c", "until": NaN, "rows": []}]}', 400),
    "an unknown name": ({"conversations": [], "x\x1b": 1}, 400),
    "no id": ({"conversations": [{"conversation_id": "", "until": 1, "rows": []}]}, 400),
    "a long text": (
        {"conversations": [{"conversation_id": "c", "until": 1, "rows": [ROW | {"model": "m" * 300}]}]},
        400,
    ),
    "too large": (" " * (IMPORT_LIMIT + 1), 413),
}


def test_what_cannot_be_taken_is_refused_in_one_line(tmp_path: Path) -> None:
    with running_viewer() as viewer:
        for body, status in BAD.values():
            text = body if isinstance(body, str) else json.dumps(body)
            answer = viewer.http.post("/api/v1/import", content=text, headers={"content-type": "application/json"})
            assert answer.status_code == status
            message = answer.json()["message"]
            assert message.isprintable()
        answer = viewer.http.post("/api/v1/import", content="{}", headers={"content-type": "text/plain"})
        assert answer.status_code == 415
        assert viewer.http.get("/api/v1/import").status_code == 405
        assert spend(viewer).total.accumulated_cost == 0


def test_without_a_token_nobody_imports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_conversation(tmp_path / "all", Call(NOW, 0.5))
    (tmp_path / "token").write_text("secret")
    with running_viewer(token="secret") as viewer:
        assert import_(viewer, tmp_path / "all") == 1
        assert "token" in capsys.readouterr().err
        assert import_(viewer, tmp_path / "all", "--token-file", str(tmp_path / "token")) == 0
        assert spend(viewer).total.read_cost == 0.5


def test_presence_says_which_is_an_import(tmp_path: Path) -> None:
    with running_viewer() as viewer:
        identity = write_conversation(tmp_path / "all", Call(NOW, 0.5))
        tell(viewer, "told", 1.0, NOW)
        assert import_(viewer, tmp_path / "all") == 0
        present = {each["conversation_id"]: each for each in viewer.http.get("/api/v1/presence").json()}
        assert present[identity] == {"conversation_id": identity, "since": 0.0, "until": NOW, "read": True}
        assert present["told"]["read"] is False


def test_broken_files_are_named_and_no_reason_to_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_conversation(tmp_path / "all" / "a", Call(NOW, 0.5))
    (tmp_path / "all" / "b").mkdir()
    (tmp_path / "all" / "b" / "base_state.json").write_text("{")
    with running_viewer() as viewer:
        assert import_(viewer, tmp_path / "all") == 0
        assert "half-written" in capsys.readouterr().err
    assert main(["import"]) == 2
    assert main(["import", "--openhands", str(tmp_path), "--endpoint", "http://127.0.0.1:9"]) == 1


def test_a_label_of_nobody_and_a_conversation_of_both(tmp_path: Path) -> None:
    """Rows of both kinds add up in every grouping."""
    with running_viewer() as viewer:
        identity = write_conversation(tmp_path / "all", Call(NOW, 0.5), Call(NOW + 4 * QUARTER, 1.0))
        tell(viewer, identity, 1.0, NOW + 4 * QUARTER)
        assert import_(viewer, tmp_path / "all") == 0
        for name in ("model", "conversation", "service", "role", "usage_id", "cost_source", "team", "day", "hour"):
            assert sum(by(viewer, name).values()) == pytest.approx(1.5), name
        assert {group.keys.get(semconv.LLM_ROLE) for group in spend(viewer, by="role").groups}


# ---------------------------------------------------------------- whatever comes in whatever order

START = 1_790_000_000 // QUARTER * QUARTER
STEP = 100
Step = tuple[str, int]


@given(
    lives=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=4),
    steps=st.lists(
        st.sampled_from([("import", 0), ("import late", 0)]) | st.tuples(st.just("tell"), st.integers(0, 80)),
        max_size=12,
    ),
)
@settings(max_examples=150)
def test_no_dollar_counts_twice_whatever_comes_in_whatever_order(
    lives: list[tuple[int, int]], steps: list[Step]
) -> None:
    """A conversation of a call each 100 s; processes are instrumented in some stretches, and tell of them by and by.

    An import that is late knows nothing of what was told last.
    """
    database = schema.connect(None)
    times = [START + number * STEP for number in range(81)]
    stretches = [(START + first * STEP - 10.0, START + (first + length) * STEP - 90.0) for first, length in lives]
    told: dict[int, float] = {}
    told_before: dict[int, float] = {}

    def counted(when: float) -> bool:
        return any(since <= when <= told[number] for number, (since, _) in enumerate(stretches) if number in told)

    def import_(what_is_known: dict[int, float]) -> None:
        known = [(stretches[number][0], until) for number, until in what_is_known.items()]
        rows = [
            ReadRow(begin=when // QUARTER * QUARTER, cost=1.0)
            for when in times
            if not any(since - 2 <= when <= until + 2 for since, until in known)
        ]
        whole = ReadConversation(
            conversation_id="c",
            until=times[-1],
            known=known,
            rows=rows,
        )
        reading.take(database, Handover(conversations=[whole]))

    def read() -> float:
        return sum(
            row.amount.read_cost.value for row in spend_rows.ask(database, ArchiveQuestion((), (0.0, 4e10), False))
        )

    for kind, number in (*steps, ("import", 0)):
        if kind == "import":
            import_(told)
        elif kind == "import late":
            import_(told_before)
        else:
            told_before = dict(told)
            present: list[Present] = []
            for process, (since, end) in enumerate(stretches):
                until = min(end, START + number * STEP - 90.0)
                if until > since and until > told.get(process, 0.0):
                    told[process] = until
                    present.append(("c", f"p{process}", since, until))
            reading.give_way(database, present)
            spend_rows.note_presence(database, present)
        assert read() <= sum(not counted(when) for when in times)
    assert read() == sum(not counted(when) for when in times)
