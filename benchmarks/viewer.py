"""A crowd of agents, a crowd of viewers, one viewer process on one core: what arrives when, and what is lost.

The viewer has the first core to itself; agents and viewers are two processes of their own on the others. Agents send
recorded requests over sockets that stay open: one update a second each, in which only cost and stamps differ. Viewers
read the event stream and look for the moment of receipt that each event carries: time runs from there to the moment at
which a viewer has read the event, by the machine's clock. At the end the totals are compared with what was sent.
Beside it: how many requests the viewer takes as fast as it can, without viewers; those of agents, with one update each,
and those of an OpenTelemetry Collector, whose batch processor puts the updates of many agents into one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from openhands_otel import semconv
from otlp_sender import Sender

CORES = sorted(os.sched_getaffinity(0))
CONNECTIONS = 100
RECEIPT = re.compile(rb'"received_unix_nano":(\d{19})')
STEP = 0.001
MARK = 123.456
POINTS = 6
"""Of one agent's update."""
BATCH = 8192
"""Points of a batch processor's request, by its default."""
AT = 0x1122334455667788


def update(number: int) -> bytes:
    """What one agent says."""
    sender = Sender(f"agent-{number}", f"service-{number % 20}")
    name = f"conversation-{number}"
    calls = {semconv.CONVERSATION_ID: name, semconv.REQUEST_MODEL: "gpt", semconv.USAGE_ID: "agent"}
    sender.spend(MARK, at=AT).converse(name, MARK, at=AT).add(semconv.CALLS, 1, {semconv.REQUEST_MODEL: "gpt"}, at=AT)
    sender.introduce(name, at=AT).state(name, semconv.Status.RUNNING, at=AT).add(
        semconv.CONVERSATION_CALLS, 1, calls, at=AT
    )
    return sender.body()


