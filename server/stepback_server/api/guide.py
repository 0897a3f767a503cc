"""The documentation at `/guide/`: the folder that `make site` builds, where the server has one."""

import base64
import hashlib
import re
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from stepback_core.errors import InvalidInput
from stepback_server.errors import ApiError

GUIDE_PATH = "/guide"
_ABSENT = (
    "This server has no guide: `make site` builds it into build/site, and STEPBACK_GUIDE_DIR "
    "names that folder."
)
# A picture has its style inside, and is a document of its own where it is opened by itself.
_PICTURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


class _GuideFiles(StaticFiles):
    def __init__(self, folder: Path) -> None:
        super().__init__(directory=folder, html=True)
        self._headers = {
            "Content-Security-Policy": _policy(folder),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            # A new version of the server brings a new guide: asked for each time, it is small.
            "Cache-Control": "no-cache",
        }

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if response.status_code == 404:
            # The site's own 404 page takes its styles from the root of the host, not from /guide.
            raise ApiError(
                "no_such_path", f"The guide has no such page: {GUIDE_PATH}/ has them all."
            )
        response.headers.update(self._headers)
        if path.endswith(".svg"):
            response.headers["Content-Security-Policy"] = _PICTURE_POLICY
        return response


def _policy(folder: Path) -> str:
    """Content policy of the site: its own files, and its inline scripts by their hashes."""
    # The theme writes a few lines of script into each page, the same ones in all pages of a depth.
    # Their hashes let them run, and nothing that could get into a page besides.
    # Read once, when the server starts: the folder does not change under it.
    scripts = {
        script
        for page in folder.rglob("*.html")
        for script in _INLINE_SCRIPT.findall(page.read_bytes())
    }
    hashes = sorted(base64.b64encode(hashlib.sha256(one).digest()).decode() for one in scripts)
    allowed = " ".join(["'self'", *(f"'sha256-{one}'" for one in hashes)])
    # The theme's styles draw icons from data: URLs.
    return (
        f"default-src 'self'; script-src {allowed}; img-src 'self' data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    )


def mount_guide(app: FastAPI, folder: Path | None) -> None:
    """Serve the guide, or say how a server gets one. Raises InvalidInput for a folder without."""
    if folder is None:
        app.add_api_route(GUIDE_PATH, _absent, include_in_schema=False)
        app.add_api_route(f"{GUIDE_PATH}/{{path:path}}", _absent, include_in_schema=False)
        return
    # Looked at when the server starts: a wrong folder should not be found out by the first reader.
    if not (folder / "index.html").is_file():
        raise InvalidInput(
            f"STEPBACK_GUIDE_DIR: {folder} has no index.html; `make site` builds the guide into "
            "build/site"
        )
    app.add_api_route(GUIDE_PATH, _without_slash, include_in_schema=False)
    app.mount(GUIDE_PATH, _GuideFiles(folder), name="guide")


async def _absent() -> Response:
    raise ApiError("no_such_path", _ABSENT)


async def _without_slash() -> RedirectResponse:
    """Lead to the guide, whose links are relative to its folder."""
    return RedirectResponse(f".{GUIDE_PATH}/")
