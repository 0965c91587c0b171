"""How long it takes to ask a year of a hundred agents: the report, one line of status, the API, the page; and ccusage.

The database is filled and added up by the archive's own ways, with a conversation a day for each agent. ccusage (npm)
reads as many calls as there are rows, in the files that Claude Code leaves. Times are of whole processes or requests,
warm, medians of five.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from openhands_otel._internal.collector.archive.blocks import add_up
from openhands_otel._internal.collector.archive.schema import connect
from openhands_otel._internal.collector.archive.spend import book
from openhands_otel._internal.collector.state.placing import Booked, Cube, Place
from openhands_otel._internal.spend.amounts import Amount

COMMAND = [sys.executable, "-m", "openhands_otel"]
CCUSAGE = "ccusage@20.0.24"
MODELS = ["gpt-5", "gpt-5-mini", "claude-sonnet", "gemini-2.5", "qwen3"]
AGENTS = 100
QUARTER_S = 900
ROUNDS = 5


def rows(days: int, quarters_a_day: int) -> Iterator[Booked]:
    """What each agent spent in each quarter-hour that it worked: as its process says, and as its conversation does."""
    today = int(time.time()) // 86_400 * 86_400
    chance = random.Random(1)
    for day in range(days):
        begin = today - day * 86_400
        for agent in range(AGENTS):
            model = MODELS[agent % len(MODELS)]
            process = Place(Cube.FLEET, "", f"service-{agent % 7}", provider="p", model=model, role="agent")
            told = process._replace(cube=Cube.CONVERSATIONS, conversation=f"{day}-{agent}", usage_id="agent")
            first = chance.randrange(96 - quarters_a_day)
            for quarter in range(first, first + quarters_a_day):
                for place in (process, told):
                    amount = Amount(prompt_tokens=9_000, completion_tokens=700, cache_read_tokens=5_000, calls=3)
                    amount.cost.add(chance.random())
                    yield begin + quarter * QUARTER_S, place, amount


def fill(database: Path, wanted: int) -> int:
    """Fill a database; returns how many rows it has."""
    connection = connect(database)
    quarters_a_day = max(1, wanted * 6 // 7 // (365 * AGENTS))
    with connection:
        book(connection, rows(365, quarters_a_day))
    while add_up(connection, time.time()):
        pass
    (count,) = connection.execute("SELECT count(*) FROM spend").fetchone()
    connection.close()
    return int(count)


def median_s(work: Callable[[], Any]) -> float:
    """Warm, in seconds."""
    work()
    times: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def run(*words: str, **environment: str) -> str:
    done = subprocess.run([*words], capture_output=True, text=True, check=True, env=os.environ | environment)
    return done.stdout


def memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def measure(database: Path) -> Iterator[tuple[str, float]]:
    """Each question with its time."""
    environment = {
        "HOME": str(database.parent),
        "XDG_STATE_HOME": str(database.parent),
        # Else nothing is warm where modules are not to be kept compiled.
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(database.parent / "compiled"),
    }
    command = [*COMMAND, "view", "--ready-json", "--database", str(database), "--port", "0", "--grpc-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment) as viewer:
        try:
            assert viewer.stdout is not None
            url = json.loads(viewer.stdout.readline())["url"]
            http = httpx.Client(base_url=url, timeout=60)
            before = memory_mb(viewer.pid)
            by = ["--by", "day,model"]
            yield (
                "report --by day,model, 7 days",
                median_s(lambda: run(*COMMAND, "report", *by, "--viewer", url, **environment)),
            )
            yield (
                "report --by day,model, the year",
                median_s(lambda: run(*COMMAND, "report", *by, "--last", "all", "--viewer", url, **environment)),
            )
            yield (
                "report of the file, the year",
                median_s(
                    lambda: run(*COMMAND, "report", *by, "--last", "all", "--database", str(database), **environment)
                ),
            )
            yield "status", median_s(lambda: run(*COMMAND, "status", url, **environment))
            for query in ("by=day,model", "by=model", "by=conversation&last=7d", "by=hour&last=30d"):
                yield (
                    f"API {query}",
                    median_s(lambda query=query: http.get(f"/api/v1/spend?{query}").raise_for_status()),
                )
            yield "page", median_s(lambda: http.get("/").raise_for_status())
            print(f"viewer's memory: {before:.0f} MB at first, {memory_mb(viewer.pid):.0f} MB afterwards")
        finally:
            viewer.terminate()


def claude_calls(folder: Path, count: int) -> None:
    """As many calls as Claude Code would have left, a session for each thousand."""
    project = folder / ".claude/projects/-work"
    project.mkdir(parents=True)
    now = int(time.time())
    for session in range(0, count, 1_000):
        name = f"00000000-0000-4000-8000-{session:012}"
        with (project / f"{name}.jsonl").open("w") as file:
            for number in range(session, min(session + 1_000, count)):
                at = datetime.fromtimestamp(now - number * 365 * 86_400 // count, UTC)
                call = {
                    "parentUuid": None,
                    "isSidechain": False,
                    "userType": "external",
                    "cwd": "/work",
                    "sessionId": name,
                    "version": "1.0.80",
                    "gitBranch": "",
                    "type": "assistant",
                    "uuid": f"u{number}",
                    "timestamp": at.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
                    "requestId": f"req_{number}",
                    "message": {
                        "id": f"msg_{number}",
                        "type": "message",
                        "role": "assistant",
                        "model": "claude-sonnet-4-20250514",
                        "content": [],
                        "usage": {
                            "input_tokens": 4_000,
                            "output_tokens": 700,
                            "cache_creation_input_tokens": 0,
                            "cache_read_input_tokens": 5_000,
                        },
                    },
                }
                file.write(json.dumps(call, separators=(",", ":")) + "\n")


def ccusage(folder: Path, count: int) -> float | None:
    """Seconds of ``ccusage daily`` over so many calls; None where it cannot be had."""
    npm = shutil.which("npm")
    if npm is None:
        return None
    try:
        run(npm, "install", "--prefix", str(folder), CCUSAGE)
        claude_calls(folder, count)
        binary = str(folder / "node_modules/.bin/ccusage")
        last: list[str] = []

        def daily() -> None:
            last[:] = [run(binary, "claude", "daily", "--offline", "--json", HOME=str(folder))]

        seconds = median_s(daily)
    except subprocess.CalledProcessError as error:
        print(f"ccusage cannot be run here: {(error.stderr or '').strip().splitlines()[-1:]}")
        return None
    seen = json.loads(last[0])["totals"]["outputTokens"] // 700
    print(f"ccusage read {seen:,} calls")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the database, about (1,000,000)")
    wanted = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = folder / "history.sqlite3"
        began = time.perf_counter()
        count = fill(database, wanted)
        size_mb = database.stat().st_size / 1024**2
        print(f"{count:,} rows booked in {time.perf_counter() - began:.0f} s, {size_mb:.0f} MB, SQLite", end=" ")
        print(sqlite3.sqlite_version)
        for what, seconds in measure(database):
            print(f"{what:36}{seconds * 1000:9.0f} ms", flush=True)
        seconds = ccusage(folder / "ccusage", count)
        if seconds is not None:
            print(f"{'ccusage daily, as many calls':36}{seconds * 1000:9.0f} ms")


if __name__ == "__main__":
    main()
