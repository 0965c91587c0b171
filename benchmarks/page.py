"""How fast the page is there and how smoothly it scrolls, with thousands of conversations, in a real Chromium.

A viewer in a process of its own holds the conversations. Of fresh browser contexts each opens the page once; it is
there when the period's total, the conversations' rows and their sum are painted (two frames after they are in the
document), counted from the begin of the navigation. Then the table is scrolled by wheel, a step for each frame, while
some agents go on working. Out of Chromium's trace come what each frame took of script, style and layout, and every
task of the page's main thread: processor time, which other programs on the machine do not lengthen. Run it with
`make bench-page`: it stands on the tests' viewer and sender.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from playwright.sync_api import Browser, Page, sync_playwright
from viewer_process import Viewer, running_viewer

from otlp_sender import Sender

PAINT_AIM_S, FRAME_AIM_MS, TASK_AIM_MS, ROWS_AIM, BYTES_AIM = 1.0, 8.0, 50.0, 100, 150_000
FLAGS: Final = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
PROCESSES: Final = 20
WHEEL_PX: Final = 240
WORK: Final = ("FunctionCall", "FireAnimationFrame", "UpdateLayoutTree", "Layout", "PrePaint")
"""Trace events of a frame that are script, style and layout; those inside of one another count once."""
PAINTED: Final = """
(number) => new Promise((painted) => {
  const there = () => Number(document.getElementById("total")?.dataset.value) > 0
    && document.querySelectorAll("tr.conversation").length > 0
    && document.querySelector(".rows tfoot th")?.textContent.startsWith(number);
  const look = () => {
    if (!there()) return requestAnimationFrame(look);
    requestAnimationFrame(() => requestAnimationFrame(() => painted(performance.now())));
  };
  look();
})
"""
SCROLL: Final = """
(frames) => new Promise((resolve) => {
  let most = 0;
  const step = () => {
    scrollBy(0, STEP);
    most = Math.max(most, document.querySelectorAll("tr.conversation").length);
    if (--frames > 0) requestAnimationFrame(step);
    else resolve(most);
  };
  requestAnimationFrame(step);
})
"""


def fill(viewer: Viewer, number: int) -> list[Sender]:
    """Put so many conversations there, half of them running; returns the processes that go on."""
    senders: list[Sender] = []
    for part in range(PROCESSES):
        agent = Sender(f"p{part}", service=f"service-{part % 5}")
        agent.resource = {
            "openhands.label.user": f"person-{part % 7}",
            "openhands.label.project": f"project-{part % 3}",
        }
        for index in range(part, number, PROCESSES):
            name = f"{index:08x}-aaaa-4bbb-8ccc-{index:012x}"
            agent.introduce(name).converse(name, 0.25 + index / 1024).state(name, "running" if index % 2 else "idle")
        viewer.send(agent.spend(float(number)))
        senders.append(agent)
    return senders


def opened(browser: Browser, url: str, number: int) -> tuple[Page, float]:
    """Open the page afresh; returns it and after how many seconds it was there."""
    page = browser.new_context(viewport={"width": 1360, "height": 900}).new_page()
    page.add_init_script(f"window.painted = ({PAINTED})('{number:,}')")
    page.goto(url, wait_until="commit")
    painted: float = page.evaluate("painted")
    return page, painted / 1000


def main_thread(trace: dict[str, Any]) -> list[dict[str, Any]]:
    """Events with a length on the main thread of the page: the renderer that fired animation frames most."""
    events: list[dict[str, Any]] = trace["traceEvents"]
    threads: dict[tuple[int, int], int] = {}
    for event in events:
        if event["name"] == "FireAnimationFrame":
            key = event["pid"], event["tid"]
            threads[key] = threads.get(key, 0) + 1
    busiest = max(threads, key=lambda key: threads[key])
    return sorted(
        (event for event in events if (event["pid"], event["tid"]) == busiest and "dur" in event),
        key=lambda event: (event["ts"], -event["dur"]),
    )


def tasks_of(events: list[dict[str, Any]]) -> Iterator[tuple[float, float, bool]]:
    """Each task: its length, what of it was script, style and layout, milliseconds, and whether it made a frame."""
    tasks = [event for event in events if event["name"].endswith("RunTask")]
    work = [event for event in events if event["name"] in WORK]
    place = 0
    for task in tasks:
        end, spent, until, frame = task["ts"] + task["dur"], 0.0, 0.0, False
        while place < len(work) and work[place]["ts"] < end:
            event = work[place]
            place += 1
            if event["ts"] < task["ts"]:
                continue
            frame |= event["name"] == "FireAnimationFrame"
            if event["ts"] >= until:
                until = event["ts"] + event["dur"]
                spent += event.get("tdur", event["dur"])
        yield task.get("tdur", task["dur"]) / 1000, spent / 1000, frame


def scrolled(browser: Browser, page: Page, frames: int, agents: list[Sender], viewer: Viewer) -> dict[str, float]:
    """Scroll to the end and back while agents work."""
    browser.start_tracing(page=page, categories=["toplevel", "devtools.timeline", "blink"])
    most = 0
    for turn, step in enumerate((WHEEL_PX, -WHEEL_PX)):
        agents[turn].converse(f"{turn:08x}-aaaa-4bbb-8ccc-{turn:012x}", 100.0 + turn)
        viewer.send(agents[turn])
        most = max(most, page.evaluate(SCROLL.replace("STEP", str(step)), frames // 2))
    tasks = list(tasks_of(main_thread(json.loads(browser.stop_tracing()))))
    costs = sorted(spent for _, spent, frame in tasks if frame)
    return {
        "frames": len(costs),
        "median": statistics.median(costs),
        "p95": costs[int(len(costs) * 0.95)],
        "longest": max(length for length, _, _ in tasks),
        "rows": most,
    }


def sent_bytes(browser: Browser, url: str) -> int:
    """Of all that the page consists of, as it goes over the wire."""
    page = browser.new_page()
    page.goto(url)
    page.wait_for_selector("tr.conversation")
    sizes: int = page.evaluate(
        "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        ".filter(({ name }) => !name.includes('/api/')).reduce((sum, { transferSize }) => sum + transferSize, 0)"
    )
    page.close()
    return sizes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--conversations", type=int, default=2_000)
    parser.add_argument("--opened", type=int, default=7, help="how often the page is opened")
    parser.add_argument("--frames", type=int, default=600, help="of scrolling")
    asked = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with running_viewer() as viewer, sync_playwright() as playwright:
        agents = fill(viewer, asked.conversations)
        time.sleep(1)
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        paints: list[float] = []
        for _ in range(asked.opened):
            page, seconds = opened(browser, viewer.url, asked.conversations)
            paints.append(seconds)
            page.context.close()
        page, _ = opened(browser, viewer.url, asked.conversations)
        found = scrolled(browser, page, asked.frames, agents, viewer)
        size = sent_bytes(browser, viewer.url)
        browser.close()
    paint = statistics.median(paints)
    lines = (
        (f"first meaningful paint, {asked.conversations:,} conversations: median {paint:.2f} s"
         f" ({min(paints):.2f} to {max(paints):.2f}, opened {asked.opened} times)", paint <= PAINT_AIM_S),
        (f"a frame of scrolling: {found['median']:.1f} ms of script, style and layout in the median, p95"
         f" {found['p95']:.1f} ms ({found['frames']:.0f} frames)", found["median"] <= FRAME_AIM_MS),
        (f"longest task while scrolling: {found['longest']:.0f} ms", found["longest"] <= TASK_AIM_MS),
        (f"rows in the document: {found['rows']:.0f} at most", found["rows"] <= ROWS_AIM),
        (f"sent: {size / 1000:.1f} kB in all", size <= BYTES_AIM),
    )  # fmt: skip
    for text, reached in lines:
        print(f"{text}{'' if reached else '   MISSED'}")
    return 0 if all(reached for _, reached in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
