"""Budgets and notices: what stands is what was spent, and who is elsewhere is told once, whatever happens between."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from viewer_process import Viewer, running_viewer, wait_for

from openhands_otel import StatsClient, semconv
from openhands_otel._internal.cli import main
from openhands_otel._internal.collector.notices.conditions import name_of
from openhands_otel._internal.spend.budgets import read_limits, standing
from openhands_otel._internal.spend.periods import period_of
from openhands_otel._internal.spend.quiet_hours import QuietHours
from openhands_otel._internal.spend.rows import Unit
from openhands_otel.stats import ConversationStats
from otlp_sender import Sender

# ---------------------------------------------------------------- budgets


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("day=60", ["day"]),
        (" day=60 , month = 900 ", ["day", "month"]),
        ("week:service=check=out=100", ["week service=check=out"]),
        ("month:team=payments=300,month:model=gpt-5*=20", ["month team=payments", "month model=gpt-5*"]),
        ("day:team!=payments=1e2", ["day team!=payments"]),
        ("", []),
    ],
)
def test_a_budget_is_a_period_perhaps_a_condition_and_an_amount(text: str, names: list[str]) -> None:
    assert [limit.name for limit in read_limits(text)] == names


@pytest.mark.parametrize(
    "text",
    [
        *("60", "hour=5", "day", "day=", "day=x", "day=0", "day=-1", "day=nan", "day=inf", "day:=5", "day:x=5"),
        *("day:day=1=5", "day=1,day=2", "day=1;week=2", ",".join(f"day:a=x{number}=1" for number in range(51))),
    ],
)
def test_what_is_no_budget_says_what_to_write(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"budget|amount|more than|twice|say on what"):
        read_limits(text)
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_BUDGETS", text)
    assert main(["view", "--database", ":memory:", "--port", "0"]) == 1
    told = capsys.readouterr().err
    assert "OPENHANDS_OTEL_VIEWER_BUDGETS" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "Europe/Berlin", "Pacific/Chatham"])
def test_what_is_foreseen_follows_from_the_rate_and_the_end_of_the_period(zone: str) -> None:
    [limit] = read_limits("day=10")
    now = datetime(2026, 3, 29, 1, 30, tzinfo=ZoneInfo(zone)).timestamp()
    day = period_of(Unit.DAY, now, ZoneInfo(zone))
    left_h = (day.end - now) / 3600
    found = standing(limit, day, now, spent=4.0, recent=1.0, window_s=1800.0)
    assert (found.per_hour, found.exhausted, found.since, found.until) == (2.0, False, day.begin, day.end)
    assert found.projected == pytest.approx(4.0 + 2.0 * left_h)
    assert found.exhausted_unix_s == pytest.approx(now + 3 * 3600)
    calm = standing(limit, day, now, spent=4.0, recent=0.05, window_s=1800.0)
    assert calm.exhausted_unix_s is None
    spent = standing(limit, day, now, spent=10.0, recent=1.0, window_s=1800.0)
    assert (spent.exhausted, spent.exhausted_unix_s) == (True, None)


def test_budgets_stand_where_the_reports_of_their_period_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_TIMEZONE", "Asia/Kolkata")
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_BUDGETS", "day=5,week:service=a=8,month:model=claude=3,day:team=x=1")
    now = time.time()
    with running_viewer(database=tmp_path / "history.sqlite3") as viewer:
        viewer.send(Sender("p1", "a").spend(1.0))
        viewer.send(Sender("p2", "b").spend(0.5, model="claude"))
        with StatsClient(viewer.url) as stats:
            day, week, month, team = stats.budgets()
            assert (day.spent, week.spent, month.spent, team.spent) == (1.5, 1.0, 0.5, 0.0)
            assert day.spent == stats.spend(since="today").total.accumulated_cost
            assert day.since <= now < day.until
            assert day.until - day.since == 86_400
            assert (week.name, week.where, week.period) == ("week service=a", "service=a", "week")
            assert day.per_hour == pytest.approx(1.5 / day.window_s * 3600)
            assert 3600 <= day.window_s <= 4500 + 60


# ---------------------------------------------------------------- notices


class Told:
    """A webhook that keeps what it is told, and answers as it is set to."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.messages = 0
        self.status = 200
        self.hang = threading.Event()
        self.hang.set()
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                told.hang.wait(100)
                told.messages += 1
                if told.status == 200:
                    told.lines += body["message"].splitlines()
                self.send_response(told.status)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://user:s3cret@127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.hang.set()
        self._server.shutdown()
        self._server.server_close()

    def about(self, what: str) -> list[str]:
        return [line for line in self.lines if what in line]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    made = Told()
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_NOTIFY", made.url)
    yield made
    made.close()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite3"


