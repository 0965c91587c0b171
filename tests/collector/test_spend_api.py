"""What was spent, by anything and over any time, as a real viewer tells it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openapi_spec_validator
import pytest
from viewer_process import Viewer, running_viewer

from openhands_otel import semconv
from openhands_otel._internal.collector.archive.history import Archive
from openhands_otel._internal.collector.archive.questions import answer_from_file
from openhands_otel._internal.collector.serve.api import Api
from openhands_otel._internal.collector.store import Store
from openhands_otel._internal.spend.reading import read_question
from openhands_otel.stats import Spend, SpendGroup
from otlp_sender import Sender

DAY = 86_400
NOON = int(time.time()) // DAY * DAY - DAY // 2
"""Noon of yesterday, UTC."""
YESTERDAY = time.strftime("%Y-%m-%d", time.gmtime(NOON))
DAY_BEFORE = time.strftime("%Y-%m-%d", time.gmtime(NOON - DAY))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("history") / "history.sqlite3"


@pytest.fixture(scope="module")
def viewer(database: Path) -> Iterator[Viewer]:
    with running_viewer(database=database) as viewer:
        stamp = NOON * 1_000_000_000
        first = Sender("p", start=stamp - DAY * 2_000_000_000)
        viewer.send(first.spend(1.0, at=stamp - DAY * 1_000_000_000).converse("c", 1.0, at=stamp - DAY * 1_000_000_000))
        viewer.send(first.spend(1.25, at=stamp).spend(4.0, model="claude", at=stamp).converse("c", 1.25, at=stamp))
        state = {semconv.CONVERSATION_ID: "c", semconv.RUN_OUTCOME: "stuck"}
        viewer.send(Sender("p").add(semconv.CONVERSATION_OUTCOME, 1, state))
        yield viewer


def spend(viewer: Viewer, **query: Any) -> Spend:
    response = viewer.http.get("/api/v1/spend", params={"timezone": "UTC", **query})
    return Spend.model_validate_json(response.raise_for_status().content)


def costs(found: Spend) -> list[tuple[dict[str, str], float]]:
    return [(group.keys, group.accumulated_cost) for group in found.groups]


def test_without_a_question_it_is_the_total(viewer: Viewer) -> None:
    found = spend(viewer)
    assert found.total == SpendGroup(accumulated_cost=5.25)
    assert found.groups == ()


def test_spend_is_grouped_by_time_and_by_what_it_went_for(viewer: Viewer) -> None:
    assert costs(spend(viewer, by="day,model")) == [
        ({"day": DAY_BEFORE, "model": "gpt"}, 1.0),
        ({"day": YESTERDAY, "model": "claude"}, 4.0),
        ({"day": YESTERDAY, "model": "gpt"}, 0.25),
    ]
    assert costs(spend(viewer, by=["day", "model"])) == costs(spend(viewer, by="day,model"))


def test_a_day_is_one_of_the_zone_that_is_asked_for(viewer: Viewer) -> None:
    # Noon of UTC is the next day there.
    found = spend(viewer, by="day", timezone="Pacific/Kiritimati")
    assert found.groups[0].keys["day"] == YESTERDAY
    assert found.timezone == "Pacific/Kiritimati"


def test_weeks_and_months_are_told_apart_where_they_overlap() -> None:
    # The last month that does not begin with a week.
    first = datetime.fromtimestamp(NOON, UTC).replace(day=1)
    while first.weekday() == 0:
        first = (first - timedelta(days=1)).replace(day=1)
    days = first - timedelta(days=1), first
    with running_viewer() as viewer:
        sender = Sender("p", start=round(days[0].timestamp() - 1) * 10**9)
        for cost, day in zip((1.0, 5.0), days, strict=True):
            viewer.send(sender.spend(cost, at=round(day.timestamp()) * 10**9))
        assert costs(spend(viewer, by="week,month")) == [
            ({"week": f"{day:%G-W%V}", "month": f"{day:%Y-%m}"}, cost)
            for cost, day in zip((1.0, 4.0), days, strict=True)
        ]


def test_a_period_is_cut_at_its_ends(viewer: Viewer) -> None:
    assert spend(viewer, since=YESTERDAY).total.accumulated_cost == 4.25
    assert spend(viewer, until=DAY_BEFORE).total.accumulated_cost == 1.0
    assert spend(viewer, since=str(float(NOON - DAY)), until=str(NOON)).total.accumulated_cost == 1.0
    assert spend(viewer, last="3d", by="month").total.accumulated_cost == 5.25


def test_conditions_filter_and_top_leaves_a_remainder(viewer: Viewer) -> None:
    assert spend(viewer, where="model=g*").total.accumulated_cost == 1.25
    assert spend(viewer, where=["model=g*", "model!=gpt"]).total.accumulated_cost == 0.0
    found = spend(viewer, by="model", top=1)
    assert [(group.remainder, group.accumulated_cost) for group in found.groups] == [(False, 4.0), (True, 1.25)]


def test_a_conversation_says_how_it_ended_and_what_belongs_to_none_is_a_row(viewer: Viewer) -> None:
    found = spend(viewer, by="conversation")
    assert [(group.keys["conversation"], group.outcome, group.accumulated_cost) for group in found.groups] == [
        ("no conversation", None, 4.0),
        ("c", "stuck", 1.25),
    ]


@pytest.mark.parametrize(
    ("query", "cure"),
    [
        ({"since": "yesteryear"}, "write 2026-11-20"),
        ({"until": "tomorrow?"}, "write 2026-11-20"),
        ({"since": YESTERDAY, "until": DAY_BEFORE}, "until must be after since"),
        ({"since": YESTERDAY, "last": "3d"}, "not both"),
        ({"last": "soon"}, "write 12h"),
        ({"timezone": "Mars/Base"}, "use a name such as"),
        ({"where": "gpt"}, "write a name and a pattern"),
        ({"top": "-1"}, "whole number"),
        ({"top": "\u0663"}, "whole number"),
        ({"by": ",".join("abcdefghijk")}, "names at most"),
        ({"by": "model,"}, "by has an empty name"),
        ({"by": ",model"}, "by has an empty name"),
        ({"by": ["model", "day,,hour"]}, "by has an empty name"),
        ({"group_by": "day"}, "there is no parameter group_by"),
        ({"since": ["1", "2"]}, "given 2 times"),
        ({"timezone": "../../../etc/passwd"}, "use a name such as"),
    ],
)
def test_what_cannot_be_understood_is_refused_in_a_line_that_names_the_cure(
    viewer: Viewer, query: dict[str, Any], cure: str
) -> None:
    response = viewer.http.get("/api/v1/spend", params=query)
    assert response.status_code == 400
    message = response.json()["message"]
    assert cure in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "name", ["a'b", 'a"b', "$.x", "x') --", "\x1b[31m", "%s", "", " ", "run", "\x00", "a\x00b", "\ud800"]
)
def test_any_name_is_a_label_that_no_call_has(viewer: Viewer, name: str) -> None:
    response = viewer.http.get("/api/v1/spend", params={"by": name.encode("utf-8", "replace").decode()})
    assert Spend.model_validate_json(response.content).total.accumulated_cost == 5.25


def test_it_is_told_who_held_a_conversation_and_when(viewer: Viewer) -> None:
    [held] = viewer.http.get("/api/v1/presence").json()
    assert held["conversation_id"] == "c"
    assert held["since"] <= NOON <= held["until"]


def listed(viewer: Viewer, path: str, **query: Any) -> tuple[int, list[dict[str, Any]]]:
    response = viewer.http.get(path, params=query).raise_for_status()
    return int(response.headers["x-total-count"]), response.json()


def test_conversations_are_searched_filtered_sorted_and_paged(viewer: Viewer) -> None:
    path = "/api/v1/conversations"
    more = Sender("q", service="nightly_build").converse("c%2", 9.0).converse("d_", 0.5, model="claude")
    viewer.send(more.introduce("c%2").introduce("d_"))

    def names(**query: Any) -> list[str]:
        return [found["conversation_id"] for found in listed(viewer, path, **query)[1]]

    assert names(sort="-accumulated_cost") == ["c%2", "c", "d_"]
    assert names(sort="accumulated_cost", limit=1, offset=1) == ["c"]
    assert listed(viewer, path, limit=1)[0] == 3
    assert listed(viewer, path, limit=0) == (3, [])
    assert names(search="%") == ["c%2"]
    assert names(search="_", sort="conversation_id") == ["c%2", "d_"]
    assert names(search="NIGHTLY claude") == ["d_"]
    assert names(outcome="stuck", limit=10) == ["c"]
    assert names(service="nightly_build", model="gpt") == ["c%2"]
    assert names(agent="Agent", sort="conversation_id") == ["c%2", "d_"]
    assert names(search="' OR 1=1 --") == []
    # All are in memory, so none is of the past; tests/viewer/test_list.py has those that are.
    assert listed(viewer, path, past="yes") == (0, [])
    assert len(names(past="no")) == 3


def test_conversations_are_listed_under_the_conditions_of_spend() -> None:
    """Kinds: facts of the whole and of parts, labels, patterns, what is not there, several of a name, words of SQL."""
    with running_viewer() as viewer:
        for number, (team, model, role) in enumerate(
            (("a", "gpt-5", "agent"), ("b", "gpt-4", "title"), ("a'\"$.*", "claude", "agent"), (None, "gpt-5", "agent"))
        ):
            agent = Sender(f"p{number}", service=f"s{number % 2}")
            agent.resource = {} if team is None else {f"{semconv.LABEL_PREFIX}team": team}
            viewer.send(agent.introduce(f"c{number}").converse(f"c{number}", 1.0, model=model, role=role))
        both = (
            Sender("both").converse("both", 1.0, model="gpt-5").converse("both", 1.0, model="claude", role="condenser")
        )
        viewer.send(both.introduce("both"))

        def names(*where: str) -> list[str]:
            query = {"where": list(where), "sort": "conversation_id"}
            return [found["conversation_id"] for found in listed(viewer, "/api/v1/conversations", **query)[1]]

        assert names("team=a") == ["c0"]
        assert names("team=a*") == ["c0", "c2"]
        assert names("team=a'\"$.[*]") == ["c2"]
        assert names("team=none") == ["both", "c3"]
        assert names("team!=a*") == ["both", "c1", "c3"]
        assert names("team=a", "team=b") == ["c0", "c1"]
        assert names("role=agent", "service=s0") == ["c0", "c2"]
        assert names("role=condenser") == names("model=claude", "model!=c*2", "role=c*") == ["both"]
        assert names("model=gpt-[45]") == ["both", "c0", "c1", "c3"]
        assert names("conversation=c?", "agent=Agent") == ["c0", "c1", "c2", "c3"]
        assert names("no such' label=x") == []
        assert viewer.http.get("/api/v1/conversations", params={"where": "team"}).status_code == 400


@pytest.mark.parametrize(
    "query",
    [
        {"sort": "costs"},
        {"sort": "';"},
        {"limit": "-1"},
        {"limit": "100000"},
        {"offset": "x"},
        {"page": "2"},
        {"past": "1"},
    ],
)
def test_a_list_is_not_asked_for_in_words_that_do_not_exist(viewer: Viewer, query: dict[str, str]) -> None:
    response = viewer.http.get("/api/v1/conversations", params=query)
    assert response.status_code == 400
    assert "\n" not in response.json()["message"]


def test_runs_are_listed_with_their_cost_and_outcome(viewer: Viewer) -> None:
    sender = Sender("r").state("e", "running").converse("e", 0.5)
    viewer.send(sender)
    ended = {semconv.CONVERSATION_ID: "e", semconv.RUN_OUTCOME: "budget"}
    viewer.send(Sender("r").converse("e", 0.75).state("e", "paused").add(semconv.CONVERSATION_OUTCOME, 1, ended))
    count, [run] = listed(viewer, "/api/v1/runs", conversation="e")
    assert count == 1
    assert (run["number"], run["outcome"], run["accumulated_cost"]) == (1, "budget", 0.75)
    assert run["begun"] <= run["ended"]
    assert listed(viewer, "/api/v1/runs", outcome="error") == (0, [])


def test_the_api_describes_itself_and_each_route_is_in_it(viewer: Viewer) -> None:
    document = viewer.http.get("/api/v1/openapi.json").json()
    openapi_spec_validator.validate(document)
    routes = {route.path.replace(":path", "") for route in Api(Store(Archive(None))).routes()}
    assert set(document["paths"]) == routes
    for path, methods in document["paths"].items():
        if "get" not in methods:
            continue
        assert all(parameter["description"] for parameter in methods["get"]["parameters"])
        if "{" not in path and path.startswith("/api/") and path != "/api/v1/events":
            answer = viewer.http.get(path)
            if any(parameter["required"] for parameter in methods["get"]["parameters"]):
                assert answer.status_code == 400
                continue
            assert answer.status_code == 200
            [media_type] = methods["get"]["responses"]["200"]["content"]
            assert answer.headers["content-type"].startswith(media_type)


def test_a_file_gives_the_same_answers_while_the_viewer_has_it_open(viewer: Viewer, database: Path) -> None:
    for by in ("day,model", "conversation", "service"):
        question = read_question({"by": [by], "timezone": ["UTC"]}, None)
        assert answer_from_file(database, question) == spend(viewer, by=by)


def test_what_a_crowd_was_acknowledged_is_in_each_answer_about_money_at_once() -> None:
    """Saving waits the longer, the more there was to save; no question waits for it."""
    with running_viewer() as viewer:
        senders = [Sender(f"p{number}") for number in range(700)]
        for cost in (1.0, 2.0, 3.0):
            for number, sender in enumerate(senders):
                viewer.send(sender.spend(cost).converse(f"c{number}", cost))
            history = viewer.http.get("/api/v1/history").raise_for_status().json()
            assert history["points"][-1]["accumulated_cost"] == cost * len(senders)
            assert spend(viewer).total.accumulated_cost == cost * len(senders)
