"""``watch`` on a real viewer, driven by keys: what stands on the screen, and what becomes of it.

The screens of the size of common terminals are kept in ``screens/``; ``KEEP_SCREENS=1`` writes them anew.
"""

from __future__ import annotations

import asyncio
import html
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest
from textual.pilot import Pilot
from viewer_process import Viewer, running_viewer, start_viewer, wait_for

from openhands_otel import semconv
from openhands_otel._internal.terminal.app import WatchApp
from openhands_otel._internal.terminal.detail import Detail
from openhands_otel._internal.terminal.in_period import InPeriod
from openhands_otel._internal.terminal.live import Live
from openhands_otel._internal.terminal.overview import Overview
from openhands_otel.client import AsyncStatsClient, Unreachable
from otlp_sender import Sender
from terminal.scene import AGENTS, NS, TOTAL, id_of, line_with, play, screen, sender_of, shows, spend, watching

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "terminal.svg"
SCREENS = Path(__file__).parent / "screens"
SIZES = [(80, 24), (120, 40), (200, 50)]
WAITING, FIRST = "index-rewrite", "checkout-fix"


@pytest.fixture(scope="module")
def moment() -> float:
    """When all of it is looked at, unix seconds."""
    return int(time.time()) + 0.5


@pytest.fixture(scope="module")
def viewer(moment: float) -> Iterator[Viewer]:
    """Nobody sends anything to it but what is there at first."""
    with running_viewer() as viewer:
        play(viewer, int(moment))
        yield viewer


async def there(pilot: Pilot[None], app: WatchApp, *texts: str) -> list[str]:
    """The screen once all of these stand on it."""
    return await shows(pilot, app, lambda lines: all(text in "\n".join(lines) for text in texts), " and ".join(texts))


async def not_there(pilot: Pilot[None], app: WatchApp, text: str) -> list[str]:
    return await shows(pilot, app, lambda lines: text not in "\n".join(lines), f"a screen without {text}")


async def overview(pilot: Pilot[None], app: WatchApp) -> list[str]:
    """The first screen with all that it asks for."""
    return await there(pilot, app, "terraform-drift", "in all", "total")


async def kept(pilot: Pilot[None], app: WatchApp, name: str) -> None:
    """The screen becomes what was kept: what is asked for comes piece by piece."""
    file = SCREENS / f"{name}.txt"
    if os.environ.get("KEEP_SCREENS"):
        await pilot.pause(3)
        file.write_text("\n".join(screen(app)) + "\n")
    wanted = file.read_text().splitlines()
    await shows(pilot, app, lambda lines: lines == wanted, f"{file.name} (KEEP_SCREENS=1 keeps another)")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_screens_are_as_they_were_kept(viewer: Viewer, moment: float, size: tuple[int, int]) -> None:
    async def look() -> None:
        name = f"{size[0]}x{size[1]}"
        async with watching(viewer, size, moment) as (pilot, app):
            await overview(pilot, app)
            await kept(pilot, app, f"overview-{name}")
            await pilot.press(*["down"] * 3, "enter")
            await there(pilot, app, "20 rows, 3 running")
            await kept(pilot, app, f"timeline-{name}")
            await pilot.press("f1")
            await kept(pilot, app, f"help-{name}")

    asyncio.run(look())


def test_the_picture_in_the_docs_is_the_kept_screen(viewer: Viewer, moment: float) -> None:
    async def take() -> None:
        async with watching(viewer, (120, 40), moment) as (pilot, app):
            await kept(pilot, app, "overview-120x40")
            # Nothing from elsewhere: a terminal's letters are the reader's own.
            elsewhere = re.compile(r"@font-face \{.*?\}\s*|<!--.*?-->", re.DOTALL)
            PICTURE.write_text(elsewhere.sub("", app.export_screenshot()))

    if os.environ.get("KEEP_SCREENS"):
        asyncio.run(take())
    picture = PICTURE.read_text()
    assert "http" not in picture.replace("http://www.w3.org/", "")
    drawn = html.unescape(re.sub(r"<[^>]*>", "", picture))
    words = set((SCREENS / "overview-120x40.txt").read_text().split())
    assert {word for word in words if word not in drawn} == set()


