"""``openhands-otel forget`` as a user gives it: with viewers before and after, and a process that goes on."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from viewer_process import Viewer, running_viewer, start_viewer, wait_for

from forked import Prepared
from openhands_otel import semconv
from openhands_otel._internal.cli import main
from openhands_otel._internal.demo.llm_server import LLMServer
from openhands_otel._internal.export.spool.destination import Destination
from openhands_otel._internal.export.spool.file import NEWEST, Owed, Spool, SpooledRequest
from openhands_otel._internal.export.spool.folder import SPOOL_SUFFIX, LockedFile, usable_folder
from otlp_sender import Sender

PROGRAM = """
import sys
from openhands.sdk import LLM, Agent, LocalConversation

llm = LLM(model="openai/gpt-4o", base_url=sys.argv[1], api_key="x", num_retries=0)
talk = LocalConversation(agent=Agent(llm=llm, tools=[]), workspace=sys.argv[2], visualizer=None)
print(talk.id, flush=True)
for line in sys.stdin:
    talk.send_message(line)
    talk.run()
    print("done", flush=True)
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "history" / "file.sqlite3"


def forget(*words: str) -> int:
    return main(["forget", *words])


def filled(database: Path) -> None:
    with running_viewer(database=database) as viewer:
        viewer.send(Sender("i1", "secretsvc").spend(1.0).converse("conv-one", 1.0).introduce("conv-one"))
        viewer.send(Sender("i2", "other").spend(0.5, model="claude").converse("conv-two", 0.5, model="claude"))


def cost_of(database: Path) -> float:
    with running_viewer(database=database) as viewer:
        told = viewer.state().totals.accumulated_cost
        for by in ("service", "model", "conversation", "day"):
            spent = viewer.http.get("/api/v1/spend", params={"by": by}).raise_for_status().json()
            assert sum(group["accumulated_cost"] for group in spent["groups"]) == pytest.approx(told, abs=1e-9)
        return told


