"""``openhands-otel report``: what was spent, from OpenHands' own files alone, and from a viewer beside them."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from viewer_process import running_viewer

from openhands_folder import Call, write_conversation
from openhands_otel import semconv
from openhands_otel._internal.cli import main
from openhands_otel._internal.export.otlp_file.json_lines import encode_line
from otlp_sender import Sender
from otlp_server import answering

DAY = 86_400
UTC = ("--timezone", "UTC")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of one's own: nothing of ours was ever there."""
    home = tmp_path / "home"
    home.mkdir()
    for name in [name for name in os.environ if name.startswith(("OPENHANDS_", "OH_", "TZ"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    monkeypatch.setenv("COLUMNS", "100")
    # Where no viewer is.
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_PORT", "9")
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def midday() -> float:
    """Today at noon in UTC, or yesterday's where that is still to come."""
    now = time.time()
    noon = now // DAY * DAY + DAY / 2
    return noon if noon < now else noon - DAY


@dataclass(frozen=True)
class Result:
    returncode: int
    stdout: str
    stderr: str


def report(*options: str) -> Result:
    """In this process: another one takes a second to start."""
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        code = main(["report", *options])
    return Result(code, output.getvalue(), errors.getvalue())


def said(*options: str) -> str:
    result = report(*options)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return result.stdout


def spend(*options: str) -> dict[str, Any]:
    return json.loads(said("--json", *options))


def costs(*options: str) -> dict[str, float]:
    return {"/".join(each["keys"].values()): each["accumulated_cost"] for each in spend(*options)["groups"]}


def day(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(moment))


def test_a_machine_with_nothing_but_openhands_files_has_an_answer(home: Path, midday: float) -> None:
    root = home / ".openhands" / "conversations"
    first = write_conversation(root, Call(midday, 0.5), Call(midday - DAY, 0.25, "openai/gpt-5-mini"))
    write_conversation(root, Call(midday - DAY, 1.0), Call(midday - 40 * DAY, 8.0))
    text = said(*UTC)
    lines = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip()]
    figures = {line[0]: line[1] for line in lines if len(line) > 2}
    assert figures["total"] == "$1.750+"
    assert list(figures)[1:5] == [day(midday - DAY), "gpt-5", "gpt-5-mini", day(midday)]
    assert "+ at least: $1.750 was read from OpenHands' own files" in text
    assert costs(*UTC) == {
        f"{day(midday - DAY)}/gpt-5": 1.0,
        f"{day(midday - DAY)}/gpt-5-mini": 0.25,
        f"{day(midday)}/gpt-5": 0.5,
    }
    assert costs("--by", "conversation", "--where", f"conversation={first}") == {first: 0.75}
    everything = spend("--last", "all", "--by", "month", "--by", "model,role")
    assert everything["by"] == ["month", "model", "role"]
    assert everything["total"]["accumulated_cost"] == everything["total"]["read_cost"] == 9.75
    assert everything["total"]["llm_calls"] == 4
    assert everything["total"]["accumulated_token_usage"]["prompt_tokens"] == 4_000


def test_periods_are_those_of_the_zone_that_is_asked_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = home / "kept"
    write_conversation(root, Call(1795732200.0, 1.0))  # 2026-11-26T22:30:00Z
    ever = ("--openhands", str(root), "--last", "all", "--by", "day")
    assert costs(*ever, "--timezone", "Europe/Berlin") == {"2026-11-26": 1.0}
    assert costs(*ever, "--timezone", "Asia/Kolkata") == {"2026-11-27": 1.0}
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_TIMEZONE", "Asia/Kathmandu")
    assert spend(*ever)["timezone"] == "Asia/Kathmandu"
    monkeypatch.delenv("OPENHANDS_OTEL_VIEWER_TIMEZONE")
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    assert costs(*ever) == {"2026-11-27": 1.0}
    of_day = ("--openhands", str(root), "--by", "model")
    assert costs(*of_day, *UTC, "--since", "2026-11-26", "--until", "2026-11-26") == {"gpt-5": 1.0}
    assert costs(*of_day, *UTC, "--since", "2026-11-26T22:40") == {"gpt-5": 1.0}, "quarter-hours count as a whole"
    assert costs(*of_day, *UTC, "--since", "2026-11-26T22:45") == {}
    assert costs(*of_day, *UTC, "--until", "2026-11-25") == {}
    assert costs(*of_day, *UTC, "--since", "2026-W48", "--until", "2026-11") == {"gpt-5": 1.0}


def test_each_form_says_the_same(home: Path, midday: float) -> None:
    root = home / "kept"
    write_conversation(root, *(Call(midday - number, 0.1 * number, f"openai/model-{number}") for number in range(1, 6)))
    options = ("--openhands", str(root), "--by", "model", *UTC)
    rows = list(csv.DictReader(io.StringIO(said("--csv", "--top", "2", *options))))
    assert [row["model"] for row in rows] == ["model-5", "model-4", "", ""]
    assert [row["row"] for row in rows] == ["group", "group", "remainder", "total"]
    assert sum(float(row["cost_usd"]) for row in rows[:-1]) == pytest.approx(1.5, abs=1e-9)
    assert float(rows[-1]["cost_usd"]) == pytest.approx(1.5, abs=1e-9)
    markdown = said("--markdown", "--top", "2", *options)
    assert "| **total** | **$1.500+** |" in markdown
    assert "| all others | $0.6000+ |" in markdown
    focus = list(csv.DictReader(io.StringIO(said("--focus", *options))))
    assert sum(float(row["BilledCost"]) for row in focus) == pytest.approx(1.5, abs=1e-9)
    assert "total" in said("--top", "2", *options)


def test_two_are_compared_side_by_side(home: Path, midday: float) -> None:
    root = home / "kept"
    one = write_conversation(root, Call(midday, 0.5), identity="aaaaaaaa-0000-4000-8000-000000000001")
    other = write_conversation(root, Call(midday - DAY, 1.0), Call(midday - DAY, 0.5))
    where = ("--openhands", str(root), *UTC)
    text = said("compare", "aaaa", other, *where)
    assert re.search(r"cost +\$0\.5000\+ +\$1\.500\+ +\+200 %", text)
    assert re.search(r"calls +1 +2 +\+100 %", text)
    sides = json.loads(said("compare", day(midday), day(midday - DAY), "--json", *where))["sides"]
    assert [side["spend"]["total"]["accumulated_cost"] for side in sides] == [0.5, 1.5]
    rows = list(csv.reader(io.StringIO(said("compare", "model=gpt*", f"conversation={one}", "--csv", *where))))
    assert [row[1:] for row in rows if row[0] == "cost"] == [["2.0", "0.5"]]
    assert "| cost | $1.500\\+ | $0.5000\\+ |" in said("compare", other, "aaaa", "--markdown", *where).replace(
        "\\$", "$"
    )


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        (["--by", "day,,model"], "day,model"),
        (["--by", ""], "day,model"),
        (["--since", "soon"], "2026-11-20"),
        (["--since", "2026-11-31"], "2026-11-20"),
        (["--last", "7"], "30d"),
        (["--last", "7d", "--since", "today"], "name one of them"),
        (["--since", "2026-11-20", "--until", "2026-11-19"], "--until"),
        (["--timezone", "europe/berlin"], "Europe/Berlin"),
        (["--where", "model"], "model=gpt-5*"),
        (["--where", "day=2026-11-20"], "--since"),
        (["--top", "0"], "from 1 on"),
        (["--top", "many"], "--help"),
        (["--json", "--csv"], "not allowed with"),
        (["--focus", "--top", "3"], "leave out --top"),
        (["--openhands", "/nowhere/at/all"], "name a folder"),
        (["--viewer", "http://127.0.0.1:9"], "openhands-otel view"),
        (["--viewer", "nonsense"], "http://127.0.0.1:4318"),
        (["--viewer", "http://127.0.0.1:9", "--prometheus", "http://127.0.0.1:9"], "name one of them"),
        (["--viewer", "http://127.0.0.1:9", "--viewer", "http://127.0.0.1:8"], "name one of them"),
        (["--database", "one", "--database", "other"], "name one of them"),
        (["--prometheus", "http://127.0.0.1:9", "--prometheus", "http://127.0.0.1:8"], "name one of them"),
        (["--prometheus", "http://127.0.0.1:9"], "http://127.0.0.1:9"),
        (["--prometheus", "nonsense"], "http://127.0.0.1:9090"),
        (["--prometheus", "http://127.0.0.1:9", "--by", "conversation"], "group by"),
        (["--prometheus", "http://127.0.0.1:9", "--openhands", "."], "leave out --openhands"),
        (["--token-file", "/nowhere/token"], "/nowhere/token"),
        (["compare", "a"], "compare A B"),
        (["daily"], "--help"),
        (["compare", "nobody", "today"], "nothing was spent under 'nobody'"),
        (["compare", "today", "yesterday", "--since", "today"], "leave out --since"),
        (["compare", "today", "yesterday", "--by", "model"], "--by"),
        (["compare", "today", "yesterday", "--focus"], "--focus"),
    ],
)
def test_what_is_wrong_is_one_line_that_says_what_to_do(home: Path, options: list[str], cure: str) -> None:
    result = report(*options)
    assert result.returncode in (1, 2)
    assert (result.stdout, result.stderr.count("\n")) == ("", 1), result.stderr
    assert cure in result.stderr


