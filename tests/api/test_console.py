"""How the console is served: to anybody, with headers that allow nothing but its own files."""

import shutil
from pathlib import Path

import pytest

import console
from console import files
from tests.api.world import World

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


@pytest.mark.parametrize("path", ["/", "/console"])
async def test_short_addresses_lead_to_it(world: World, path: str) -> None:
    response = await world.stranger.get(path)
    assert (response.status_code, response.headers["location"]) == (307, "/console/")


@pytest.mark.parametrize("path", ["/console/", *(f"/console/{name}" for name in files())])
async def test_its_files_are_public_and_carry_its_headers(world: World, path: str) -> None:
    response = await world.stranger.get(path)
    assert response.status_code == 200
    assert response.headers["content-security-policy"] == POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert (await world.stranger.head(path)).status_code == 200


async def test_scripts_have_a_type_that_a_browser_runs(world: World) -> None:
    response = await world.stranger.get("/console/app.js")
    assert response.headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize("path", ["/console/no-such.js", "/console/..%2f__init__.py", "/console/__init__.py"])
async def test_no_other_file_is_served(world: World, path: str) -> None:
    response = await world.stranger.get(path)
    assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})


async def test_its_files_contain_nothing_about_the_desk(world: World) -> None:
    for name in ("", *files()):
        text = (await world.stranger.get(f"/console/{name}")).text
        assert "coordinator-main" not in text
        assert "BTCUSDT" not in text


def test_a_stray_file_beside_the_page_is_not_served_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(Path(console.__file__).parent / "page", tmp_path / "page")
    for name in ("app.js.orig", ".DS_Store", "README"):
        (tmp_path / "page" / name).write_text("stray")
    (tmp_path / "page" / "folder.js").mkdir()
    monkeypatch.setattr("console.resources.files", lambda _: tmp_path)
    assert files.__wrapped__() == files()
