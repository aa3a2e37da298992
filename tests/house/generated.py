"""The pages of docs/ that the code writes, or that quote another page: `make docs` writes them, and a test compares."""

from collections.abc import Callable

import settings
from api import reference as http
from cli import reference as cli
from manual.quoting import quoted
from tests.house.sources import ROOT

README = ROOT / "README.md"
DOCS = ROOT / "docs"


def _quoting(name: str) -> Callable[[], str]:
    return lambda: quoted((DOCS / name).read_text(), README.read_text())


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings.page,
    "http.md": http.page,
    "cli.md": cli.page,
    "architecture.md": _quoting("architecture.md"),
    "index.md": _quoting("index.md"),
    "first-hour.md": _quoting("first-hour.md"),
}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