def test_a_setting_that_names_no_zone_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_TIMEZONE", "Mars")
    result = report()
    assert result.stderr.startswith("openhands-otel: OPENHANDS_OTEL_VIEWER_TIMEZONE: 'Mars' is no time zone")
    assert result.stderr.count("\n") == 1


def test_a_name_that_nothing_has_is_said(home: Path, midday: float) -> None:
    root = ("--openhands", str(home / "kept"))
    write_conversation(home / "kept", Call(midday, 0.5))
    for form in ((), ("--markdown",)):
        assert "is it model that is meant" in said("--by", "day,modle", *root, *form)
        assert "Nothing has a label 'team'" in said("--by", "team", *root, *form)
        assert "Nothing has a label" not in said("--by", "model,run", *root, *form)
        assert "Nothing was found" in said("--where", "team=a", *root, *form)


def test_a_zone_without_a_name_is_the_viewers_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    with running_viewer() as viewer:
        viewer.send(Sender("p").spend(0.5))
        assert spend("--viewer", viewer.url)["timezone"] == "local"
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_TIMEZONE", "Asia/Kathmandu")
    with running_viewer() as viewer:
        result = report("--viewer", viewer.url, "--timezone", "local")
        assert "--timezone" in result.stderr
        assert result.stderr.count("\n") == 1


