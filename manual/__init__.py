"""The manual as a site: `make site` builds it from docs/ into `manual/site/`; this lists its files.

If the site was not built there are none. The site is self-contained: no page loads anything from another host (`manual/whole.py`
checks that).
"""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib import resources
from importlib.resources.abc import Traversable
from typing import NamedTuple

INDEX = "index.html"
_TYPES = {
    "html": "text/html", "css": "text/css", "js": "text/javascript", "json": "application/json",
    "png": "image/png", "svg": "image/svg+xml",
}  # fmt: skip
INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


class SiteFile(NamedTuple):
    """One file as it is served. `scripts` are the hashes of the page's inline scripts."""

    content: bytes
    media_type: str
    scripts: tuple[str, ...] = ()


@cache
def files() -> dict[str, SiteFile]:
    """Every file of the site by its path below `/manual/`."""
    found = resources.files(__name__).joinpath("site")
    return dict(_walk(found, "")) if found.is_dir() else {}


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, SiteFile]]:
    walked: list[tuple[str, SiteFile]] = []
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.is_dir():
            walked += _walk(item, f"{prefix}{item.name}/")
        elif kind := _TYPES.get(item.name.rpartition(".")[2]):
            content = item.read_bytes()
            inline = INLINE_SCRIPT.findall(content.decode()) if kind == "text/html" else []
            hashes = {f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in inline}
            walked.append((prefix + item.name, SiteFile(content, kind, tuple(sorted(hashes)))))
    return walked
