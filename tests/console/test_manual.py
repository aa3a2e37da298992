"""The built manual in a real Chromium: on a screen and on a telephone, searched, and alone with its own host."""

import pytest

from manual import files
from tests.console.conftest import SECONDS, Console, do_without

FITS = "document.documentElement.scrollWidth <= innerWidth"


@pytest.fixture(autouse=True)
def _a_site() -> None:
    if not files():
        do_without("no manual was built here: make site")


async def test_on_a_telephone_no_page_is_wider_than_the_window(console: Console) -> None:
    await console.page.set_viewport_size({"width": 390, "height": 844})
    for page in ("", "settings.html"):
        await console.page.goto(f"http://127.0.0.1:{console.port}/manual/{page}")
        assert await console.page.evaluate(FITS)


async def test_a_reader_finds_a_page_by_a_word_of_it_and_nothing_comes_from_elsewhere(console: Console) -> None:
    here, asked = f"http://127.0.0.1:{console.port}/manual/", []
    console.page.on("request", lambda request: asked.append(request.url))
    console.page.set_default_timeout(SECONDS * 1000)
    # The button does nothing before the page has read what can be found.
    await console.page.goto(here, wait_until="networkidle")
    assert await console.page.evaluate(FITS)
    await console.page.get_by_role("button", name="Search").first.click()
    await console.page.get_by_placeholder("Search").first.fill("latch")
    await console.page.locator("a[href$='#the-latch-in-two-places']").first.click()
    await console.page.wait_for_url("**/architecture.html*#the-latch-in-two-places")
    assert [url for url in asked if not url.startswith((here, "data:"))] == []
