"""The manual: the site if `make site` has built one; otherwise, in a checkout, the pages of `docs/` as text.

The API's own documentation links to these pages by their names in the repository, and needs no internet.
"""

from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from manual import INDEX, SiteFile, files

router = APIRouter(include_in_schema=False)

_ROOT = Path(__file__).parents[1]
# For files whose names change with their content.
_CACHED = {"Cache-Control": "public, max-age=86400"}
# The site's search needs inline styles. Of inline scripts, only the page's own may run.
_POLICY = (
    "default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def load() -> None:
    """Reads everything now, so that no request waits for a disk."""
    files()
    texts()


@cache
def texts() -> dict[str, str]:
    """Every page of `docs/` by its name; empty in an installed wheel, which has no pages."""
    # Beside an installed wheel, a folder of that name would be somebody else's.
    found = sorted(_ROOT.glob("docs/*.md")) if (_ROOT / "pyproject.toml").exists() else []
    return {file.name: file.read_text() for file in found}


@router.get("/manual")
async def to_manual(request: Request) -> Response:
    """Leads to the first page."""
    return RedirectResponse(f"{request.scope.get('root_path', '')}/manual/", 307)


@router.get("/manual/{page:path}")
async def page(page: str) -> Response:
    """A file of the site, or a page as plain text: a browser shows that, but would download Markdown."""
    if found := files().get(page or INDEX):
        return _site_file(page, found)
    if (rendered := page.removesuffix(".md") + ".html") in files():
        return RedirectResponse(rendered, 307)
    if (text := texts().get(page)) is not None:
        return Response(text, media_type="text/plain")
    detail = "There is no such page in the manual; /manual/ is the first one."
    if not files():
        detail = (
            "There is no such page here: the manual was not built (make site). The repository has its pages in docs/."
        )
    return JSONResponse({"detail": detail}, 404)


def _site_file(path: str, found: SiteFile) -> Response:
    headers = _CACHED if path.startswith("assets/") else {}
    if found.media_type == "text/html":
        headers = {"Content-Security-Policy": _POLICY.format(scripts=" ".join(found.scripts))}
    return Response(found.content, media_type=found.media_type, headers=headers)
