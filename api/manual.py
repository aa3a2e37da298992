"""The manual: the site, where `make site` made one; in a checkout, the pages of `docs/` as they are written.

The API's own documentation links to the pages as they are called in the repository, without internet.
"""

from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from manual import INDEX, SiteFile, files

router = APIRouter(include_in_schema=False)

_ROOT = Path(__file__).parents[1]
# Their names change with their content.
_CACHED = {"Cache-Control": "public, max-age=86400"}
# Its search draws with inline styles; of scripts, those alone that stand in the page.
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
    """Every page of `docs/` by its name. A wheel has none of them: they stand in the repository."""
    # Beside an installed wheel, a folder of that name is somebody else's.
    found = sorted(_ROOT.glob("docs/*.md")) if (_ROOT / "pyproject.toml").exists() else []
    return {file.name: file.read_text() for file in found}


@router.get("/manual")
async def to_manual(request: Request) -> Response:
    """Leads to the first page."""
    return RedirectResponse(f"{request.scope.get('root_path', '')}/manual/", 307)


@router.get("/manual/{page:path}")
async def page(page: str) -> Response:
    """One file of the site; or one page as text, which a browser shows, where it would save Markdown as a file."""
    if found := files().get(page or INDEX):
        return _site_file(page, found)
    if (rendered := page.removesuffix(".md") + ".html") in files():
        return RedirectResponse(rendered, 307)
    if (text := texts().get(page)) is not None:
        return Response(text, media_type="text/plain")
    return JSONResponse({"detail": _missing()}, 404)


def _site_file(path: str, found: SiteFile) -> Response:
    headers = _CACHED if path.startswith("assets/") else {}
    if found.media_type == "text/html":
        headers = {"Content-Security-Policy": _POLICY.format(scripts=" ".join(found.scripts))}
    return Response(found.content, media_type=found.media_type, headers=headers)


def _missing() -> str:
    if files():
        return "There is no such page in the manual; /manual/ is the first one."
    return "There is no such page here: the manual was not built (make site). The repository has its pages in docs/."
