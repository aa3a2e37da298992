"""The console: the files of one page for a browser (`console/page/`), and the list of them.

They are served as they are: no build step, no third-party file, nothing from the internet.
"""

from functools import cache
from importlib import resources
from typing import NamedTuple

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
INDEX = "index.html"


class PageFile(NamedTuple):
    """One file as it is served."""

    content: bytes
    media_type: str


@cache
def files() -> dict[str, PageFile]:
    """Every file of the page, by its name. Whatever else lies beside them, an editor's copy say, is not served."""
    found = sorted(resources.files(__name__).joinpath("page").iterdir(), key=lambda file: file.name)
    types = {file: _TYPES.get(file.name.rpartition(".")[2]) for file in found if file.is_file()}
    return {file.name: PageFile(file.read_bytes(), kind) for file, kind in types.items() if kind}
