"""The pages of the interface, /docs and /redoc, from files of our own: no CDN is asked.

Every address on them is relative, so they also work under a prefix that a proxy takes away.
"""

from pathlib import Path

import fastapi_offline
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

_FILES = Path(fastapi_offline.__file__).with_name("static")
_SERVED_AT = "docs-files"


def install_docs(app: FastAPI) -> None:
    """Add the pages to an application, and the scripts and styles that they are made of."""
    app.mount(f"/{_SERVED_AT}", StaticFiles(directory=_FILES))
    app.add_route("/docs", _swagger, include_in_schema=False)
    app.add_route("/redoc", _redoc, include_in_schema=False)


async def _swagger(_: Request) -> HTMLResponse:
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Stepback",
        swagger_js_url=f"{_SERVED_AT}/swagger-ui-bundle.js",
        swagger_css_url=f"{_SERVED_AT}/swagger-ui.css",
        swagger_favicon_url=f"{_SERVED_AT}/favicon.png",
    )


async def _redoc(_: Request) -> HTMLResponse:
    return get_redoc_html(
        openapi_url="openapi.json",
        title="Stepback",
        redoc_js_url=f"{_SERVED_AT}/redoc.standalone.js",
        redoc_favicon_url=f"{_SERVED_AT}/favicon.png",
        with_google_fonts=False,
    )