class Recorded:
    """A request of some agents; the next is the same but for cost and stamps."""

    def __init__(self, agents: Sequence[int], host: str) -> None:
        body = b"".join(map(update, agents))
        head = (
            f"POST /v1/metrics HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/x-protobuf\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        self.bytes = bytearray(head.encode() + body)
        self.costs = list(places(self.bytes, struct.pack("<d", MARK)))
        self.stamps = list(places(self.bytes, struct.pack("<Q", AT)))
        assert len(self.costs) == 2 * len(agents)
        assert len(self.stamps) == POINTS * len(agents)
        self._each = 0.0
        self._agents = len(agents)

    @property
    def cost(self) -> float:
        """What all of them have spent."""
        return self._each * self._agents

    def next(self) -> bytes:
        self._each += STEP
        for place in self.costs:
            struct.pack_into("<d", self.bytes, place, self._each)
        now = time.time_ns()
        for place in self.stamps:
            struct.pack_into("<Q", self.bytes, place, now)
        return bytes(self.bytes)


def places(where: bytearray, what: bytes) -> Iterator[int]:
    found = where.find(what)
    while found >= 0:
        yield found
        found = where.find(what, found + 1)


async def answered(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head[:20], head
    length = int(re.search(rb"content-length: (\d+)", head.lower())[1])  # type: ignore[index]
    await reader.readexactly(length)


async def send(address: tuple[str, int], agents: list[Recorded], seconds: float, pace_s: float | None) -> int:
    """All these agents over one connection, each every ``pace_s``, or as fast as it goes; returns the requests."""
    reader, writer = await asyncio.open_connection(*address)
    begun, sent = time.monotonic(), 0
    while time.monotonic() - begun < seconds:
        for place, agent in enumerate(agents):
            if pace_s is not None:
                due = begun + (sent // len(agents) + place / len(agents)) * pace_s
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            writer.write(agent.next())
            await answered(reader)
            sent += 1
    writer.close()
    return sent


def load(
    url: str, count: int, together: int, seconds: float, pace_s: float | None, connections: int, answer: Any
) -> None:
    """So many agents, so many of them together in a request."""
    os.sched_setaffinity(0, CORES[1:] or CORES)
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 0)
    agents = [Recorded(range(count)[at : at + together], parts.netloc) for at in range(0, count, together)]

    async def run() -> int:
        shares = [agents[place::connections] for place in range(connections)]
        return sum(await asyncio.gather(*(send(address, share, seconds, pace_s) for share in shares if share)))

    begun = time.monotonic()
    sent = asyncio.run(run())
    answer.put((sent, time.monotonic() - begun, sum(agent.cost for agent in agents), time.process_time()))


async def view(address: tuple[str, int], told: str, until: float, seen: list[int], frames: list[int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    asked = b"GET /api/v1/events?told=%s HTTP/1.1\r\nhost: %s:%d\r\n\r\n"
    writer.write(asked % (told.encode(), address[0].encode(), address[1]))
    rest, greeted = b"", False
    while time.time() < until:
        try:
            data = await asyncio.wait_for(reader.read(1 << 20), 2)
        except TimeoutError:
            continue
        now = time.time_ns()
        frames[1] += len(data)
        *events, rest = (rest + data).split(b"\n\n")
        for event in events:
            # Totals go on being told when nothing more comes, with the moment at which the last of it came.
            if b"event: " in event and b"event: totals" not in event:
                if greeted:
                    seen.extend(now - int(found[1]) for found in RECEIPT.finditer(event))
                    frames[0] += 1
                greeted = True
    writer.close()


def look(url: str, told: str, viewers: int, until: float, answer: Any) -> None:
    os.sched_setaffinity(0, CORES[1:] or CORES)
    parts = urlsplit(url)
    seen: list[int] = []
    frames = [0, 0]

    async def run() -> None:
        address = (parts.hostname or "", parts.port or 0)
        await asyncio.gather(*(view(address, told, until, seen, frames) for _ in range(viewers)))

    asyncio.run(run())
    seen.sort()
    quantiles = [seen[int(len(seen) * share)] / 1e6 if seen else 0.0 for share in (0.5, 0.99)]
    answer.put((len(seen), *quantiles, *frames, time.process_time()))


@contextmanager
def viewer() -> Iterator[tuple[str, int]]:
    with tempfile.TemporaryDirectory() as folder:
        command = ["taskset", "-c", str(CORES[0]), sys.executable, "-m", "openhands_otel", "view", "--ready-json"]
        command += ["--port", "0", "--grpc-port", "0", "--database", f"{folder}/history.sqlite3"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            ready = json.loads(process.stdout.readline())
            yield ready["url"], ready["pid"]
        finally:
            process.terminate()
            process.wait(60)


def rss_mb(pid: int) -> float:
    return next(int(line.split()[1]) for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS")) / 1024


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spent(url: str) -> float:
    with urlopen(f"{url}/api/v1/totals", timeout=60) as answer:
        return float(json.load(answer)["totals"]["accumulated_cost"])


def crowd(agents: int, viewers: int, told: str, seconds: float) -> None:
    context = multiprocessing.get_context("spawn")
    with viewer() as (url, pid):
        from_agents, from_viewers = context.Queue(), context.Queue()
        until = time.time() + seconds + 8
        looking = context.Process(target=look, args=(url, told, viewers, until, from_viewers))
        looking.start()
        time.sleep(3)
        sending = context.Process(target=load, args=(url, agents, 1, seconds, 1.0, CONNECTIONS, from_agents))
        sending.start()
        time.sleep(min(5, seconds / 3))
        early, cpu, at = rss_mb(pid), cpu_s(pid), time.monotonic()
        sent, took, cost, load_cpu = from_agents.get()
        share = (cpu_s(pid) - cpu) / (time.monotonic() - at)
        late = rss_mb(pid)
        seen, middle, most, frames, size, view_cpu = from_viewers.get()
        sending.join()
        looking.join()
        lost = cost - spent(url)
    print(f"{agents} agents at one update a second, {viewers} viewers, {seconds:g} s:")
    print(f"  sent {sent:,} requests in {took:.1f} s ({sent / took:,.0f}/s), ${cost:,.3f}, not counted: ${lost:.9f}")
    print(f"  receipt to viewer: median {middle:.0f} ms, p99 {most:.0f} ms ({seen:,} receipts, {frames:,} events,"
          f" {size / viewers / seconds / 1e3:,.0f} kB/s a viewer)")  # fmt: skip
    print(f"  viewer: {share:.0%} of its core, RSS {early:.0f} MB -> {late:.0f} MB; CPU of agents {load_cpu:.1f} s,"
          f" of viewers {view_cpu:.1f} s")  # fmt: skip


def flood(seconds: float, count: int, together: int, connections: int) -> None:
    """``together`` agents in each request."""
    context = multiprocessing.get_context("spawn")
    with viewer() as (url, pid):
        answer, cpu = context.Queue(), cpu_s(pid)
        sending = context.Process(target=load, args=(url, count, together, seconds, None, connections, answer))
        sending.start()
        sent, took, cost, _ = answer.get()
        sending.join()
        cpu = cpu_s(pid) - cpu
        lost = cost - spent(url)
    points = POINTS * sent * together
    print(f"as fast as it goes, no viewer, {POINTS * together:,} points a request: {sent / took:,.1f} requests/s"
          f" ({cpu / sent * 1e6:,.0f} us of CPU each, {cpu / points * 1e6:.1f} a point),"
          f" {points / took * 60:,.0f} points a minute, not counted: ${lost:.9f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--told", choices=["changes", "rows"], default="changes", help="as the page, or as programs")
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()
    crowd(arguments.agents, arguments.viewers, arguments.told, arguments.seconds)
    flood(min(arguments.seconds, 20), 200, 1, 20)
    flood(min(arguments.seconds, 20), 2 * (BATCH // POINTS), BATCH // POINTS, 2)


if __name__ == "__main__":
    main()
