"""Whatever rows are grouped by, the groups add up to the total, and the total is what was spent."""

from __future__ import annotations

from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openhands_otel._internal.spend.conditions import Condition, ConditionError
from openhands_otel._internal.spend.grouping import group, merge
from openhands_otel._internal.spend.rows import QUARTER_S, Described, SpendRow
from openhands_otel.stats import Spend, SpendGroup
from spend_rows import BERLIN, amount, at, row, undated

NAMES = ["hour", "day", "week", "month", "model", "role", "conversation", "run", "team", "a label=|\n"]
ROWS = [
    row("2026-11-26T23:45", amount(0.5, calls=1, prompt_tokens=100), model="gpt-5", role="agent"),
    row("2026-11-27T00:00", amount(0.25, calls=2, completion_tokens=9), model="gpt-5", role="title"),
    row("2026-11-27T09:00", amount(2.0, calls=3, unpriced_calls=1), model="claude", role="agent", team="a"),
    row("2026-11-27T09:15", amount(0.125, read=True, calls=1), model="mini", conversation="c"),
    undated("2025-10-01", amount(8.0, calls=100)),
]


def costs(spend: Spend) -> list[tuple[str, float]]:
    return [
        ("/".join(each.keys.values()) + ("+" if each.remainder else ""), each.accumulated_cost) for each in spend.groups
    ]


keys = st.dictionaries(
    st.sampled_from(["model", "role", "conversation", "run", "team", "a label=|\n"]),
    st.sampled_from(["", "x", "y", "z", "unknown", "=1+1"]),
)
money = st.floats(-1e6, 1e6) | st.sampled_from([1e-9, 0.1, 1e9, 5e-324])


