"""A report is read back from each of its forms: it adds up, says what is a lower bound, and names stay text."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from datetime import datetime
from fractions import Fraction
from html.parser import HTMLParser
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from openhands_otel._internal.report import comparison
from openhands_otel._internal.report.comparison import Side
from openhands_otel._internal.report.documents import as_csv, as_json, as_markdown
from openhands_otel._internal.report.figures import LineKind, cost_text, lines
from openhands_otel._internal.report.focus import BY, as_focus
from openhands_otel._internal.report.table import LEAST_WIDTH, table
from openhands_otel._internal.spend.conditions import Condition
from openhands_otel._internal.spend.grouping import group, merge
from openhands_otel._internal.spend.rows import Described
from openhands_otel._internal.terminal_text import cells, printable
from openhands_otel.stats import Spend
from spend_rows import BERLIN, amount, at, row, undated

HOSTILE: Final = [
    '=HYPERLINK("http://evil.example","x")',
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    " =1",
    "\uff1d1+1",
    "a|b\\|c",
    "`code` ``",
    "one\ntwo\r\nthree",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "&lt;b&gt;",
    "**bold** __under__ ~~gone~~",
    "[link](javascript:alert(1))",
    "![image](http://evil.example/x.png)",
    "https://evil.example www.evil.example a@evil.example",
    "\x1b]0;pwned\x07\x1b[31m",
    "\u202etxet",
    "宽宽宽宽宽宽宽宽宽宽宽宽宽宽宽宽",
    "a" * 500,
    'quote" and , comma',
    "$x$ :smile: #1",
]
ROWS: Final = [
    *(
        row("2026-11-26T09:00", amount(0.1 + number / 7, calls=2, prompt_tokens=10, completion_tokens=3), model=name)
        for number, name in enumerate(HOSTILE)
    ),
    row(
        "2026-11-27T09:00",
        amount(
            1234567.5,
            saved=0.5,
            seconds=12.25,
            calls=4,
            prompt_tokens=1_000_000,
            cache_read_tokens=600_000,
            cache_write_tokens=100_000,
            completion_tokens=5_000,
            reasoning_tokens=700,
        ),
        model="gpt-5",
        provider="openai",
        service="agent.py",
        team="=cmd",
    ),
    row("2026-11-27T10:00", amount(0.25, read=True, calls=1, prompt_tokens=50), model="mini", team="b"),
    row("2026-11-27T11:00", amount(0.0, calls=1, unpriced_calls=1), model="secret", conversation="c"),
    undated("2025-10-01", amount(2.0, calls=7), model="old"),
]


def spend(*by: str, top: int | None = None) -> Spend:
    return group(ROWS, by, BERLIN, top=top, described={"c": Described("error")})


GROUPINGS: Final = [("day", "model"), ("model",), ("week", "team", "model"), ("conversation",), ()]
each_grouping = pytest.mark.parametrize("by", GROUPINGS, ids=lambda by: "+".join(by) or "nothing")
each_top = pytest.mark.parametrize("top", [None, 2])


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def text_of(cell: str) -> str:
    """As a spreadsheet has it: a quote in front says that it is text."""
    return cell.removeprefix("'")


def exact(cells_of_money: list[str]) -> Fraction:
    return sum(map(Fraction, cells_of_money), Fraction())


@each_grouping
@each_top
def test_lines_that_are_no_subtotal_add_up_and_subtotals_to_what_they_are_around(
    by: tuple[str, ...], top: int | None
) -> None:
    shown = list(lines(spend(*by, top=top)))
    total = shown.pop()
    assert total.kind is LineKind.TOTAL
    if by:
        parts = [line for line in shown if line.kind is not LineKind.AROUND]
        outer = [line for line in shown if line.depth == 0]
        for some in (parts, outer):
            assert float(sum(Fraction(each.group.accumulated_cost) for each in some)) == pytest.approx(
                total.group.accumulated_cost, abs=1e-9
            )
            assert sum(each.group.llm_calls for each in some) == total.group.llm_calls


@each_grouping
@each_top
def test_json_is_the_spend_itself(by: tuple[str, ...], top: int | None) -> None:
    said = spend(*by, top=top)
    text = as_json(said)
    assert Spend.model_validate_json(text) == said
    assert printable(text.replace("\n", "")) == text.replace("\n", "")
    assert json.loads(text)["total"]["read_cost"] == 0.25


@each_grouping
@each_top
def test_csv_adds_up_and_runs_nothing(by: tuple[str, ...], top: int | None) -> None:
    said = spend(*by, top=top)
    rows = read_csv(as_csv(said))
    *groups, total = rows
    assert total["row"] == "total"
    assert float(total["cost_usd"]) == said.total.accumulated_cost
    assert total["lower_bound"] == "yes"
    assert len(groups) == len(said.groups)
    if by:
        assert float(exact([each["cost_usd"] for each in groups])) == pytest.approx(float(total["cost_usd"]), abs=1e-9)
        for name in ("prompt_tokens", "llm_calls", "unpriced_calls", "read_cost_usd"):
            assert exact([each[name] for each in groups]) == Fraction(total[name])
    for each, shown in zip(groups, said.groups, strict=True):
        for name in by:
            assert text_of(each[name]) == printable(shown.keys.get(name, ""))
    for line in csv.reader(io.StringIO(as_csv(said))):
        for value in line:
            assert value.lstrip()[:1] not in set("=+-@\t\r\uff1d"), value


class Html(HTMLParser):
    """Texts of a table's cells, and each tag that there is."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1] and data != "\n":
            self.rows[-1][-1] += data


