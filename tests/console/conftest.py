"""A real Chromium on a served desk in memory.

The browser is the system's, or the program that AIS_BROWSER names, driven by `playwright`. `chromium-headless-shell` is the same
browser without windows, and takes half of the time. Without any of them these tests are skipped, but for CI, where they fail:
`.ci/run` installs it. One browser serves all tests; each has a page of its own.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, NoReturn

import pytest
from playwright.async_api import Browser, ConsoleMessage, Dialog, Page, TimeoutError, async_playwright

from domain.keys import Role
from tests.api.serving import serving
from tests.api.world import KEY, World

# Ends a broken test, and says nothing of how long a good one takes.
SECONDS = 30
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    # Fewer processes to start and to talk to, a third of the browser's work: all of its pages are ours.
    "--in-process-gpu", "--renderer-process-limit=1", "--disable-site-isolation-trials",
]  # fmt: skip


def browser_program() -> str:
    named = os.environ.get("AIS_BROWSER")
    programs = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    found = named or next(filter(None, map(shutil.which, programs)), None)
    return found or do_without("no browser: install chromium, or name one in AIS_BROWSER")


def do_without(what: str) -> NoReturn:
    """Nobody may take a run of CI without these tests for one in which they passed."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


class Console(World):
    """A desk in memory, and the page that shows it."""

    port: int
    page: Page

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []

    def renew(self) -> None:
        """A new desk, without faults of any kind."""
        self.gateway.renew()
        # No cycle since NOW would be a desk without a worker of its own.
        self.gateway.carried.started_at = datetime.now(UTC)
        self.reports.renew()
        self.keys.error = None
        self.faults.clear()

    def with_key(self, name: str, role: Role, **facts: Any) -> str:
        """A new key that the API knows at once."""
        made = self.keys.add(name, role, **facts)
        self.app.state.parts.ring.take(dict(self.keys.rows))
        return made

    def forget_keys(self) -> None:
        """What a process knows of the keys that has just started."""
        self.app.state.parts.ring.__dict__.update(_keys={}, _read_at=None)

    async def open(self, key: str | None = KEY) -> None:
        fragment = f"#key={key}" if key else ""
        await self.page.goto(f"http://127.0.0.1:{self.port}/console/{fragment}")

    async def shows(self, state: str) -> None:
        """Waits until the page shows the state as current."""
        await self.page.wait_for_selector(f"body[data-state={state}]:not(.stale)", timeout=SECONDS * 1000)

    async def text(self, selector: str) -> str:
        return str(await self.page.inner_text(selector))

    async def says(self, selector: str, words: str) -> None:
        """Waits until it holds these words."""
        try:
            await self.page.wait_for_function(
                "([selector, words]) => document.querySelector(selector)?.innerText.includes(words)",
                arg=[selector, words],
                timeout=SECONDS * 1000,
                # Not at each frame, which is half of the browser's work.
                polling=50,
            )
        except TimeoutError:
            pytest.fail(f"{selector} says {await self.text(selector)!r}, not {words!r}; sent: {self.gateway.signals}")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for something on the server's side."""
        async with asyncio.timeout(SECONDS):
            while not condition():
                await asyncio.sleep(0.02)

    async def hold(self, milliseconds: float) -> None:
        """Presses the mouse on the kill's button."""
        await self.page.hover("#kill-button")
        await self.page.mouse.down()
        await self.page.wait_for_timeout(milliseconds)
        await self.page.mouse.up()

    def watch(self, page: Page) -> None:
        """Whatever a browser complains of is a fault, but for answers that a test wants to fail."""
        self.page = page
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("dialog", self._ask)
        page.on("console", self._hear)

    async def _ask(self, dialog: Dialog) -> None:
        self.faults.append(f"dialog: {dialog.message or dialog.type}")
        await dialog.dismiss()

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.faults.append(message.text)


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    program = browser_program()
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=program, headless=True, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
def desk() -> Console:
    return Console()


@pytest.fixture
async def console(desk: Console, browser: Browser) -> AsyncIterator[Console]:
    """A page that is not opened yet, of a desk without a past, at an address of its own."""
    desk.renew()
    # What moves is only the button that fills while it is held: 60 pictures a second that no test looks at.
    context = await browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    async with serving(desk.app) as port:
        desk.port = port
        desk.watch(await context.new_page())
        yield desk
        await context.close()
    assert not desk.faults