@st.composite
def spend_rows(draw: st.DrawFn) -> list[SpendRow]:
    made: list[SpendRow] = []
    for _ in range(draw(st.integers(0, 12))):
        begin = draw(st.none() | st.integers(0, 40_000).map(lambda quarter: 1_760_000_000 // 900 * 900 + quarter * 900))
        spent = amount(
            draw(money),
            read=draw(st.booleans()),
            seconds=draw(st.floats(0, 1e6)),
            calls=draw(st.integers(0, 9)),
            prompt_tokens=draw(st.integers(0, 2**50)),
        )
        made.append(SpendRow(begin, 1_770_000_000 if begin is None else begin + QUARTER_S, draw(keys), spent))
    return made


def assert_adds_up(spend: Spend, rows: list[SpendRow]) -> None:
    truth = sum((Fraction(each.amount.cost.value) for each in rows), Fraction())
    scale = max([1.0, *(abs(each.amount.cost.value) for each in rows)])
    assert abs(Fraction(spend.total.accumulated_cost) - truth) <= Fraction(scale) * Fraction(1, 10**12)
    shown = sum((Fraction(each.accumulated_cost) for each in spend.groups), Fraction())
    assert abs(shown - truth) <= Fraction(scale) * Fraction(1, 10**12)
    for counted in ("llm_calls", "unpriced_calls"):
        assert sum(getattr(each, counted) for each in spend.groups) == getattr(spend.total, counted)
    tokens = [each.accumulated_token_usage.prompt_tokens for each in spend.groups]
    assert sum(tokens) == spend.total.accumulated_token_usage.prompt_tokens == sum(r.amount.prompt_tokens for r in rows)


@given(
    spend_rows(),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
    st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe"]),
    st.none() | st.integers(1, 3),
)
def test_any_grouping_of_any_rows_adds_up_to_what_was_spent(
    rows: list[SpendRow], by: list[str], zone: str, top: int | None
) -> None:
    here = ZoneInfo(zone)
    spend = group(rows, by, here, top=top)
    assert_adds_up(spend, rows)
    for said, part in ((spend.total.accumulated_cost, "cost"), (spend.total.read_cost, "read_cost")):
        assert said == float(sum((Fraction(getattr(each.amount, part).value) for each in rows), Fraction()))
    halves = [group(rows[:5], by, here), group(rows[5:], by, here)]
    assert_adds_up(merge(halves, here, top), rows)
    names = [(tuple(each.keys.values()), each.remainder) for each in spend.groups]
    assert len(names) == len(set(names))


@given(spend_rows(), st.integers(1_760_000_000, 1_790_000_000))
def test_what_lies_before_a_moment_and_what_after_are_all(rows: list[SpendRow], moment: int) -> None:
    dated = [each for each in rows if each.begin is not None]
    before = group(dated, ["model"], BERLIN, until=moment).total
    after = group(dated, ["day"], BERLIN, since=moment).total
    assert before.llm_calls + after.llm_calls == sum(each.amount.calls for each in dated)


def test_periods_stand_in_their_order_and_all_else_dearest_first() -> None:
    assert costs(group(ROWS, ["day", "model"], BERLIN)) == [
        ("before 2025-10-01/unknown", 8.0),
        ("2026-11-26/gpt-5", 0.5),
        ("2026-11-27/claude", 2.0),
        ("2026-11-27/gpt-5", 0.25),
        ("2026-11-27/mini", 0.125),
    ]


def test_the_rest_of_each_group_is_one_row() -> None:
    dated = ROWS[:4]
    assert costs(group(dated, ["day", "model"], BERLIN, top=1)) == [
        ("2026-11-26/gpt-5", 0.5),
        ("2026-11-27/claude", 2.0),
        ("2026-11-27+", 0.375),
    ]
    assert costs(group(dated, ["model"], BERLIN, top=2)) == [("claude", 2.0), ("gpt-5", 0.75), ("+", 0.125)]
    assert costs(group(dated, ["day"], BERLIN, top=1)) == [("2026-11-27", 2.375), ("+", 0.5)]


def test_without_a_grouping_there_is_the_total_alone() -> None:
    spend = group(ROWS, [], BERLIN)
    assert spend.groups == ()
    assert (spend.total.accumulated_cost, spend.total.read_cost, spend.total.llm_calls) == (10.875, 0.125, 107)


@pytest.mark.parametrize(
    ("where", "cost"),
    [
        (["model=gpt-*"], 0.75),
        (["model=gpt-5", "model=mini"], 0.875),
        (["model!=gpt-*"], 10.125),
        (["model!=gpt-*", "model!=mini"], 10.0),
        (["model=*", "role=agent"], 2.5),
        (["model=unknown"], 8.0),
        (["team=none"], 8.875),
        (["team=[ab]"], 2.0),
        (["conversation=no conversation"], 10.75),
        (["model=GPT-5"], 0.0),
    ],
)
def test_conditions(where: list[str], cost: float) -> None:
    assert group(ROWS, ["day"], BERLIN, where=map(Condition.of, where)).total.accumulated_cost == cost


@pytest.mark.parametrize("text", ["", "model", "=x", "!=x", "day=2026-11-27"])
def test_what_is_no_condition_says_what_is(text: str) -> None:
    with pytest.raises(ConditionError) as error:
        Condition.of(text)
    assert "\n" not in str(error.value)
    assert "as in model=" in str(error.value) or "--since" in str(error.value)


def test_what_has_no_date_is_left_out_of_a_period_and_said() -> None:
    inside = group(ROWS, ["day"], BERLIN, since=at("2025-09-01"))
    assert inside.total.accumulated_cost == 2.875
    assert inside.remarks == (
        "$8.000 of 100 calls before 2025-10-01 have no date any more and are left out:"
        " leave out --since and --until to see them",
    )
    after = group(ROWS, ["day"], BERLIN, since=at("2025-10-01"))
    assert (after.total.accumulated_cost, after.remarks) == (2.875, ())
    assert group(ROWS, ["day"], BERLIN, until=at("2025-10-01")).total.accumulated_cost == 8.0


def test_outcomes_stand_with_what_ended_so() -> None:
    by_run = [row("2026-11-27T09:00", amount(1.0), run=run, conversation="c") for run in ("r", "s")]
    ended = {"r": Described("finished"), "s": Described("error"), "c": Described("stuck")}
    assert {
        each.keys["run"]: each.outcome
        for each in group(by_run, ["conversation", "run"], BERLIN, described=ended).groups
    } == {"r": "finished", "s": "error"}
    assert [each.outcome for each in group(by_run, ["conversation"], BERLIN, described=ended).groups] == ["stuck"]
    assert [each.outcome for each in group(by_run, ["model"], BERLIN, described=ended).groups] == [None]


def test_sources_answers_are_added_group_by_group() -> None:
    viewer = Spend(
        by=("day", "model"),
        groups=(
            SpendGroup(keys={"day": "2026-11-27", "model": "gpt-5"}, accumulated_cost=1.0, outcome="finished"),
            SpendGroup(keys={"day": "2026-11-28", "model": "gpt-5"}, accumulated_cost=4.0),
        ),
        total=SpendGroup(accumulated_cost=5.0),
        remarks=("a", "b"),
    )
    disk = group(ROWS[2:4], ["day", "model"], BERLIN).model_copy(update={"remarks": ("b", "c")})
    both = merge([viewer, disk], BERLIN)
    assert costs(both) == [
        ("2026-11-27/claude", 2.0),
        ("2026-11-27/gpt-5", 1.0),
        ("2026-11-27/mini", 0.125),
        ("2026-11-28/gpt-5", 4.0),
    ]
    assert (both.total.accumulated_cost, both.total.read_cost) == (7.125, 0.125)
    assert both.remarks == ("a", "b", "c")
    assert costs(merge([viewer, disk], BERLIN, top=1))[:2] == [("2026-11-27/claude", 2.0), ("2026-11-27+", 1.125)]
