"""How the manual is served: the built site to anybody, with headers that allow nothing but its own files; else the texts."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import pytest

import manual as package
from api import manual
from manual import SiteFile, files
from tests.api.world import World

SCRIPT = "let scope = new URL('.', location)"
PAGE = f"<html><script>{SCRIPT}</script><script src='assets/bundle.js'></script></html>"
SITE = {
    "index.html": PAGE,
    "risk.html": "<html></html>",
    "search.json": "{}",
    "assets/bundle.js": "1",
    "pictures/console.png": "no picture",
}
Served = Mapping[str, SiteFile]


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Served]:
    """What is found of the files of this folder, with what else may lie about."""
    for name, text in (SITE | {"page.html.orig": "stray", "sitemap.xml": "stray"}).items():
        file = tmp_path / "site" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "secret.html").write_text("not of the site")
    monkeypatch.setattr("manual.resources.files", lambda _: tmp_path)
    return files.__wrapped__


@pytest.fixture
def site(found: Callable[[], Served], monkeypatch: pytest.MonkeyPatch) -> None:
    served = found()
    monkeypatch.setattr(manual, "files", lambda: served)


def test_the_files_of_the_folder_are_found_and_nothing_else(found: Callable[[], Served]) -> None:
    assert found().keys() == SITE.keys()


def test_a_package_without_a_site_has_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manual.resources.files", lambda _: tmp_path)
    assert files.__wrapped__() == {}


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("path", ["", *SITE])
async def test_its_files_are_public_and_answer_head(world: World, path: str) -> None:
    response = await world.stranger.get(f"/manual/{path}")
    assert (response.status_code, response.text) == (200, SITE[path or "index.html"])
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"
    seen = await world.stranger.head(f"/manual/{path}")
    assert (seen.status_code, seen.content) == (200, b"")
    assert seen.headers["content-length"] == response.headers["content-length"]


@pytest.mark.usefixtures("site")
async def test_a_page_may_run_its_own_scripts_alone(world: World) -> None:
    policy = (await world.stranger.get("/manual/")).headers["content-security-policy"]
    expected = b64encode(sha256(SCRIPT.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{expected}';" in policy
    assert "default-src 'none'" in policy
    assert "http" not in policy


@pytest.mark.usefixtures("site")
async def test_what_is_named_by_its_content_is_cached_and_pages_are_not(world: World) -> None:
    assert "max-age" in (await world.stranger.get("/manual/assets/bundle.js")).headers["cache-control"]
    assert (await world.stranger.get("/manual/risk.html")).headers["cache-control"] == "no-store"


@pytest.mark.usefixtures("site")
async def test_short_addresses_and_those_of_the_texts_lead_to_the_pages(world: World) -> None:
    first = await world.stranger.get("/manual")
    assert (first.status_code, first.headers["location"]) == (307, "/manual/")
    for name in ("risk.md", "risk"):
        response = await world.stranger.get(f"/manual/{name}")
        assert (response.status_code, response.headers["location"]) == (307, "risk.html")


ELSEWHERE = [
    "nothing.html", "../secret.html", "..%2fsecret.html", "%2e%2e/secret.html", "assets/..%2f..%2fsecret.html", "assets",
    "assets/", "/etc/passwd", "%2Fetc%2Fpasswd", "..%5csecret.html", "index.html%00", "page.html.orig", "sitemap.xml",
]  # fmt: skip


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("path", ELSEWHERE)
async def test_no_other_file_is_served(world: World, path: str) -> None:
    response = await world.stranger.get(f"/manual/{path}")
    assert response.status_code == 404
    assert "secret" not in response.text


async def test_where_no_site_was_built_the_answer_says_so(world: World) -> None:
    response = await world.stranger.get("/manual/")
    assert response.status_code == 404
    assert "make site" in response.json()["detail"]


def test_the_site_lies_in_the_package() -> None:
    assert Path(package.__file__).with_name("site").name in (Path(__file__).parents[2] / ".gitignore").read_text()
