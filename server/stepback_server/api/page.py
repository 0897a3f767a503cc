"""The page that shows a search: static files of this package, under a strict content policy."""

from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from stepback_server.api.state import state_of

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
@router.get(PAGE_PATH)
async def root(request: Request) -> RedirectResponse:
    """Lead a browser to the page, whose links are relative to its folder."""
    # Relative where no prefix is named: a proxy may add one all the same.
    prefix = state_of(request.app).settings.root_path or "."
    return RedirectResponse(f"{prefix}{PAGE_PATH}/")


def mount_page(app: FastAPI) -> None:
    """Serve the page at `/ui/`; `/` leads to it."""
    app.include_router(router)
    app.mount(PAGE_PATH, _PageFiles(directory=_FOLDER, html=True), name="page")
