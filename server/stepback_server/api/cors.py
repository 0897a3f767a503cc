"""Cross-origin requests: which web pages may call the server."""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

_STAINLESS = (
    "arch",
    "helper-method",
    "lang",
    "os",
    "package-version",
    "poll-helper",
    "retry-count",
)
_SENT = (
    *("Authorization", "Content-Type", "Idempotency-Key", "X-Request-Id", "traceparent"),
    *("X-Stepback-Budget-Tokens", "Last-Event-ID", "tracestate", "baggage"),
    # OpenAI's client sends them all, and a browser asks for each.
    *("OpenAI-Beta", "OpenAI-Organization", "OpenAI-Project"),
    *(f"X-Stainless-{name}" for name in (*_STAINLESS, "runtime", "runtime-version", "timeout")),
)
_READ = (
    "Retry-After",
    "X-Request-Id",
    "Idempotent-Replayed",
    "WWW-Authenticate",
    "x-should-retry",
)


def with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The application for pages of these origins."""
    # Keys come in a header and never in a cookie, so no page can use a key that it does not hold.
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST", "DELETE"),
        allow_headers=_SENT,
        expose_headers=_READ,
    )
