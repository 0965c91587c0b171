"""In a real browser: what was spent today, whose day that is, and what was read from disk and is a lower bound."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import Page, expect
from viewer_process import running_viewer

from openhands_otel._internal.spend.handover import Handover, ReadConversation, ReadRow
from openhands_otel._internal.spend.rows import QUARTER_S
from otlp_sender import Sender

from .test_page import page, pytestmark  # noqa: F401


def test_today_is_named_with_its_zone_and_what_was_read_is_marked(
    page: Page,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENHANDS_OTEL_VIEWER_TIMEZONE", "Asia/Kolkata")
    now = time.time()
    quarter = now // QUARTER_S * QUARTER_S
    with running_viewer() as viewer:
        viewer.send(Sender("p").spend(0.25))
        page.goto(viewer.url)
        expect(page.locator("#period-name")).to_have_text("today (Asia/Kolkata)")
        expect(page.locator("#total")).to_have_text("$0.2500")
        expect(page.locator("#total-note")).to_have_text("")
        rows = [
            ReadRow(begin=quarter, model="gpt", cost=0.5, calls=1),
            ReadRow(begin=quarter - 30 * 86_400, model="gpt", cost=2.0, calls=4),
        ]
        read = Handover(conversations=[ReadConversation(conversation_id="old", until=now, rows=rows)])
        viewer.http.post(
            "/api/v1/import", content=read.model_dump_json(), headers={"content-type": "application/json"}
        ).raise_for_status()
        page.reload()
        expect(page.locator("#total")).to_have_text("$0.7500+")
        expect(page.locator("#total-note")).to_have_text("$0.5000 read from OpenHands' own files: a lower bound")
        page.locator("#periods [data-period=all]").click()
        expect(page.locator("#total")).to_have_text("$2.750+")
        expect(page.locator("#total-note")).to_contain_text("$2.500 read")
        page.locator("[data-by=conversation]").click()
        expect(page.locator("#where tr[data-name=old] .dollars")).to_have_text("$2.500+from disk")
        # Nobody told of it, yet it has a page.
        page.locator("#where tr[data-name=old] a").click()
        expect(page.locator("#conversation")).to_contain_text("$2.500 of this was read from OpenHands' own files")
        expect(page.locator("#conversation tfoot .dollars")).to_have_text("$2.500+from disk")
        asked = viewer.http.get("/api/v1/spend?since=today&until=today&by=conversation").json()
    assert (asked["total"]["accumulated_cost"], asked["total"]["read_cost"]) == (0.75, 0.5)
    assert {group["keys"]["conversation"]: group["read_cost"] for group in asked["groups"]}["old"] == 0.5
