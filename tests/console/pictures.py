"""The pictures of `docs/pictures/`, taken of a running desk: `make pictures`.

A whole `ais dev` on free ports and with a folder of its own trades for a while, and the system's browser looks at its console.
"""

import asyncio
import io
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from PIL import Image
from playwright.async_api import Page, async_playwright

from tests.console.conftest import ARGUMENTS, SECONDS, browser_program
from tests.deploy.dev_stack import wait_until
from tests.e2e.live import Live

FOLDER = Path(__file__).parents[2] / "docs/pictures"
# Wide enough for every column, and for the charts so tall that no bar lies over them.
WIDE, TALL, PHONE = (1440, 960), (1440, 3000), (390, 844)
SHARPNESS = 1.5
# Of cycles of one second, so that the curves have a shape.
CYCLES = 90
COLOURS = 128


def main() -> None:
    """Takes all of them anew."""
    with tempfile.TemporaryDirectory() as folder:
        live = Live(Path(folder).resolve() / "desk")
        # What `ais dev` does by itself: with resting orders.
        live.stack.agents = None
        try:
            live.start(ready=False)
            live.stack.wait_for_line("ready", 180)
            wait_until(lambda: live.coordinator().get("cycle_number", 0) >= CYCLES, f"{CYCLES} cycles", 4 * CYCLES)
            asyncio.run(shoot(live))
            live.stack.interrupt(signal.SIGTERM)
        finally:
            live.clean_up()


async def shoot(live: Live) -> None:
    """The desk while it runs, on a screen and on a telephone; its charts; and after a kill."""
    async with opened(live, WIDE) as page:
        await save("console", page.screenshot)
    async with opened(live, TALL) as page:
        await save("charts", page.locator("section:has(#charts)").screenshot)
    async with opened(live, PHONE) as page:
        await save("phone", page.screenshot)
    live.kill("flash crash")
    live.until_quiet()
    async with opened(live, WIDE, state="killed") as page:
        await page.wait_for_selector("#kill-progress:not([hidden])")
        await save("killed", page.screenshot)


@asynccontextmanager
async def opened(live: Live, size: tuple[int, int], state: str = "running") -> AsyncIterator[Page]:
    """The console in a browser of its own, with all of the desk's life in its charts."""
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=browser_program(), headless=True, args=ARGUMENTS)
        page = await browser.new_page(
            viewport={"width": size[0], "height": size[1]}, device_scale_factor=SHARPNESS, color_scheme="light"
        )
        await page.goto(f"{live.stack.recorded['api_url']}/console/#key={live.key}")
        await page.wait_for_selector(f"body[data-state={state}]:not(.stale)", timeout=SECONDS * 1000)
        await page.locator("#chart-controls select").first.select_option("all")
        await page.wait_for_selector("#charts svg path", state="attached", timeout=SECONDS * 1000)
        await page.wait_for_selector("#log .row, #log tr, #log li", timeout=SECONDS * 1000)
        yield page
        await browser.close()


async def save(name: str, screenshot: Callable[[], Awaitable[bytes]]) -> None:
    """With few colours: a third of the bytes, and nobody sees it."""
    file = FOLDER / f"{name}.png"
    Image.open(io.BytesIO(await screenshot())).convert("RGB").quantize(COLOURS).save(file, optimize=True)
    sys.stdout.write(f"{file.name}: {file.stat().st_size // 1024} KB\n")


if __name__ == "__main__":
    main()
