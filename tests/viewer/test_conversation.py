"""In a real browser: the page of one conversation, and what is taken along from it."""

from __future__ import annotations

import csv
import io
import re
from math import fsum
from pathlib import Path
from urllib.parse import quote

import pytest
from collector.test_real_spend import bill, folder, viewer  # noqa: F401
from playwright.sync_api import Page, expect
from viewer_process import Viewer, running_viewer

from openhands_otel._internal.money import money
from otlp_sender import Sender

from .crowd import ended
from .test_page import page, pytestmark, row  # noqa: F401
from .test_spending import values


def test_it_says_what_the_bill_says_and_all_of_its_tables_add_up(
    viewer: Viewer,  # noqa: F811
    bill: dict[str, float],  # noqa: F811
    page: Page,  # noqa: F811
) -> None:
    page.goto(viewer.url)
    expect(page.locator("tr.conversation")).to_have_count(2)
    costs: list[float] = []
    for stats in viewer.state().conversations:
        row(page, stats.conversation_id).locator(".name").click()
        inside = page.locator("#conversation")
        expect(inside.locator("h2")).to_have_text(stats.name or "")
        expect(inside.locator("article .cost")).to_have_text(money(stats.accumulated_cost))
        # Two runs of a call each, and nothing outside of them.
        expect(inside.locator(".runs").first.locator("tbody tr")).to_have_count(2)
        expect(inside.locator(".calls tbody tr")).to_have_count(2)
        for table in (".parts:not(.runs):not(.calls)", ".runs", ".calls"):
            amounts = values(page, f"#conversation {table} tbody [data-value]")
            assert fsum(amounts) == pytest.approx(stats.accumulated_cost, abs=1e-12)
            expect(inside.locator(f"{table} tfoot [data-value]").first).to_have_text(money(stats.accumulated_cost))
        expect(inside.locator(".plot .column rect").first).to_be_visible()
        for name in ("id", "state", "agent", "service", "SDK", "began", "instance", "team"):
            expect(inside.locator("dt", has_text=re.compile(f"^{name}$"))).to_have_count(1)
        costs.append(stats.accumulated_cost)
        page.go_back()
        expect(page.locator("#conversation")).to_be_hidden()
    direct = viewer.http.get("/api/v1/spend?where=conversation=no conversation").json()["total"]["accumulated_cost"]
    assert fsum([*costs, direct]) == pytest.approx(bill["total"], abs=1e-12)


def test_it_has_an_address_of_its_own_and_grows_while_one_looks(page: Page) -> None:  # noqa: F811
    name = "a/b?c#d%20 e"
    with running_viewer() as viewer:  # noqa: F811
        agent = Sender("p").introduce(name).converse(name, 0.25).state(name, "running")
        viewer.send(agent.introduce("sub", parent=name).converse("sub", 0.125))
        page.goto(viewer.url)
        row(page, name).locator(".name").click()
        address = page.url
        assert quote(name, safe="") in address
        expect(page.locator("#conversation article .cost")).to_have_text("$0.2500")
        viewer.send(agent.converse(name, 0.75).now(name, "terminal", 1.0))
        expect(page.locator("#conversation article .cost")).to_have_text("$0.7500")
        expect(page.locator("#conversation article .what")).to_have_text("terminal")
        expect(page.locator("#conversation .parts tfoot .dollars")).to_have_text("$0.7500")
        expect(page).to_have_title(re.compile(r"^\$0\.8750 "))
        page.goto("about:blank")
        page.goto(address)
        expect(page.locator("#conversation article .cost")).to_have_text("$0.7500")
        # To its sub-agent, from there to its parent, and back the same way.
        page.locator("#conversation .runs a").click()
        expect(page.locator("#conversation article .cost")).to_have_text("$0.1250")
        page.locator("#conversation dd a").click()
        expect(page.locator("#conversation article .cost")).to_have_text("$0.7500")
        page.go_back()
        expect(page.locator("#conversation article .cost")).to_have_text("$0.1250")
        page.locator(".back").click()
        expect(page.locator("tr.conversation")).to_have_count(1)


def test_one_that_nobody_knows_is_called_unknown(page: Page) -> None:  # noqa: F811
    with running_viewer() as viewer:  # noqa: F811
        page.goto(f"{viewer.url}/#/c/nobody")
        expect(page.locator("#conversation > .note")).to_have_text("No conversation nobody is known here.")
        expect(page.locator("#conversation article")).to_be_hidden()
        viewer.send(Sender("p").introduce("nobody").converse("nobody", 0.5))
        expect(page.locator("#conversation article .cost")).to_have_text("$0.5000")
        expect(page.locator("#conversation > .note")).to_have_text("")


def test_it_is_taken_along_as_markdown_and_csv_in_which_text_stays_text(
    page: Page,  # noqa: F811
    tmp_path: Path,
) -> None:
    evil = '=HYPERLINK("x")|<b>*a*\u202e'
    name = "c-1"
    with running_viewer() as viewer:  # noqa: F811
        agent = Sender("p", service=evil).introduce(name).state(name, "running")
        viewer.send(agent.converse(name, 0.5, model=evil).converse(name, 0.25, role="condenser", model="mini"))
        viewer.send(ended(agent.state(name, "running", ended=True).state(name, "error"), name, "error", evil))
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.goto(f"{viewer.url}/#/c/{name}")
        expect(page.locator("#conversation .parts tfoot .dollars")).to_have_text("$0.7500")
        page.get_by_role("button", name="Copy as Markdown").click()
        expect(page.locator("#conversation .buttons .note")).to_have_text("copied")
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith("# ")
        assert "<b>" not in copied
        assert "\u202e" not in copied
        assert "| condenser | mini | 0.25 |" in copied
        tables = [line for line in copied.splitlines() if line.startswith("|")]
        assert {line.replace("\\|", "").count("|") for line in tables} == {7}
        with page.expect_download() as download:
            page.get_by_role("button", name="Download CSV").click()
        path = tmp_path / "spend.csv"
        download.value.save_as(path)
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        assert fsum(float(each["cost_usd"]) for each in rows) == 0.75
        assert [each["model"][0] for each in rows if each["model"] != "mini"] == ["'"]
        assert download.value.suggested_filename == "c-1.csv"
