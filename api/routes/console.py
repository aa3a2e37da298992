"""The console's files. They are public and hold neither data nor secrets: the page reads its data through the API, with a key."""

from collections.abc import Mapping

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException

from console import INDEX, files

router = APIRouter(include_in_schema=False)

_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@router.api_route("/", methods=["GET", "HEAD"])
@router.api_route("/console", methods=["GET", "HEAD"])
async def to_console(request: Request) -> Response:
    """Leads to the console."""
    return RedirectResponse(f"{request.scope.get('root_path', '')}/console/", 307)


@router.api_route("/console/", methods=["GET", "HEAD"])
async def index() -> Response:
    """The page."""
    return _serve(INDEX)


@router.api_route("/console/{name}", methods=["GET", "HEAD"])
async def file(name: str) -> Response:
    """A file that the page loads."""
    return _serve(name)


def _serve(name: str) -> Response:
    found = files().get(name)
    if found is None:
        raise HTTPException(404, "Not Found")
    return Response(found.content, media_type=found.media_type, headers=_HEADERS)
