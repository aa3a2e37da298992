"""An hour of a desk with a decision a second, in a few minutes: what the page keeps of it, and how long its frames take.

`python -m tests.console.long_life [events]` prints Chromium's own counters, after each sixth of the events.
"""

import asyncio
import logging
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import structlog
from playwright.async_api import CDPSession, Page, async_playwright

from api import feed
from tests.api.serving import serving
from tests.api.world import make_decision, make_observation
from tests.console.conftest import ARGUMENTS, Console, browser_program
from tests.storage.test_equity import a_point

EVENTS = 3600
A_SECOND = 20
KEPT_ROWS = 400
POINTS = 600
# Seconds that the page's thread has worked, of all and of which.
WORK = ("TaskDuration", "ScriptDuration", "LayoutDuration", "RecalcStyleDuration")
COUNTERS = ("JSHeapUsedSize", "Nodes", "JSEventListeners", "Documents")
# The page's slow timers keep pace with the events.
FASTER = f"""const real = setInterval;
window.setInterval = (work, ms, ...more) => real(work, ms >= 1000 ? ms / {A_SECOND} : ms, ...more);
window.frames_ms = [];
let last = performance.now();
const frame = (now) => {{
  frames_ms.push(now - last);
  if (frames_ms.length > 5000) frames_ms.shift();
  last = now;
  requestAnimationFrame(frame);
 }};
requestAnimationFrame(frame);
window.tasks_ms = [];
const note = (list) => list.getEntries().forEach((it) => tasks_ms.push(it.duration));
new PerformanceObserver(note).observe({{ type: "longtask" }});"""


async def main(events: int) -> None:
    """Drives one page, and prints what it costs."""
    feed.LOG_SECONDS = 1 / A_SECOND
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    desk = Console()
    async with async_playwright() as driver, serving(desk.app) as port:
        desk.port = port
        browser = await driver.chromium.launch(executable_path=browser_program(), headless=True, args=ARGUMENTS)
        desk.watch(await browser.new_page(viewport={"width": 1280, "height": 900}))
        await desk.page.add_init_script(FASTER)
        await desk.open()
        await desk.shows("running")
        counters = await desk.page.context.new_cdp_session(desk.page)
        await counters.send("Performance.enable")
        for first, last in pairwise(events * it // 6 for it in range(7)):
            await desk.page.evaluate("() => { frames_ms.length = tasks_ms.length = 0; }")
            began = time.monotonic()
            await happen(desk, first, last)
            await tell(desk.page, counters, last, time.monotonic() - began)
        await browser.close()
    sys.stdout.write(f"faults: {desk.faults or 'none'}\n")


async def happen(desk: Console, first: int, last: int) -> None:
    """One decision, cycle and reading after the other."""
    now = datetime.now(UTC)
    desk.reports.points = [
        a_point(
            0, 10_000 + it % 50, time=now - timedelta(seconds=POINTS - it), prices={"BTCUSDT": Decimal(64_000 + it % 7)}
        )
        for it in range(POINTS)
    ]
    for number in range(first, last):
        desk.reports.rows = [make_decision(it) for it in range(number + 1, max(0, number + 1 - KEPT_ROWS), -1)]
        desk.gateway.carried.cycle_number = number
        desk.gateway.carried.last_cycle_at = datetime.now(UTC)
        desk.gateway.carried.observation = make_observation().model_copy(update={"observed_at": datetime.now(UTC)})
        await asyncio.sleep(1 / A_SECOND)


async def tell(page: Page, counters: CDPSession, events: int, seconds: float) -> None:
    """After a collection of garbage: what is left is what the page holds on to."""
    await counters.send("HeapProfiler.collectGarbage")
    found = {it["name"]: it["value"] for it in (await counters.send("Performance.getMetrics"))["metrics"]}
    told = ", ".join(f"{name} {found[name]:,.0f}" for name in COUNTERS)
    work = ", ".join(f"{name} {found[name]:.1f} s" for name in WORK)
    frames = await page.evaluate("frames_ms.sort((a, b) => a - b)")
    tasks = await page.evaluate("tasks_ms")
    middle, late, worst = (frames[min(int(len(frames) * it), len(frames) - 1)] for it in (0.5, 0.99, 1))
    rows = await page.locator("#log .rows > li").count()
    sys.stdout.write(
        f"after {events} events ({seconds:.0f} s): {told}; {work}; {rows} rows; frames of {middle:.1f} ms, "
        f"99 % under {late:.1f}, worst {worst:.1f}; tasks over 50 ms: {len(tasks)}, worst {max(tasks, default=0):.0f} ms\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS))