def test_it_says_what_goes_asks_and_tells_what_went(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(database)
    options = ("--database", str(database))
    assert forget("--service", "secretsvc", "--dry-run", *options) == 0
    assert "would erase $1.0000" in capsys.readouterr().out
    assert cost_of(database) == 1.5
    assert forget("--service", "secretsvc", *options) == 2
    assert "--yes" in capsys.readouterr().err
    assert forget("--service", "nobody", "--yes", *options) == 0
    assert "Nothing of that" in capsys.readouterr().out
    assert forget("--service", "secretsvc", "--yes", *options) == 0
    assert "Erased $1.0000" in capsys.readouterr().out
    assert cost_of(database) == 0.5
    assert not [path for path in database.parent.iterdir() if b"secretsvc" in path.read_bytes()]
    assert forget("--list", *options) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert "$1.0000" in line
    assert "service #" in line


def test_a_person_is_asked(database: Path) -> None:
    filled(database)
    for answer, left in (("n", 1.5), ("y", 1.0)):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "openhands_otel", "forget", "--conversation", "conv-two"]
        process = subprocess.Popen([*command, "--database", str(database)], stdin=theirs, stdout=subprocess.PIPE)
        os.write(ours, f"{answer}\n".encode())
        said, _ = process.communicate(timeout=100)
        os.close(ours)
        os.close(theirs)
        assert b"Erase it?" in said
        assert cost_of(database) == left


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        ([], 2, "say what is to be erased"),
        (["--label", "team"], 2, "NAME=VALUE"),
        (["--since", "soon"], 1, "no time"),
        (["--since", "2026-11-20", "--until", "2026-11-01"], 1, "until must be after since"),
        (["--service", "x", "--database", "nowhere"], 1, "there is no nowhere"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    words: list[str], code: int, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert forget(*words) == code
    [line] = capsys.readouterr().err.splitlines()
    assert what in line


def test_a_viewers_file_is_left_to_it(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_viewer(database=database) as viewer:
        viewer.send(Sender("i1").spend(1.0))
        assert forget("--service", "agent", "--yes", "--database", str(database)) == 1
        [line] = capsys.readouterr().err.splitlines()
        assert "in use" in line
        assert "stop" in line
        assert viewer.state().totals.accumulated_cost == 1.0


def test_what_a_killed_viewer_took_is_forgotten_too(database: Path) -> None:
    viewer = start_viewer(database=database)
    viewer.send(Sender("i1", "secretsvc").spend(1.0).converse("conv-one", 1.0))
    viewer.process.kill()
    viewer.process.wait()
    viewer.http.close()
    assert forget("--service", "secretsvc", "--yes", "--database", str(database)) == 0
    assert not [path for path in database.parent.iterdir() if b"secretsvc" in path.read_bytes()]
    assert cost_of(database) == 0.0


def test_spools_that_tell_of_it_alone_are_dropped(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(database)
    there = Destination.of("http/protobuf", "http://127.0.0.1:1/v1/metrics", True)
    for name, service, ids in (("aaaaaaaa", "secretsvc", "a"), ("bbbbbbbb", "other", "ab"), ("cccccccc", "other", "a")):
        sender = Sender(name, service).spend(0.5 * len(ids))
        for conversation in ids:
            sender.converse(f"conv-{conversation}", 0.5)
        parts = [SpooledRequest(NEWEST, 1, sender.body())]
        about = {"started": 1, "written": 1, "reason": "nobody is there", "owed": Owed(1.0, 1), "parts": parts}
        spool = Spool(name, service, 7, there, **about)
        file = LockedFile(usable_folder() / f"{name}{SPOOL_SUFFIX}")
        file.write(spool)
        file.release()
    assert forget("--service", "secretsvc", "--yes", "--database", str(database)) == 0
    assert "dropped the spool aaaaaaaa" in capsys.readouterr().out
    assert forget("--conversation", "conv-a", "--yes", "--database", str(database)) == 1
    told = capsys.readouterr()
    assert "dropped the spool cccccccc" in told.out
    assert "bbbbbbbb tells of others too" in told.err
    assert [path.name for path in usable_folder().iterdir()] == [f"bbbbbbbb{SPOOL_SUFFIX}"]


def test_spools_are_told_apart_by_labels_of_calls_too(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(database)
    there = Destination.of("http/protobuf", "http://127.0.0.1:1/v1/metrics", True)
    of_teams = {"aaaaaaaa": ["red"], "bbbbbbbb": ["red", ""], "cccccccc": ["blue"], "dddddddd": ["red"]}
    for name, teams in of_teams.items():
        # Of the last one half was spent in no conversation.
        spent = 1.0 if name == "dddddddd" else 0.5 * len(teams)
        sender = Sender(name).introduce("c").state("c", "running").spend(spent)
        for team in teams:
            labels = {f"{semconv.LABEL_PREFIX}team": team} if team else {}
            sender.add(semconv.CONVERSATION_COST, 0.5, {semconv.CONVERSATION_ID: "c", **labels})
        parts = [SpooledRequest(NEWEST, 1, sender.body())]
        spool = Spool(name, "agent", 7, there, started=1, written=1, reason="nobody", owed=Owed(1.0, 1), parts=parts)
        file = LockedFile(usable_folder() / f"{name}{SPOOL_SUFFIX}")
        file.write(spool)
        file.release()
    assert forget("--label", "team=red", "--yes", "--database", str(database)) == 1
    told = capsys.readouterr()
    assert "dropped the spool aaaaaaaa" in told.out
    assert "bbbbbbbb tells of others too" in told.err
    assert "dddddddd tells of others too" in told.err
    assert sorted(path.name for path in usable_folder().iterdir()) == [
        f"bbbbbbbb{SPOOL_SUFFIX}",
        f"cccccccc{SPOOL_SUFFIX}",
        f"dddddddd{SPOOL_SUFFIX}",
    ]


@pytest.mark.parametrize("what", ["--conversation", "--service"])
def test_of_a_process_that_goes_on_counts_what_it_spends_afterwards(
    what: str, database: Path, tmp_path: Path, llm_server: LLMServer, prepared: Prepared
) -> None:
    """The bill of the provider says what that is. The process finds OpenHands imported."""
    viewer = start_viewer(database=database)
    port = int(viewer.url.rpartition(":")[2])
    pipe = tmp_path / "in"
    os.mkfifo(pipe)
    process = prepared.run(
        PROGRAM,
        tmp_path,
        "--endpoint",
        viewer.url,
        arguments=[llm_server.base_url(None), str(tmp_path)],
        stdin=pipe,
        OTEL_SERVICE_NAME="bot",
        OTEL_TRACES_EXPORTER="none",
    )
    # It opens as soon as the process reads.
    orders = pipe.open("w")
    conversation = process.first_line()

    def work() -> None:
        done = process.out.count("done")
        orders.write("hello\n")
        orders.flush()

        def more() -> bool:
            assert process.poll() is None, process.err
            return process.out.count("done\n") > done

        wait_for(more, "the answer to an order", 500)

    def costs(viewer: Viewer, cost: float) -> bool:
        return viewer.state().totals.accumulated_cost == pytest.approx(cost, abs=1e-9)

    work()
    first = llm_server.provider.bill.total
    wait_for(lambda: costs(viewer, first), "the first call's cost")
    viewer.stop()
    value = {"--conversation": conversation, "--service": "bot"}[what]
    assert forget(what, value, "--yes", "--database", str(database)) == 0
    viewer = start_viewer(database=database, port=port)
    try:
        assert costs(viewer, 0.0)
        work()
        then = llm_server.provider.bill.total - first
        assert then > 0
        wait_for(lambda: costs(viewer, then), "what it spent afterwards")
        [card] = viewer.state().conversations
        assert card.conversation_id == conversation
        assert card.accumulated_cost == pytest.approx(then, abs=1e-9)
        orders.close()
        process.wait(100)
        wait_for(lambda: costs(viewer, then), "the same at its end")
    finally:
        viewer.stop()
    assert cost_of(database) == pytest.approx(then, abs=1e-9)
