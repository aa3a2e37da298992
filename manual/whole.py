"""Checks a built site: `python -m manual.whole FOLDER` names what a page would load from another host, or not find."""

import re
import sys
from pathlib import Path
from urllib.parse import urldefrag

# Tags whose targets a browser loads by itself, unlike links that a reader may follow.
_TAG = re.compile(r"<(?:script|link|img|iframe|source|video|audio|embed|object|form)\b[^>]*>")
_ADDRESS = re.compile(r"""\b(?:src|href|srcset|data|action|poster)=["']?([^"'\s>]+)""")
_IN_STYLES = re.compile(r"""(?:url\(|@import\s+)["']?((?:https?:)?//[^"')\s]+)""")


def faults(folder: Path) -> list[str]:
    """One line each: the page, and what is wrong with it."""
    pages = sorted(folder.rglob("*.html"))
    found = [
        f"{page.name}: {address}"
        for page in pages
        for tag in _TAG.findall(page.read_text())
        for address in _ADDRESS.findall(tag)
        if not _is_there(page, address)
    ]
    styles = [(sheet, sheet.read_text()) for sheet in sorted(folder.rglob("*.css"))]
    return found + [f"{sheet.name}: {address}" for sheet, text in styles for address in _IN_STYLES.findall(text)]


def _is_there(page: Path, address: str) -> bool:
    """Whether the address is a file of the site, or part of the page itself."""
    path, _ = urldefrag(address)
    return address.startswith("data:") or not path or (page.parent / path).is_file()


def main() -> None:
    """Exits with 1 if something is wrong, or if there is no page at all."""
    folder = Path(sys.argv[1])
    wrong = faults(folder) if (folder / "index.html").is_file() else [f"{folder} holds no site"]
    if wrong:
        raise SystemExit("The manual would load what is not its own:\n" + "\n".join(wrong))


if __name__ == "__main__":
    main()
