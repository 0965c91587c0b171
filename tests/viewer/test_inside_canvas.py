"""The page inside Agent Canvas, in a real browser: on a page of another origin that loads it as Canvas does.

tests/canvas has the same in the real Canvas.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from viewer_process import Viewer, running_viewer

from openhands_otel._internal.canvas.extension import files
from otlp_sender import Sender

from .conftest import CHROMIUM

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: apt-get install chromium)")

TOKEN = "planted-token-4711"
HOST = """<!doctype html><title>another origin</title>
<body><div data-agent-server-ui="" style="--oh-background: THEME"><div id="page"></div></div>
<script type="module">
  const text = await (await fetch("/bundle")).text();
  const module = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
  const container = document.getElementById("page");
  const mounts = {};
  await module.activate({ apiVersion: "1", registerPage: (id, mount) => { mounts[id] = mount; return () => {}; } });
  const mount = () => { window.leave = mounts.spend({ container, path: "", navigate() {} }); };
  window.mountAgain = mount;
  mount();
</script>"""


class Canvas:
    """Where the page is mounted: its address, and which colours it has."""

    def __init__(self) -> None:
        self.theme = "#101010"
        module = files()["spend.js"]

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:
                is_module = handler.path == "/bundle"
                body = (module if is_module else HOST.replace("THEME", self.theme)).encode()
                handler.send_response(200)
                handler.send_header("content-type", "text/javascript" if is_module else "text/html")
                handler.send_header("content-length", str(len(body)))
                handler.end_headers()
                handler.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://localhost:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def canvas() -> Iterator[Canvas]:
    canvas = Canvas()
    yield canvas
    canvas.server.shutdown()
    canvas.server.server_close()


@pytest.fixture(scope="module")
def viewer(canvas: Canvas) -> Iterator[Viewer]:
    with running_viewer("--origins", canvas.origin) as viewer:
        yield viewer


@pytest.fixture
def opened(browser: Browser, canvas: Canvas) -> Iterator[Callable[..., Page]]:
    """A page of Canvas that looks at a viewer; it may make no error."""
    wrong: list[str] = []
    contexts = []

    def open_page(viewer_url: str, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.add_init_script(f"localStorage['openhands-otel-viewer'] ??= '{viewer_url}'")
        page.goto(canvas.origin)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def dollars(page: Page, selector: str) -> list[float]:
    return [float(cell.get_attribute("data-value") or "nan") for cell in page.locator(selector).all()]


def test_the_bill_is_shown_and_moves_while_one_looks(viewer: Viewer, opened: Callable[..., Page]) -> None:
    sender = Sender("p").introduce("c-1").state("c-1", "running").spend(0.25).converse("c-1", 0.25)
    sender.spend(0.5, model="other").converse("c-2", 0.5, model="other")
    viewer.send(sender)
    page = opened(viewer.url)
    total = page.locator(".total")
    expect(total).to_have_text("$0.7500")
    expect(page.locator(".pill")).to_contain_text("live")
    viewer.send(sender.spend(1.25).converse("c-1", 1.25))
    expect(total).to_have_text("$1.750")
    for table in ("Spend by model", "Spend by conversation"):
        rows = f"table:has(caption:text-is('{table}'))"
        expect(page.locator(f"{rows} tfoot .dollars")).to_have_text("$1.750")
        assert sum(dollars(page, f"{rows} tbody .dollars")) == pytest.approx(1.75, abs=1e-9)
    expect(page.locator(".chip", has_text="running")).to_contain_text("1")
    link = page.locator("a.name[title='c-1']")
    assert link.get_attribute("href") == f"{viewer.url}/#/c/c-1"
    assert link.get_attribute("rel") == "noopener noreferrer"
    page.get_by_role("button", name="role", exact=True).click()
    expect(page.locator("caption", has_text="Spend by role")).to_be_attached()
    page.get_by_role("button", name="hour", exact=True).click()
    expect(page.locator(".label").first).to_contain_text("last hour")


def test_a_strangers_text_stays_text(viewer: Viewer, opened: Callable[..., Page]) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\">"
    viewer.send(Sender("evil").introduce("c-evil").spend(2, model=evil).converse("c-evil", 2, model=evil))
    page = opened(viewer.url)
    expect(page.get_by_role("row", name=evil).first).to_be_visible()
    expect(page).to_have_title("another origin")
    assert page.locator("img").count() == 0


def test_it_follows_the_colours_around_it(viewer: Viewer, canvas: Canvas, opened: Callable[..., Page]) -> None:
    found = {}
    for theme, scheme in (("#101010", "light"), ("#fafafa", "dark")):
        canvas.theme = theme
        page = opened(viewer.url, color_scheme=scheme)
        expect(page.locator(".pill")).to_contain_text("live")
        host = page.locator("#page > div")
        found[theme] = host.evaluate("(host) => [getComputedStyle(host).backgroundColor, host.style.colorScheme]")
        found[theme].append(page.locator(".calm, .chip").first.evaluate("(one) => getComputedStyle(one).color"))
    assert found["#101010"][:2] == ["rgb(16, 16, 16)", "dark"]
    assert found["#fafafa"][:2] == ["rgb(250, 250, 250)", "light"]
    assert found["#101010"][2] != found["#fafafa"][2]


def test_a_token_is_asked_for_kept_in_the_tab_alone_and_shown_to_one_viewer(
    canvas: Canvas, opened: Callable[..., Page]
) -> None:
    with running_viewer("--origins", canvas.origin, token=TOKEN) as guarded, running_viewer() as stranger:
        guarded.send(Sender("p").spend(0.125).converse("c-1", 0.125))
        page = opened(guarded.url)
        expect(page.locator("form.reach")).to_contain_text("This viewer asks for a token")
        page.get_by_label("Token").fill("not-it")
        page.get_by_role("button", name="Open").click()
        expect(page.locator("form.reach")).to_contain_text("This viewer asks for a token")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Open").click()
        expect(page.locator(".total")).to_have_text("$0.1250")
        expect(page.locator("form.reach")).to_be_hidden()
        assert TOKEN not in page.evaluate("JSON.stringify(localStorage) + document.cookie + location.href")
        assert page.get_by_label("Token").evaluate("(input) => input.value") == ""
        shown: list[str] = []
        page.on("request", lambda asked: shown.append(str(asked.headers)) if stranger.url in asked.url else None)
        page.get_by_role("button", name="Another viewer").click()
        page.get_by_label("Viewer", exact=True).fill(stranger.url + "/")
        page.get_by_role("button", name="Open").click()
        # That one does not know this page, which says what would let it in.
        expect(page.locator("form.reach")).to_contain_text(f"openhands-otel view --origins {canvas.origin}")
        assert shown
        assert not [headers for headers in shown if TOKEN in headers]
        assert TOKEN not in page.evaluate("JSON.stringify(sessionStorage)")


def test_what_is_no_address_is_not_taken(viewer: Viewer, opened: Callable[..., Page]) -> None:
    page = opened(viewer.url)
    page.get_by_role("button", name="Another viewer").click()
    for text in ("javascript:alert(1)", "file:///etc", "http://me:secret@127.0.0.1:4318", "nowhere", ""):
        page.get_by_label("Viewer", exact=True).fill(text)
        page.get_by_role("button", name="Open").click()
        expect(page.locator("form.reach")).to_contain_text("That is no address of a viewer")
    assert page.evaluate("localStorage['openhands-otel-viewer']") == viewer.url


def test_whoever_leaves_the_page_leaves_nothing_behind(viewer: Viewer, opened: Callable[..., Page]) -> None:
    page = opened(viewer.url)
    expect(page.locator(".pill")).to_contain_text("live")
    with page.expect_event("requestfailed", lambda asked: "/api/v1/events?" in asked.url):
        page.evaluate("leave()")
    asked: list[str] = []
    page.evaluate("document.getElementById('page').replaceChildren()")
    page.on("request", lambda request: asked.append(request.url))
    # A page that follows again asks by itself; the one that was left does not.
    with page.expect_event("request", lambda request: "/api/v1/events?" in request.url):
        page.evaluate("mountAgain()")
    expect(page.locator(".pill")).to_contain_text("live")
    assert len([url for url in asked if "/api/v1/events?" in url]) == 1
