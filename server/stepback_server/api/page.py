"""The page that shows a search: static files of this package, under a strict content policy."""

from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import RedirectResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

PAGE_PATH = "/ui"
_FOLDER = Path(__file__).parents[1] / "page"
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # A new version of the server brings a new page: ask each time, it is small.
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False)


class _PageFiles(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response


@router.get("/")
async def root() -> RedirectResponse:
    """Lead a browser to the page, also behind a proxy that adds a prefix."""
    return RedirectResponse(f".{PAGE_PATH}/")


@router.get(PAGE_PATH)
async def without_slash() -> RedirectResponse:
    """Lead to the page, whose links are relative to its folder."""
    return RedirectResponse(f".{PAGE_PATH}/")


def mount_page(app: FastAPI) -> None:
    """Serve the page at `/ui/`; `/` leads to it."""
    app.include_router(router)
    app.mount(PAGE_PATH, _PageFiles(directory=_FOLDER, html=True), name="page")