def test_all_of_it_adds_up_to_what_was_billed(viewer: Viewer, moment: float) -> None:
    async def look() -> None:
        async with watching(viewer, (200, 50), moment) as (pilot, app):
            assert pytest.approx(1_234_585.806112) == TOTAL
            said = "$1,234,585.81"
            lines = await there(pilot, app, f"{said} in all", "8 conversations")
            assert line_with("8 conversations", lines).endswith("$1,234,585.81")
            assert not any("not in these rows" in line for line in lines), "there is no rest"
            for by in ("service", "role", "provider", "agent", "person", "project", "conversation"):
                await pilot.press("b")

                def adds_up(lines: list[str], by: str = by) -> bool:
                    first = next((at for at, line in enumerate(lines) if line.startswith(f"{by} ")), None)
                    return first is not None and any("total " in line and said in line for line in lines[first:])

                await shows(pilot, app, adds_up, by)

    asyncio.run(look())


def test_chips_filter_and_escape_takes_them_away(viewer: Viewer, moment: float) -> None:
    async def look() -> None:
        async with watching(viewer, (120, 40), moment) as (pilot, app):
            lines = await overview(pilot, app)
            assert "needs you:  1:waiting 1  2:stuck 1  3:failed 1  7:running 4  8:idle 5  9:ended 0" in lines
            await pilot.press("1")
            lines = await not_there(pilot, app, FIRST)
            assert WAITING in line_with("waits for you", lines)
            assert line_with("1 conversation ", lines).endswith("$0.0712")
            await pilot.press("escape")
            await there(pilot, app, FIRST)
            await pilot.press("slash", *"ada")
            await not_there(pilot, app, WAITING)
            await pilot.press("enter")
            await there(pilot, app, "4 conversations")
            await pilot.press("escape")
            await overview(pilot, app)
            # A row of where it went filters everywhere.
            await pilot.press("shift+tab", "down", "enter")
            lines = await there(pilot, app, "model=claude-opus-4-5", "2 conversations")
            await shows(pilot, app, lambda lines: lines[1].startswith("$1.321 in all"), "what these cost")
            await pilot.press("escape")
            await overview(pilot, app)

    asyncio.run(look())


def test_rows_hold_still_and_what_is_new_is_announced(moment: float) -> None:
    async def look(viewer: Viewer) -> None:
        async with watching(viewer, (120, 40)) as (pilot, app):
            lines = await overview(pilot, app)
            before = [line.split()[0] for line in lines if "-fix" in line or "index" in line or "terraform" in line]
            sender = sender_of(7, int(moment))
            spend(sender, id_of(7), 77.5, "gpt-5-mini", 9, at=time.time_ns())
            sender.state(id_of(7), "waiting_for_confirmation")
            viewer.send(sender)
            viewer.send(Sender("new").converse("fresh-one", 0.125).state("fresh-one", "running"))
            lines = await there(pilot, app, "$77.500", "1 new: F5")
            shown = [line.split()[0] for line in lines if "-fix" in line or "index" in line or "terraform" in line]
            assert shown == before
            assert "fresh-on" not in "\n".join(lines)
            await pilot.press("f5")
            lines = await there(pilot, app, "fresh-on")
            names = [line for line in lines if line[:8] in {id_of(7)[:8], id_of(1)[:8], id_of(0)[:8]}]
            assert [line[:8] for line in names][-1] == id_of(0)[:8], "who waits comes first, once it is asked for"
            assert "1 new" not in "\n".join(lines)
            await pilot.press("s")
            lines = await there(pilot, app, "$▼")
            ids = [line[:8] for line in lines if line[:8] in {id_of(number)[:8] for number in range(len(AGENTS))}]
            assert ids[:2] == [id_of(6)[:8], id_of(7)[:8]]

    with running_viewer() as viewer:
        play(viewer, int(moment))
        asyncio.run(look(viewer))


