"""Swagger UI and ReDoc without internet: the API serves their files from an installed package."""

from functools import cache
from importlib import resources

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

router = APIRouter(include_in_schema=False)

_TITLE = "AIS"
_CACHED = {"Cache-Control": "public, max-age=86400"}
_START_SWAGGER = """\
SwaggerUIBundle({
  url: "../openapi.json", dom_id: "#swagger-ui", deepLinking: true, persistAuthorization: false,
  presets: [SwaggerUIBundle.presets.apis], layout: "BaseLayout",
})
"""
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="docs/favicon.png">
{head}
</head>
<body>
{body}
</body>
</html>
"""
_SWAGGER = _PAGE.format(
    title=_TITLE,
    head='<link rel="stylesheet" href="docs/swagger-ui.css">',
    body='<div id="swagger-ui"></div>\n'
    '<script src="docs/swagger-ui-bundle.js"></script>\n<script src="docs/start.js"></script>',
)
_REDOC = _PAGE.format(
    title=_TITLE,
    head="<style>body { margin: 0 }</style>",
    body='<redoc spec-url="openapi.json"></redoc>\n<script src="docs/redoc.standalone.js"></script>',
)
_FILES = {
    "swagger-ui.css": ("swagger/swagger-ui.css", "text/css"),
    "swagger-ui-bundle.js": ("swagger/swagger-ui-bundle.js", "text/javascript"),
    "redoc.standalone.js": ("redoc/redoc.standalone.js", "text/javascript"),
    "favicon.png": ("fastapi/favicon.png", "image/png"),
}


@router.get("/docs")
async def swagger() -> HTMLResponse:
    """Swagger UI."""
    return HTMLResponse(_SWAGGER)


@router.get("/redoc")
async def redoc() -> HTMLResponse:
    """ReDoc."""
    return HTMLResponse(_REDOC)


@router.get("/docs/start.js")
async def start_swagger() -> Response:
    """The script that starts Swagger UI; as a file, so that no page needs inline scripts."""
    return Response(_START_SWAGGER, media_type="text/javascript")


@cache
def _content(name: str) -> bytes:
    return resources.files("fastapi_standalone_docs").joinpath("static", _FILES[name][0]).read_bytes()


def load_assets() -> None:
    """Reads the files now, so that no request waits for a disk."""
    for name in _FILES:
        _content(name)


def _add_file(name: str) -> None:
    async def serve() -> Response:
        return Response(_content(name), media_type=_FILES[name][1], headers=_CACHED)

    router.add_api_route(f"/docs/{name}", serve, methods=["GET"], response_class=Response)


for _name in _FILES:
    _add_file(_name)