def kept(database: Path, query: str) -> list[tuple[object, ...]]:
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as file:
        return file.execute(query).fetchall()
    return []


@contextmanager
def watching(database: Path, targets: int = 1) -> Iterator[Viewer]:
    """A viewer that has looked once: what is from now on is news."""
    with running_viewer(database=database) as viewer:
        known = "SELECT target FROM notices WHERE event = ''"
        wait_for(lambda: len(kept(database, known)) == targets, "the first look")
        yield viewer


def conversation(name: str, status: str, cost: float = 0.5) -> Sender:
    return Sender(f"p-{name}", "agent").introduce(name).converse(name, cost).state(name, status)


def unpriced(model: str) -> Sender:
    return Sender(f"p-{model}").add(semconv.UNPRICED_CALLS, 1, {semconv.REQUEST_MODEL: model})


def round_over(told: Told, viewer: Viewer) -> None:
    """Whatever was due when this is called has been told when it returns."""
    model = f"marker-{time.monotonic_ns()}"
    viewer.send(unpriced(model))
    wait_for(lambda: told.about(model), "the next notice")


def test_each_that_needs_a_person_is_told_once_also_over_restarts(told: Told, database: Path) -> None:
    with watching(database) as viewer:
        viewer.send(conversation("waits", semconv.Status.WAITING))
        viewer.send(conversation("sticks", semconv.Status.STUCK))
        viewer.send(conversation("fails", semconv.Status.ERROR, 1.5))
        viewer.send(conversation("is-well", semconv.Status.RUNNING))
        viewer.send(conversation("is-done", semconv.Status.FINISHED))
        viewer.send(unpriced("mystery"))
        for what in ("waits for you", "is stuck", "failed", "no price is known for mystery: 1 call"):
            wait_for(lambda what=what: told.about(what), what)
        assert "$1.500 so far" in told.about("failed")[0]
        round_over(told, viewer)
        viewer.process.kill()
        viewer.process.wait()
    with watching(database) as viewer:
        round_over(told, viewer)
        round_over(told, viewer)
    events = [line for line in told.lines if "marker" not in line]
    assert len(events) == 4, events
    # What went wrong again is another event.
    with watching(database) as viewer:
        viewer.send(conversation("fails", semconv.Status.RUNNING, 1.5))
        wait_for(lambda: viewer.http.get("/api/v1/runs?conversation=fails").json(), "a run")
        viewer.send(
            Sender("p-fails", "agent")
            .converse("fails", 2.0)
            .state("fails", "running", ended=True)
            .state("fails", "error")
        )
        wait_for(lambda: len(told.about("failed")) == 2, "the second failure")