def test_one_conversation_has_its_timeline_calls_and_facts_and_grows(viewer: Viewer) -> None:
    async def look() -> None:
        async with watching(viewer, (120, 40)) as (pilot, app):
            await overview(pilot, app)
            await pilot.press(*["down"] * 3, "enter")
            lines = await there(pilot, app, "20 rows, 3 running", "TimeoutError")
            assert FIRST in lines[0]
            assert "$2.105 ($2.355 with sub-agents)" in lines[1]

            def bar_of_what_runs(lines: list[str]) -> str:
                return next(line for line in lines if "▶" in line)

            first = bar_of_what_runs(lines)
            await shows(pilot, app, lambda lines: bar_of_what_runs(lines) != first, "what runs has grown")
            await pilot.press("left")
            await there(pilot, app, "16 below")
            await pilot.press("c")
            lines = await there(pilot, app, "without a span here", "all 18 responses")
            amounts = [line.split("$")[-1] for line in lines if " agent " in line and "$" in line]
            assert sorted(map(float, amounts)) == pytest.approx([0.1 * step for step in range(1, 9)])
            assert line_with("without a span here", lines).endswith("-$1.495")
            assert line_with("all 18 responses", lines).endswith("$2.105")
            await pilot.press("f")
            lines = await there(pilot, app, id_of(0), "with sub-agents")
            assert "ada" in line_with("person", lines)
            await pilot.press("escape")
            await overview(pilot, app)

    asyncio.run(look())


def test_periods_are_asked_of_the_viewer(viewer: Viewer) -> None:
    async def look() -> None:
        async with watching(viewer, (120, 40), period="hour") as (pilot, app):
            for said in ("last hour", "today", "in 7 days", "in 30 days", "in all"):
                await shows(pilot, app, lambda lines, said=said: f"$1,234,585.81 {said}" in lines[1], said)
                await pilot.press("p")
            await shows(pilot, app, lambda lines: "last hour" in lines[1], "around again")

    asyncio.run(look())


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_lost_viewer_is_said_what_is_shown_is_marked_as_old_and_it_comes_back(
    how: str, tmp_path: Path, moment: float
) -> None:
    """Killed, the connection breaks; stopped, it only says nothing any more. Either way within five seconds."""

    async def look(viewer: Viewer) -> None:
        async with watching(viewer, (120, 40)) as (pilot, app):
            await overview(pilot, app)
            if how == "killed":
                viewer.process.kill()
                viewer.process.wait()
            else:
                viewer.process.send_signal(signal.SIGSTOP)
            lines = await there(pilot, app, "CUT OFF", "figures are old")
            assert "figures are old" in lines[0]
            assert FIRST in "\n".join(lines), "what was known is still there"
            if how == "killed":
                port = int(viewer.url.rpartition(":")[2])
                again.append(start_viewer(database=tmp_path / "history", port=port))
            else:
                viewer.process.send_signal(signal.SIGCONT)
            await shows(pilot, app, lambda lines: "live" in lines[0], "it is back")
            await overview(pilot, app)

    again: list[Viewer] = []
    viewer = start_viewer(database=tmp_path / "history")
    try:
        play(viewer, int(moment))
        asyncio.run(look(viewer))
    finally:
        for each in (viewer, *again):
            each.process.kill()
            each.process.wait()


@pytest.mark.parametrize("inside", [False, True])
def test_what_comes_while_it_closes_is_not_drawn_any_more(viewer: Viewer, moment: float, inside: bool) -> None:
    """Kind: a clock that ticks, or an answer that comes, when parts of the screen are gone already: a traceback."""

    async def look() -> None:
        async with watching(viewer, (120, 40), moment) as (pilot, app):
            await overview(pilot, app)
            if inside:
                await pilot.press(*["down"] * 3, "enter")
                await there(pilot, app, "20 rows, 3 running")
            screen = app.screen
        assert isinstance(screen, Overview | Detail)
        with app._context():
            screen.tick(True)
            if isinstance(screen, Overview):
                screen._where._said()

    asyncio.run(look())