def test_files_that_cannot_be_read_are_counted_and_named_when_asked_for(home: Path, midday: float) -> None:
    root = home / "kept"
    write_conversation(root, Call(midday, 0.5))
    (root / "broken").mkdir()
    (root / "broken" / "base_state.json").write_text("{")
    assert "not wholly: 1 (--verbose names each)" in said("--openhands", str(root))
    result = report("--openhands", str(root), "--verbose")
    assert result.returncode == 0
    assert str(root / "broken") in result.stderr
    assert "$0.5000+" in result.stdout


def test_names_of_strangers_do_nothing_to_a_terminal(home: Path, midday: float) -> None:
    root = home / "kept"
    write_conversation(root, Call(midday, 0.5, "\x1b]0;pwned\x07=1+1\n|<script>"))
    for form in ((), ("--json",), ("--csv",), ("--markdown",), ("--focus",)):
        text = said("--openhands", str(root), *form)
        assert not set(text) & {"\x1b", "\x07", "\r"}
    assert "<script>" not in said("--openhands", str(root), "--markdown")


# ---------------------------------------------------------------- a viewer beside the files

HOUR = 3_600


def test_each_dollar_counts_once_whether_the_viewer_runs_or_not(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    before, during = now - 3 * HOUR, now - HOUR
    # Instrumented from the second call on; a process of which no viewer knows; and one that left nothing on disk.
    root = home / ".openhands" / "conversations"
    held = write_conversation(root, Call(before, 0.5), Call(during, 0.25))
    other = write_conversation(root, Call(during, 4.0))
    database = tmp_path / "history.sqlite3"
    stamps = {"at": round(during * 1e9)}
    with running_viewer(database=database) as viewer:
        sender = Sender("p", start=round((during - 60) * 1e9))
        sender.introduce(held, **stamps).spend(0.25, model="gpt-5", **stamps)
        viewer.send(sender.converse(held, 0.25, model="gpt-5", **stamps))
        viewer.send(Sender("q", start=sender.start).spend(2.0, model="gpt-5", **stamps))
        ever = ("--last", "all", *UTC)
        expected = {held: 0.75, other: 4.0, "no conversation": 2.0}
        monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_PORT", viewer.url.rpartition(":")[2])
        assert costs(*ever, "--by", "conversation") == expected
        by_role = spend(*ever, "--by", "model,service", "--top", "1")
        assert by_role["total"]["accumulated_cost"] == sum(expected.values())
        assert by_role["total"]["read_cost"] == 4.5
        assert costs("--viewer", viewer.url, *ever, "--by", "conversation") == {held: 0.25, "no conversation": 2.0}
        both = ("--viewer", viewer.url, "--openhands", str(root), *ever)
        assert costs(*both, "--by", "conversation") == expected
        assert costs(*both, "--by", "model", "--where", f"conversation={held}") == {"gpt-5": 0.75}
        assert (
            spend("--viewer", viewer.url, "--last", "all", "--timezone", "Asia/Kathmandu")["timezone"]
            == "Asia/Kathmandu"
        )
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_DATABASE", str(database))
    assert costs(*ever, "--by", "conversation") == expected
    assert costs("--database", str(database), *ever, "--by", "conversation") == {held: 0.25, "no conversation": 2.0}
    assert costs("--openhands", str(root), *ever, "--by", "conversation") == {held: 0.75, other: 4.0}


def test_a_viewer_or_a_database_of_this_machine_that_cannot_be_asked_is_left_out_and_said(
    home: Path, midday: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_conversation(home / ".openhands" / "conversations", Call(midday, 0.5))
    database = tmp_path / "history.sqlite3"
    database.write_text("no database at all, but a text that somebody has written")
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_DATABASE", str(database))
    with answering(b"<html>") as url:
        monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_PORT", url.rpartition(":")[2])
        found = spend()
    assert found["total"]["accumulated_cost"] == 0.5
    viewers, history = found["remarks"]
    assert viewers.startswith("this machine's viewer is left out: ")
    assert history.startswith("this machine's history is left out: ")
    for options in (["--database", str(database)], ["--database", "/nowhere/history"]):
        result = report(*options)
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)


def test_what_was_imported_into_a_viewer_is_not_read_again(
    home: Path, midday: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = home / ".openhands" / "conversations"
    first = write_conversation(root, Call(midday, 0.5), Call(midday - DAY, 0.25))
    with running_viewer() as viewer:
        monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_PORT", viewer.url.rpartition(":")[2])
        with redirect_stdout(io.StringIO()):
            assert main(["import", "--openhands", str(root), "--endpoint", viewer.url]) == 0
        other = write_conversation(root, Call(midday, 4.0))
        for by in ("conversation", "model,conversation", "day,conversation"):
            found = spend("--by", by, *UTC)
            assert found["total"]["accumulated_cost"] == found["total"]["read_cost"] == 4.75
            assert {group["keys"]["conversation"] for group in found["groups"]} == {first, other}


def test_files_of_metrics_say_the_same_in_any_order_and_twice(home: Path, tmp_path: Path) -> None:
    now = time.time()
    stamps = {"at": round((now - HOUR) * 1e9)}
    folder, root = tmp_path / "metrics", home / "kept"
    held = write_conversation(root, Call(now - 3 * HOUR, 0.5), Call(now - HOUR, 0.25))
    sender = Sender("p", start=round((now - 2 * HOUR) * 1e9)).introduce(held, **stamps)
    sender.spend(0.25, model="gpt-5", **stamps).converse(held, 0.25, model="gpt-5", **stamps)
    (folder / "a").mkdir(parents=True)
    line = encode_line(ExportMetricsServiceRequest.FromString(sender.body()))
    (folder / "a" / "one.jsonl").write_bytes(line)
    (folder / "two.jsonl").write_bytes(line + line + b"{}}\n")
    ever = ("--last", "all", *UTC, "--files", str(folder))
    found = spend(*ever, "--by", "model")
    assert [(each["keys"], each["accumulated_cost"]) for each in found["groups"]] == [({"model": "gpt-5"}, 0.25)]
    assert found["remarks"] == ["What could not be read, or not wholly: 1 (--verbose names each)"]
    assert str(folder / "two.jsonl") in report(*ever, "--verbose").stderr
    assert costs(*ever, "--by", "conversation", "--openhands", str(root)) == {held: 0.75}
    for options in (["--files", str(root)], ["--files", "/nowhere"], [*ever, "--viewer", "http://127.0.0.1:9"]):
        result = report(*options)
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)


def test_an_evaluations_results_stand_with_what_each_instance_and_attempt_cost(home: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    outputs.mkdir()

    def result(instance: str, attempt: int, cost: float, **more: object) -> str:
        found = {"instance_id": instance, "attempt": attempt, "test_result": {}, "history": [{"a": 1}]} | more
        return json.dumps(found | {"metrics": {"accumulated_cost": cost}}) + "\n"

    first = result("django-1", 1, 0.5, error="it broke") + result("astropy-1", 1, 1.0, test_result={"resolved": True})
    second = result("django-1", 2, 0.25, test_result={"report": {"resolved": False}}) + result("never-ran", 2, 0.0)
    (outputs / "output.critic_attempt_1.jsonl").write_text(first)
    (outputs / "output.critic_attempt_2.jsonl").write_text(second)
    (outputs / "output.jsonl").write_text(first.splitlines()[1] + "\n" + second + "{half of a li")
    with running_viewer() as viewer:
        sender = Sender("p").spend(1.875)
        for instance, attempt, cost in (("django-1", 1, 0.625), ("django-1", 2, 0.25), ("astropy-1", 1, 1.0)):
            about = {semconv.CONVERSATION_ID: f"{instance}-{attempt}", semconv.REQUEST_MODEL: "gpt-5"}
            label = {"openhands.label.instance": instance, "openhands.label.attempt": str(attempt)}
            sender.add(semconv.CONVERSATION_COST, cost, about | label)
        viewer.send(sender)
        where = ("--viewer", viewer.url, "--evaluation", str(outputs))
        found = spend(*where)
        assert [(*each["keys"].values(), each["accumulated_cost"], each["outcome"]) for each in found["groups"]] == [
            ("astropy-1", "1", 1.0, "resolved"),
            ("django-1", "1", 0.625, "error"),
            ("django-1", "2", 0.25, "unresolved"),
            ("never-ran", "2", 0.0, "done"),
        ]
        assert found["total"]["accumulated_cost"] == 1.875
        assert found["remarks"] == [
            "What could not be read, or not wholly: 1 (--verbose names each)",
            "The evaluation's own figures, of 4 attempts, add up to $1.750",
        ]
        by_instance = spend(*where, "--by", "instance")
        assert {each["keys"]["instance"]: each["outcome"] for each in by_instance["groups"]} == {
            "astropy-1": "resolved",
            "django-1": "unresolved",
            "never-ran": "done",
        }
        assert re.search(r"django-1 +\$0\.8750", said(*where))
        assert f"{day(time.time())}/django-1" in costs(*where, "--by", "day,instance", *UTC)
    for options in (["--evaluation", str(outputs), "--by", "model"], ["--evaluation", "/nowhere/output.jsonl"]):
        result_of = report(*options)
        assert (result_of.stdout, result_of.stderr.count("\n")) == ("", 1)


def test_a_token_is_shown(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a-secret")
    with running_viewer(token="a-secret") as viewer:
        viewer.send(Sender("p").spend(0.75))
        assert "token" in report("--viewer", viewer.url).stderr
        assert spend("--viewer", viewer.url, "--token-file", str(file))["total"]["accumulated_cost"] == 0.75


def test_nothing_heavy_is_imported_for_files_alone(home: Path) -> None:
    program = "import sys; from openhands_otel._internal.cli import main; main(['report']); print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "'openhands_otel._internal.report.table'" in modules
    for heavy in ("httpx", "rich", "opentelemetry.sdk", "grpc", "starlette", "openhands.sdk", "litellm"):
        assert f"'{heavy}'" not in modules
