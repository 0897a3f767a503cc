"""Cross-origin requests: which web pages may call the server."""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

_SENT = ("Authorization", "Content-Type", "Idempotency-Key", "X-Request-Id", "traceparent")
_READ = ("Retry-After", "X-Request-Id", "Idempotent-Replayed", "WWW-Authenticate")


def with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The application for pages of these origins."""
    # Keys come in a header and never in a cookie, so no page can use a key that it does not hold.
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=_SENT,
        expose_headers=_READ,
    )