@pytest.fixture(scope="module")
def old_viewer(moment: float) -> Iterator[Viewer]:
    """What goes on now, and 30 conversations of the last four days that are closed; memory holds ten."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENHANDS_OTEL_VIEWER_CONVERSATION_LIMIT", "10")
        # No day of a zone ends while it is looked at.
        patch.setenv("TZ", zone_at_noon(moment))
        with running_viewer() as viewer:
            play(viewer, int(moment))
            for number in range(OLD):
                viewer.send(closed_sender(number, int(moment)))
            wait_for(lambda: len(viewer.state().conversations) <= 10, "that old ones leave memory", timeout=100)
            yield viewer


OLD, OLD_COST = 30, 0.5


def zone_at_noon(moment: float) -> str:
    """A zone, as POSIX has it, in which it is about noon then."""
    ahead = 12 - int(moment % 86_400 // 3_600)
    return f"NOON{-ahead:+d}"


def closed_sender(number: int, at: int) -> Sender:
    """A conversation that ran for a quarter of an hour, each three hours before the next."""
    begun = at - (number + 1) * 10_800
    name = f"old-{number:02}"
    sender = Sender(f"o{number}", "old", begun * NS, {f"{semconv.LABEL_PREFIX}user": "zoe"})
    during, after = (begun + 600) * NS, (begun + 900) * NS
    sender.introduce(name, at=during).state(name, "finished", at=during)
    spend(sender, name, OLD_COST, "gpt-5", 1, at=during)
    described = {semconv.CONVERSATION_ID: name, semconv.AGENT_NAME: "Agent", semconv.SDK_VERSION: "1.58.0"}
    return sender.add(semconv.CONVERSATION_INFO, None, described, at=after)


def adds_up(lines: list[str], title: str, count: int) -> bool:
    """Whether each dollar of the period is that of a row, with so many of the past; what was over before has none."""
    heading, spent = any(title in line for line in lines), re.match(r"\$([\d,.]+) ", lines[1])
    sums = [line for line in lines if re.match(r"\d+ conversations|not in these rows", line)]
    costs = [line.split("$")[1].split()[0] for line in lines if line.startswith("old-")]
    return bool(heading and spent and len(sums) == 1) and (
        costs == ["0.5000"] * count and sums[0].endswith(f"${spent[1]}")  # pyright: ignore[reportOptionalSubscript]
    )


def test_what_left_memory_has_rows_too_and_they_add_up_to_each_period(old_viewer: Viewer) -> None:
    async def look() -> None:
        async with watching(old_viewer, (120, 60), period="all") as (pilot, app):
            all_of_it = TOTAL + OLD * OLD_COST
            lines = await there(pilot, app, f"{len(AGENTS) + OLD} conversations", "9:ended 30", "old-29")
            assert line_with(f"{len(AGENTS) + OLD} conversations", lines).endswith(f"${all_of_it:,.2f}")
            of_period = {
                "month": ("$ 30 days", 30),
                "week": ("$ 7 days", 30),
                "day": ("$ today", 4),
                "hour": ("$ hour", 0),
            }
            for command, (title, count) in of_period.items():
                await pilot.press("colon", *command, "enter")
                await shows(pilot, app, partial(adds_up, title=title, count=count), f"rows of that {command} alone")
            # One of the past, by its id; and a search that finds it.
            await pilot.press("colon", *"all", "enter")
            await there(pilot, app, "old-29")
            await pilot.press("slash", *"old", "minus", *"17", "enter")
            await there(pilot, app, "1 conversation ", "old-17")
            await pilot.press("enter")
            await there(pilot, app, "No spans of it are kept here.")
            await pilot.press("escape", "escape", "colon", "c", "space", *"old", "minus", *"03", "enter")
            lines = await there(pilot, app, "old-03", "closed")
            assert "old-03" in lines[0]

    asyncio.run(look())


def test_the_period_before_stands_beside_the_spend(old_viewer: Viewer) -> None:
    async def look() -> None:
        async with watching(old_viewer, (160, 40), period="today") as (pilot, app):
            await there(pilot, app, "(yesterday by now $")
            await pilot.press("colon", *"all", "enter")
            await not_there(pilot, app, "by now")

    asyncio.run(look())


@asynccontextmanager
async def in_front_of(viewer: Viewer, refused: bytes) -> AsyncIterator[tuple[Viewer, list[bytes]]]:
    """A proxy that has no answer to requests with this in them; and those that it had none to."""
    without: list[bytes] = []
    address = httpx.URL(viewer.url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_viewer, to_viewer = await asyncio.open_connection(address.host, address.port)

        async def answer() -> None:
            while data := await from_viewer.read(65_536):
                writer.write(data)

        answering = asyncio.create_task(answer())
        while data := await reader.read(65_536):
            if refused in data:
                without.append(data)
                writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
            else:
                to_viewer.write(data)
        to_viewer.close()
        await answering
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield replace(viewer, url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), without


def test_a_period_before_that_is_not_told_hides_nothing_else(old_viewer: Viewer) -> None:
    async def look() -> None:
        async with (
            in_front_of(old_viewer, b"since=yesterday") as (viewer, refused),
            watching(viewer, (160, 40), period="today") as (pilot, app),
        ):
            lines = await there(pilot, app, "gpt-5-mini", "total", "$1,234,587.81 today")
            assert "by now" not in lines[1]
            assert refused

    asyncio.run(look())


def test_a_period_that_is_chosen_orders_by_what_it_cost(moment: float) -> None:
    """Sorted by cost, the answer comes after the choice."""

    async def look(viewer: Viewer) -> None:
        def in_order(lines: list[str], *wanted: str) -> bool:
            return [line.split()[0] for line in lines if line.split()[:1] in ([each] for each in wanted)] == [*wanted]

        async with watching(viewer, (120, 40), period="all") as (pilot, app):
            await there(pilot, app, "old-dear", "new-dear", "in all", "total")
            await pilot.press("s")
            await shows(pilot, app, lambda lines: in_order(lines, "old-dear", "new-dear"), "the order of all time")
            await pilot.press("colon", *"day", "enter")
            await shows(pilot, app, lambda lines: in_order(lines, "new-dear", "old-dear"), "the order of the day")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", zone_at_noon(moment))
        with running_viewer() as viewer:
            at = int(moment)
            begun = (at - 100_000) * NS
            old = Sender("o", "old", begun).introduce("old-dear", at=begun).state("old-dear", "idle", at=begun)
            viewer.send(spend(old, "old-dear", 5.0, "gpt-5", 1, at=begun + NS))
            viewer.send(spend(old, "old-dear", 5.25, "gpt-5", 2, at=(at - 30) * NS))
            new = Sender("n", "new", (at - 60) * NS)
            new.introduce("new-dear", at=(at - 50) * NS).state("new-dear", "idle", at=(at - 50) * NS)
            viewer.send(spend(new, "new-dear", 1.0, "gpt-5", 1, at=(at - 30) * NS))
            asyncio.run(look(viewer))


def test_what_left_memory_is_asked_for_again_once_the_viewer_is_back() -> None:
    """One by one, and all at once where there are many. Only what a person asks for brings in what is new."""

    async def ask(viewer: Viewer) -> None:
        async with AsyncStatsClient(viewer.url, viewer.token) as client:
            live = Live()
            in_period = InPeriod(live, client)
            told = [await in_period.ask("all", (), ""), await in_period.ask("all", (), "")]
            in_period.renew()
            assert [*told, await in_period.ask("all", (), "")] == [True, False, True]
            viewer.process.kill()
            viewer.process.wait()
            few, many = {"kept", "erased"}, {f"c{number}" for number in range(30)}
            for left in (many, few):
                live.left = set(left)
                with pytest.raises(Unreachable):
                    await in_period.ask("all", (), "")
                assert live.left == left
            with running_viewer(port=int(viewer.url.rpartition(":")[2])) as again:
                again.send(Sender("p").converse("kept", 0.5))
                assert not await in_period.ask("all", (), "")
                assert (live.left, [*live.past]) == (set(), ["kept"])
                live.left = set(many)
                assert not await in_period.ask("all", (), "")
                assert live.left == set()

    with running_viewer() as viewer:
        asyncio.run(ask(viewer))


def test_a_wrong_command_is_said_in_one_line_until_the_next(viewer: Viewer, moment: float) -> None:
    async def look() -> None:
        async with watching(viewer, (120, 40), moment) as (pilot, app):
            await overview(pilot, app)
            await pilot.press("colon", *"wek", "enter")
            lines = await there(pilot, app, "there is no :wek")
            assert ":week" in line_with("there is no :wek", lines)
            await pilot.press("escape")
            await not_there(pilot, app, "there is no")
            await pilot.press("colon", "c", "space", *"nobody", "enter")
            await there(pilot, app, "no conversation")
            await pilot.press("colon", *"by", "space", *"rol", "enter")
            lines = await shows(pilot, app, lambda lines: any(line.startswith("role ") for line in lines), "by role")
            assert "no conversation" not in "\n".join(lines)
            await pilot.press("colon", *"by", "space", *"person", "enter")
            await shows(pilot, app, lambda lines: any(line.startswith("person ") for line in lines), "by person")
            await pilot.press("colon", *"sort", "space", *"cost", "enter")
            await there(pilot, app, "$▼")
            await pilot.press("colon", "q", "enter")
            await shows(pilot, app, lambda _: not app.is_running, "its end")

    asyncio.run(look())


def test_a_terminal_that_is_too_small_says_so_and_one_that_grows_shows_all(viewer: Viewer, moment: float) -> None:
    async def look() -> None:
        async with watching(viewer, (30, 8), moment) as (pilot, app):
            assert "too small: 30x8" in "\n".join(await there(pilot, app, "too small"))
            await pilot.resize_terminal(40, 24)
            lines = await there(pilot, app, "$1,234,567.89", "waits for you")
            assert max(map(len, lines)) <= 40
            await pilot.resize_terminal(120, 40)
            await overview(pilot, app)

    asyncio.run(look())


def test_the_text_of_strangers_does_nothing(tmp_path: Path) -> None:
    hostile = "\x1b]0;pwned\x07[bold red]x[/]\u202eevil\n\u200b模型"

    async def look(viewer: Viewer) -> None:
        async with watching(viewer, (200, 50)) as (pilot, app):
            lines = await there(pilot, app, "$0.2500", r"\x1b]0;pwned\x07[bold red]x[/]\u202eevil\n\u200b模型")
            for key in ("enter", "c", "f", "escape", *["b"] * 6):
                await pilot.press(key)
                await pilot.pause(0.1)
                lines = screen(app)
                assert "".join(lines).isprintable(), key

    with running_viewer() as viewer:
        resource = {f"{semconv.LABEL_PREFIX}user": hostile, f"{semconv.LABEL_PREFIX}name": hostile}
        sender = Sender("p", hostile, resource=resource).spend(0.25, model=hostile, role=hostile)
        sender.converse(hostile, 0.25, model=hostile, role=hostile).state(hostile, hostile).now(hostile, hostile, 1.0)
        viewer.send(sender)
        asyncio.run(look(viewer))


def test_two_thousand_conversations_are_a_table_of_the_rows_in_sight() -> None:
    """However many there are, no more lines are made than there is room for."""

    async def look(viewer: Viewer) -> None:
        async with watching(viewer, (120, 40)) as (pilot, app):
            await there(pilot, app, "2,000 conversations")
            overview = app.screen
            assert isinstance(overview, Overview)
            await pilot.press("end")
            lines = await there(pilot, app, "c0000000")
            assert sum(line.startswith("c000") for line in lines) < 40
            assert len(overview._lines.cells) <= 40  # pyright: ignore[reportOptionalMemberAccess]
            await pilot.press("slash", *"c0000777")
            lines = await there(pilot, app, "1 conversation ")
            assert sum(line.startswith("c000") and "running" in line for line in lines) == 1

    with running_viewer() as viewer:
        begun = time.time_ns()
        sender = Sender("crowd")
        for number in range(2_000):
            name = f"c{number:07}"
            sender.start = begun - (3_000 - number) * NS
            sender.converse(name, 0.5).state(name, "running")
        viewer.send(sender)
        wait_for(lambda: len(viewer.state().conversations) == 2_000, "all of them are known")
        asyncio.run(look(viewer))