def test_what_was_before_somebody_was_to_be_told_is_no_news(
    told: Told, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENHANDS_OTEL_VIEWER_NOTIFY")
    with running_viewer(database=database) as viewer:
        viewer.send(conversation("old", semconv.Status.ERROR))
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_NOTIFY", told.url)
    with watching(database) as viewer:
        round_over(told, viewer)
        assert not told.about("failed")
        days_ago = time.time_ns() - 3 * 86_400 * 10**9
        late = Sender("import", "agent", start=days_ago).introduce("import", at=days_ago)
        viewer.send(late.converse("import", 0.5, at=days_ago).state("import", "error", at=days_ago))
        round_over(told, viewer)
        assert not told.about("failed")


def test_of_a_budget_each_share_is_told_once_and_of_several_the_highest(
    told: Told, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_BUDGETS", "month=10,day:service=other=1")
    with watching(database) as viewer:
        sender = Sender("p", "agent")
        for spent in (4.0, 5.5, 5.6, 9.6, 12.0, 15.0):
            viewer.send(sender.spend(spent))
            round_over(told, viewer)
        shares = [line.partition("(")[2].partition(")")[0] for line in told.about("budget month:")]
        assert shares == ["55 %", "96 %", "120 %"]
        assert "of $10.000 spent" in told.about("budget month:")[0]
    with watching(database) as viewer:
        round_over(told, viewer)
        viewer.send(Sender("q", "other").spend(1.0))
        wait_for(lambda: told.about("budget day service=other: $1.000 of $1.000 spent (100 %)"), "the other budget")
    assert len(told.about("budget")) == 4


def test_money_that_burns_without_a_tool_call_is_told_once_until_there_was_one(
    told: Told, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_BURNING_USD", "2")
    talks, works = (Sender(f"p-{name}", "agent") for name in ("talks", "works"))

    def go_on(cost: float, tools: int) -> None:
        """Both spend; one of them calls a tool each time, the other when it is said."""
        for sender, name, calls in ((talks, "talks", tools), (works, "works", int(cost * 10))):
            sender.introduce(name).converse(name, cost).state(name, semconv.Status.RUNNING)
            sender.add(semconv.CONVERSATION_TOOL_CALLS, calls, {semconv.CONVERSATION_ID: name})
            viewer.send(sender)
        round_over(told, viewer)

    with watching(database) as viewer:
        for cost, tools in ((1.0, 1), (2.5, 1), (3.5, 1), (5.0, 1), (6.0, 2), (7.9, 2), (9.0, 2)):
            go_on(cost, tools)
    burning = told.about("without a tool call")
    assert [line.partition(" spent ")[2] for line in burning] == [
        "$2.500 without a tool call, $3.500 so far",
        "$3.000 without a tool call, $9.000 so far",
    ]


def test_in_quiet_hours_nobody_is_told_and_afterwards_all_of_it(
    told: Told, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(tz=ZoneInfo("UTC"))
    hours = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=1):%H:%M}"
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_TIMEZONE", "UTC")
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_QUIET", hours)
    with watching(database) as viewer:
        viewer.send(conversation("by-night", semconv.Status.ERROR))
        wait_for(lambda: kept(database, "SELECT 1 FROM notices WHERE text IS NOT NULL"), "what is held back")
        # It goes on, and that is no failure any more; it was one.
        viewer.send(Sender("p-by-night", "agent").state("by-night", "error", ended=True).state("by-night", "running"))
    assert told.messages == 0
    monkeypatch.delenv("OPENHANDS_OTEL_VIEWER_QUIET")
    with watching(database):
        wait_for(lambda: told.about("failed"), "the morning")


@pytest.mark.parametrize(
    ("hours", "quiet", "loud"),
    [
        ("22:00-07:00", ["22:00", "23:59", "00:00", "06:59"], ["07:00", "21:59"]),
        ("9:00 - 17:30", ["09:00", "17:29"], ["17:30"]),
    ],
)
def test_quiet_hours_may_go_over_midnight(hours: str, quiet: list[str], loud: list[str]) -> None:
    zone = ZoneInfo("Asia/Kolkata")
    parsed = QuietHours.parse(hours)
    for text in (*quiet, *loud):
        moment = datetime.fromisoformat(f"2026-05-01T{text}").replace(tzinfo=zone).timestamp()
        assert parsed.hold(moment, zone) is (text in quiet), text


@pytest.mark.parametrize("hours", ["22", "22:00", "25:00-07:00", "22:00-22:00", "10pm-7am", "22:60-07:00"])
def test_what_are_no_hours_is_said(
    hours: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_QUIET", hours)
    assert main(["view", "--database", ":memory:", "--port", "0"]) == 1
    assert capsys.readouterr().err.startswith("openhands-otel: OPENHANDS_OTEL_VIEWER_QUIET: ")


def test_a_target_that_fails_or_hangs_harms_nobody_and_is_told_later(
    told: Told, database: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failing, hanging = Told(), Told()
    failing.status = 500
    hanging.hang.clear()
    file = tmp_path / "targets"
    file.write_text(f"# two more\n{failing.url}\n\n{hanging.url}\njson://127.0.0.1:1/nobody\n")
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_NOTIFY_FILE", str(file))
    log = tmp_path / "log"
    try:
        with log.open("w") as stderr, running_viewer(database=database, stderr=stderr) as viewer:
            wait_for(lambda: len(kept(database, "SELECT 1 FROM notices WHERE event = ''")) == 4, "the first look")
            viewer.send(conversation("fails", semconv.Status.ERROR))
            wait_for(lambda: told.about("failed"), "the one that is well")
            wait_for(lambda: failing.messages, "the one that fails")
            round_over(told, viewer)
            assert viewer.http.get("/healthz").status_code == 200
            failing.status = 200
            hanging.hang.set()
            wait_for(lambda: failing.about("failed") and hanging.about("failed"), "the others, later")
            assert viewer.state().totals.llm_calls == 0
            state = viewer.http.get("/api/v1/state").text
            assert viewer.stop() == 0
    finally:
        failing.close()
        hanging.close()
    lines = log.read_text().splitlines()
    assert len([line for line in lines if "notice target 2 (JSON) cannot be told" in line]) == 1
    assert len([line for line in lines if "notice target 2 (JSON) is told again" in line]) == 1
    for secret in ("s3cret", "/hook", "nobody"):
        assert secret not in state + "".join(lines)
        assert secret.encode() not in database.read_bytes()


def test_what_was_told_leaves_no_name_in_the_file(told: Told, database: Path) -> None:
    with watching(database) as viewer:
        viewer.send(conversation("very-secret-name", semconv.Status.ERROR))
        wait_for(lambda: told.about("failed"), "it")
        wait_for(lambda: not kept(database, "SELECT 1 FROM notices WHERE text IS NOT NULL"), "what is kept")
    rows = kept(database, "SELECT event, target, kind, text FROM notices")
    assert not [row for row in rows if "secret" in repr(row)]


def test_what_is_forgotten_is_told_to_nobody_any_more(
    told: Told, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told.status = 500
    with watching(database) as viewer:
        viewer.send(conversation("very-secret-name", semconv.Status.ERROR))
        wait_for(lambda: told.messages, "a try")
    assert kept(database, "SELECT 1 FROM notices WHERE text IS NOT NULL")
    assert main(["forget", "--conversation", "very-secret-name", "--yes", "--database", str(database)]) == 0
    assert not [path for path in database.parent.iterdir() if b"very-secret" in path.read_bytes()]
    told.status = 200
    with watching(database) as viewer:
        round_over(told, viewer)
    assert not told.about("failed")


def test_kinds_that_are_not_wished_are_not_told(
    told: Told, database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_NOTICES", "waiting, unpriced")
    with watching(database) as viewer:
        viewer.send(conversation("fails", semconv.Status.ERROR))
        viewer.send(conversation("waits", semconv.Status.WAITING))
        round_over(told, viewer)
        wait_for(lambda: told.about("waits for you"), "it")
        assert not told.about("failed")
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_NOTICES", "waiting,hunger")
    assert main(["view", "--database", ":memory:"]) == 1
    assert "'hunger' is no kind of notice" in capsys.readouterr().err


def test_a_test_message_says_who_could_be_told(
    told: Told, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["notices", "test"]) == 0
    assert capsys.readouterr().out == "1 (JSON): sent\n"
    assert "test" in told.lines[0]
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_NOTIFY", f"{told.url} json://127.0.0.1:1/s3cret")
    assert main(["notices", "test"]) == 1
    out = capsys.readouterr()
    assert "2 (JSON): NOT sent" in out.out
    assert "s3cret" not in out.out + out.err
    monkeypatch.delenv("OPENHANDS_OTEL_VIEWER_NOTIFY")
    assert main(["notices", "test"]) == 1
    assert "there is no target" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url", ["s3cret", "s3cret://x", "slack://s3cret", "mailto://", "://s3cret", "json://s3cret:x:y"]
)
def test_a_url_that_is_none_is_named_by_its_place_alone(
    url: str, told: Told, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_NOTIFY", f"{told.url} {url}")
    assert main(["view", "--database", ":memory:", "--port", "0"]) == 1
    told_ = capsys.readouterr()
    assert told_.err.startswith("openhands-otel: notice target 2")
    assert told_.err.count("\n") == 1
    assert "s3cret" not in told_.err + told_.out


def test_a_notice_never_says_a_title() -> None:
    """It is content, and a notice goes to a service of somebody else's."""
    titled = ConversationStats(conversation_id="0123456789", name="planted-4711", title="planted-4711")
    assert name_of(titled) == "01234567"
    assert name_of(titled.model_copy(update={"service": "bot"})) == "bot 01234567"
    triage = {"labels": {"automationname": "nightly triage"}, "service": "canvas"}
    assert name_of(titled.model_copy(update=triage)) == "nightly triage 01234567"
    labelled = titled.model_copy(update={"name": "mine", "labels": {"name": "mine"}})
    assert name_of(labelled) == "mine"
