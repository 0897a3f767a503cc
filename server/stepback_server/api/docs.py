"""The pages of the interface, /docs and /redoc, from files of our own, without a CDN.

Every address on them is relative, so they also work under a prefix that a proxy takes away.
"""

import importlib.util
import logging
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

_log = logging.getLogger(__name__)

_PACKAGE = "fastapi_offline"
_SERVED_AT = "docs-files"
# Both write styles into the page, Swagger a script too, and Redoc begins a worker. Redoc's logo is
# left out by this: it would be fetched from its makers.
_POLICY = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; worker-src blob:; base-uri 'none'; "
    "frame-ancestors 'none'; object-src 'none'"
}


def install_docs(app: FastAPI) -> None:
    """Add the pages to an application, and the scripts and styles that they are made of."""
    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        # An image with other packages may lack it, and a server is not down for its docs.
        _log.warning("there are no /docs and no /redoc: pip install 'stepback-llm[server]'")
        return
    app.mount(f"/{_SERVED_AT}", StaticFiles(directory=Path(package.origin).with_name("static")))
    app.add_route("/docs", _swagger, include_in_schema=False)
    app.add_route("/redoc", _redoc, include_in_schema=False)


async def _swagger(_: Request) -> HTMLResponse:
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Stepback",
        swagger_js_url=f"{_SERVED_AT}/swagger-ui-bundle.js",
        swagger_css_url=f"{_SERVED_AT}/swagger-ui.css",
        swagger_favicon_url=f"{_SERVED_AT}/favicon.png",
    )
    page.headers.update(_POLICY)
    return page


async def _redoc(_: Request) -> HTMLResponse:
    page = get_redoc_html(
        openapi_url="openapi.json",
        title="Stepback",
        redoc_js_url=f"{_SERVED_AT}/redoc.standalone.js",
        redoc_favicon_url=f"{_SERVED_AT}/favicon.png",
        with_google_fonts=False,
    )
    page.headers.update(_POLICY)
    return page