def read_markdown(text: str) -> Html:
    html = Html()
    html.feed(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text))
    return html


@each_grouping
@each_top
def test_markdown_is_a_table_of_texts_that_adds_up(by: tuple[str, ...], top: int | None) -> None:
    said = spend(*by, top=top)
    html = read_markdown(as_markdown(said))
    assert html.tags <= {"p", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    head, *rows = html.rows
    depth = max(1, len(by))
    assert len({len(each) for each in html.rows}) == 1
    shown = list(lines(said))
    assert len(rows) >= len(shown)
    for line, cells_of_row in zip(shown, rows, strict=False):
        assert cells_of_row[line.depth].split() == printable(line.name).split()
    at_cost = head.index("cost")
    assert at_cost == depth
    marked = [line.group.read_cost > 0 or line.group.unpriced_calls > 0 for line in shown]
    assert [each[at_cost].endswith("+") for each in rows[: len(shown)]] == marked
    at_calls = head.index("calls")
    parts = [
        int(each[at_calls].replace(",", ""))
        for line, each in zip(shown, rows, strict=False)
        if line.kind in (LineKind.GROUP, LineKind.REMAINDER)
    ]
    assert sum(parts) == (said.total.llm_calls if by else 0)


def test_links_are_no_links_for_those_who_make_links_of_addresses() -> None:
    text = as_markdown(spend("model"))
    assert "https://" not in text.replace("&#58;", "")
    assert "www." not in text
    assert "a@evil" not in text


@pytest.mark.parametrize("width", [1, LEAST_WIDTH, 24, 33, 40, 64, 80, 100, 132, 200])
@each_grouping
@each_top
def test_a_table_fits_and_cuts_no_figure(by: tuple[str, ...], top: int | None, width: int) -> None:
    said = spend(*by, top=top)
    text = table(said, width)
    for line in text.splitlines():
        assert cells(line) <= max(width, LEAST_WIDTH), line
        assert printable(line) == line
    shown = list(lines(said))
    costs = [re.findall(r"[<>]?-?\$[\d,.]+\+?", line) for line in text.splitlines()]
    found = [each[0] for each in costs if each]
    for line in shown:
        assert cost_text(line.group) in found
    assert "tot" in text


@given(st.dictionaries(st.text(max_size=30), st.floats(0, 1e9), min_size=1, max_size=6), st.integers(20, 140))
def test_any_names_and_amounts_fit(costs: dict[str, float], width: int) -> None:
    rows = [row("2026-11-27T09:00", amount(cost, calls=1), model=name) for name, cost in costs.items()]
    said = group(rows, ["model"], BERLIN)
    for line in table(said, width).splitlines():
        assert cells(line) <= width
    assert read_markdown(as_markdown(said)).tags <= {"p", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    assert len(read_csv(as_csv(said))) == len(said.groups) + 1


def test_a_table_says_its_period_its_zone_and_what_is_a_lower_bound() -> None:
    said = group(ROWS[-4:-1], ["day", "model"], BERLIN, since=at("2026-11-21"), until=at("2026-11-28"))
    text = table(said, 60)
    assert text.splitlines()[0] == "Spend from 2026-11-21 to 2026-11-27, Europe/Berlin"
    assert "$1,234,567.75+" in text
    assert "$0.2500 was read from OpenHands' own files" in " ".join(text.split())
    assert "1 call had no known price" in " ".join(text.split())


def test_nothing_spent_is_a_total_of_nothing() -> None:
    said = group([], ["day", "model"], BERLIN)
    for form in (as_csv, as_markdown, lambda each: table(each, 40)):
        made: Callable[[Spend], str] = form
        assert "total" in made(said)
        assert "0" in made(said)
    assert read_csv(as_focus(group([], BY, BERLIN))) == []


# ---------------------------------------------------------------- FOCUS

NEVER_NULL: Final = [
    *("BilledCost", "BillingAccountId", "BillingCurrency", "BillingPeriodStart", "BillingPeriodEnd", "ChargeCategory"),
    *("ChargeDescription", "ChargePeriodStart", "ChargePeriodEnd", "ContractedCost", "EffectiveCost", "ListCost"),
    *("InvoiceIssuerName", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName", "PricingQuantity"),
    *("PricingUnit", "ConsumedQuantity", "ConsumedUnit"),
]
"""By FOCUS 1.2, for usage."""
KEPT_NULL: Final = ["ChargeClass", "InvoiceId"]


def focus_rows(*more: str) -> tuple[Spend, list[dict[str, str]]]:
    said = spend(*BY, *more)
    return said, read_csv(as_focus(said))


def test_focus_rows_add_up_to_the_cost_and_to_the_tokens() -> None:
    said, rows = focus_rows("team")
    assert float(exact([each["BilledCost"] for each in rows])) == pytest.approx(said.total.accumulated_cost, abs=1e-9)
    tokens = said.total.accumulated_token_usage
    assert exact([each["ConsumedQuantity"] for each in rows if each["ConsumedUnit"] == "Tokens"]) == (
        tokens.prompt_tokens + tokens.completion_tokens
    )
    assert exact([each["ConsumedQuantity"] for each in rows if each["ConsumedUnit"] == "Calls"]) == said.total.llm_calls
    assert {each["BilledCost"] for each in rows if each["ConsumedUnit"] == "Tokens"} == {"0.0"}
    assert exact([each["x_ReadCost"] for each in rows]) == Fraction(said.total.read_cost)


def test_focus_rows_are_as_the_specification_says() -> None:
    _, rows = focus_rows("team")
    for each in rows:
        assert all(each[name] for name in NEVER_NULL), each
        assert not any(each[name] for name in KEPT_NULL)
        assert each["ChargeDescription"].isascii()
        assert all("." in each[name] for name in ("PricingQuantity", "ConsumedQuantity", "BilledCost"))
        assert each["BilledCost"] == each["EffectiveCost"] == each["ListCost"] == each["ContractedCost"]
        begins, ends = (datetime.fromisoformat(each[f"ChargePeriod{edge}"]) for edge in ("Start", "End"))
        assert begins < ends
        assert (
            datetime.fromisoformat(each["BillingPeriodStart"])
            < ends
            <= datetime.fromisoformat(each["BillingPeriodEnd"])
        )
        assert each["BillingCurrency"] == "USD"
        assert (each["ChargeCategory"], each["ServiceCategory"]) == ("Usage", "AI and Machine Learning")
        details = json.loads(each["SkuPriceDetails"] or "{}")
        assert bool(details) <= bool(each["SkuPriceId"])
        assert all(name.startswith("x_") for name in details)
        assert set(json.loads(each["Tags"])) == {"team"}
    own = [name for name in rows[0] if not re.fullmatch(r"[A-Z][A-Za-z]+", name)]
    assert all(re.fullmatch(r"x_[A-Z][A-Za-z]+", name) for name in own)


def test_focus_has_a_row_for_each_kind_of_token_of_a_day_and_a_model() -> None:
    _, rows = focus_rows()
    of_gpt = [each for each in rows if each["SkuId"] == "gpt-5"]
    assert {each["SkuMeter"]: float(each["ConsumedQuantity"]) for each in of_gpt} == {
        "Calls": 4,
        "Input tokens": 300_000,
        "Cache read tokens": 600_000,
        "Cache write tokens": 100_000,
        "Output tokens": 5_000,
    }
    assert {each["ChargePeriodStart"] for each in of_gpt} == {"2026-11-26T23:00:00Z"}
    assert {each["x_Service"] for each in of_gpt} == {"agent.py"}
    assert {each["x_LowerBound"] for each in rows if each["SkuId"] == "mini"} == {"true"}
    assert {(each["ChargePeriodStart"], each["ChargePeriodEnd"]) for each in rows if each["SkuId"] == "old"} == {
        ("1970-01-01T00:00:00Z", "2025-09-30T22:00:00Z")
    }


UUIDS: Final = ("1b2c3d4e-0000-4000-8000-000000000001", "1b2c3d4e-1111-4000-8000-000000000002")


def conversations(dimension: str, *, named: bool = True) -> Spend:
    """Two conversations whose ids begin alike, or a run of each."""
    ids = UUIDS if dimension == "conversation" else tuple(f"{each}#2" for each in UUIDS)
    rows = [row("2026-11-27T09:00", amount(1.5, calls=1), **{dimension: each}) for each in ids]
    known = [Described(name=name, tool_calls=7) for name in ("agent.py 14:32", "=SUM(A1) " + "x" * 200)]
    return group(rows, [dimension], BERLIN, described=dict(zip(ids, known, strict=True)) if named else {})


@pytest.mark.parametrize(("dimension", "number"), [("conversation", ""), ("run", "#2")])
def test_a_conversation_and_a_run_have_the_name_that_people_know_beside_a_short_id(dimension: str, number: str) -> None:
    said = conversations(dimension)
    assert f"agent.py 14:32 1b2c3d4e-0000{number}  " in table(said, 120)
    # However long a name is, the id stands behind it.
    assert re.search(f"x… 1b2c3d4e-1111{number}  ", table(said, 120))
    assert f"| agent.py 14:32 1b2c3d4e-0000{number} |".replace("#", r"\#") in as_markdown(said)
    first = read_csv(as_csv(said))[0]
    assert (first["name"], first[dimension]) == ("agent.py 14:32", f"{UUIDS[0]}{number}")
    assert (first["tool_calls"], "  tools" in table(said, 120)) == ("7", True)
    assert Spend.model_validate_json(as_json(said)).groups[0].name == "agent.py 14:32"
    assert UUIDS[0] in table(conversations(dimension, named=False), 120)
    assert "name" not in read_csv(as_csv(conversations(dimension, named=False)))[0]


@pytest.mark.parametrize("width", [20, 24, 40, 80])
@pytest.mark.parametrize("cost", [0.5, 1234.5, 2_999_999_997.0])
def test_two_side_by_side_fit_and_no_figure_is_cut(width: int, cost: float) -> None:
    spent = group(
        [row("2026-11-27T09:00", amount(cost, read=True, calls=9), conversation=each) for each in UUIDS],
        ["conversation"],
        BERLIN,
        described=dict(zip(UUIDS, map(Described, ("waiting_for_confirmation", "error")), strict=True)),
    )
    one = conversations("conversation")
    one = one.model_copy(update={"groups": one.groups[:1]})
    text = comparison.as_table(Side("1b2c", one), Side("project=" + "y" * 50, spent), width)
    for line in text.splitlines():
        assert cells(line) <= width, line
    assert cost_text(spent.total) in text
    assert "agent.py 14:32" in text
    figures = text.partition("project=")[2].partition("outcome:")[0]
    ends = {cells(line) for line in figures.splitlines() if re.search(r"\d\+?$", line)}
    assert len(ends) == 1, "figures end in one column"


OWN_WORDS: Final = ["none", '"none"', "total", "all others"]


@pytest.mark.parametrize("value", OWN_WORDS)
def test_a_label_that_is_a_word_of_ours_is_no_row_of_ours(value: str) -> None:
    """Kind: what a stranger named a thing never reads as what we call the lack of it, the rest or the sum."""
    with_label = row("2026-11-27T09:00", amount(1.0, calls=1), team=value)
    without = row("2026-11-27T09:00", amount(2.0, calls=1))
    others = [row("2026-11-27T09:00", amount(0.25, calls=1), team=f"t{number}") for number in range(3)]
    said = group([with_label, without, *others], ["team"], BERLIN, top=2)
    names = [line.name for line in lines(said)]
    assert len(names) == len(set(names)) == 4
    assert names[0] == "none"
    assert names[2:] == ["all others", "total"]
    assert group([with_label, without], ["team"], BERLIN, where=[Condition.of("team=none")]).total.llm_calls == 1
    assert merge([said, said], BERLIN).total.llm_calls == 2 * said.total.llm_calls
