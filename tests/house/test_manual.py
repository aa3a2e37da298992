"""The manual: every page has its place, its pictures are small, and what builds the site sees what is wrong with it."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from manual.quoting import quoted
from manual.whole import faults
from tests.house.sources import ROOT

DOCS = ROOT / "docs"
MOST_BYTES = 150 * 1024


def _places(navigation: list[dict[str, Any]]) -> list[str]:
    named = [place for entry in navigation for place in entry.values()]
    return [page for place in named for page in ([place] if isinstance(place, str) else _places(place))]


def test_every_page_has_one_place_in_the_navigation() -> None:
    places = _places(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"])
    pages = sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
    assert sorted(places) == pages, "Correct `nav` in zensical.toml."


def test_every_picture_is_shown_somewhere_and_small() -> None:
    text = "".join(page.read_text() for page in DOCS.glob("*.md"))
    shown = set(re.findall(r"""(?:\]\(|src=")(pictures/[^)"]+)""", text))
    pictures = {str(file.relative_to(DOCS)): file.stat().st_size for file in (DOCS / "pictures").iterdir()}
    assert shown == pictures.keys()
    assert not {name: size for name, size in pictures.items() if size > MOST_BYTES}, (
        "Fewer colours, in tests/console/pictures.py."
    )


def test_links_of_pages_stay_in_the_folder_so_that_the_site_has_them_too() -> None:
    wrong = [
        f"{page.name}: {link}"
        for page in sorted(DOCS.glob("*.md"))
        for link in re.findall(r"\]\((?!http)([^)]+)\)", page.read_text())
        if link.startswith(("..", "/"))
    ]
    assert not wrong


def _site(folder: Path, page: str, sheet: str = "") -> Path:
    (folder / "index.html").write_text(page)
    (folder / "style.css").write_text(sheet)
    return folder


OWN = [
    '<link rel="stylesheet" href="style.css">',
    "<link rel=stylesheet href=./style.css#x>",
    '<a href="https://github.com/">a link that a reader follows</a>',
    '<img src="data:image/png;base64,AAAA">',
    "<script>let here = 'https://elsewhere.example'</script>",
]
FOREIGN = [
    '<script src="https://cdn.example/x.js"></script>',
    "<script src=//cdn.example/x.js></script>",
    '<link rel="stylesheet"\n href="https://fonts.example/css">',
    "<img alt='' src='http://pixel.example/x.png'>",
    '<iframe src="https://elsewhere.example/"></iframe>',
    '<img src="missing.png">',
    '<link rel="icon" href="/rooted.png">',
]


@pytest.mark.parametrize("page", OWN)
def test_a_page_of_its_own_files_is_whole(tmp_path: Path, page: str) -> None:
    assert faults(_site(tmp_path, page)) == []


@pytest.mark.parametrize("page", FOREIGN)
def test_a_page_that_loads_from_elsewhere_is_named(tmp_path: Path, page: str) -> None:
    (fault,) = faults(_site(tmp_path, page))
    assert fault.startswith("index.html: ")


@pytest.mark.parametrize(
    "sheet", ["@import 'https://fonts.example/css';", "body { background: url(//pixel.example/x.png) }"]
)
def test_a_style_sheet_that_loads_from_elsewhere_is_named(tmp_path: Path, sheet: str) -> None:
    (fault,) = faults(_site(tmp_path, "", sheet))
    assert fault.startswith("style.css: ")


README = "# AIS\n\nIt is [this](docs/a.md).\n\n```\ndrawing\n```\n\n## One\n\nfirst\n\n## Two\n\nsecond\n"


def test_a_page_quotes_the_readme_as_it_is_now() -> None:
    page = "# P\n<!-- README: introduction -->\nold\n<!-- end -->\nmine\n<!-- README: One -->\n<!-- end -->\n"
    now = quoted(page, README)
    assert now == (
        "# P\n<!-- README: introduction -->\n\nIt is [this](a.md).\n\n<!-- end -->\nmine\n"
        "<!-- README: One -->\n\n## One\n\nfirst\n\n<!-- end -->\n"
    )
    assert quoted(now, README) == now


def test_a_quotation_of_what_is_gone_is_an_error() -> None:
    with pytest.raises(ValueError, match="no section 'Three'"):
        quoted("<!-- README: Three -->\n<!-- end -->\n", README)
