"""Authentication by API key, as a dependency of the routes that need one."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from stepback_server.api.state import state_of
from stepback_server.errors import ApiError
from stepback_server.gateway.tenant import ANYONE, Tenant
from stepback_server.request_context import CURRENT

_bearer = HTTPBearer(
    # FastAPI's own answer would be no error body of ours.
    auto_error=False,
    scheme_name="key",
    description="A key from `stepback keys new`. A server without keys needs none.",
)

Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def authenticate(request: Request, credentials: Credentials) -> Tenant:
    """The tenant whose key came along. Raises ApiError, which never repeats the key."""
    keys = state_of(request.app).keys
    if keys.is_open:
        return ANYONE
    if credentials is None:
        raise _refusal("missing_key", "Send a key: Authorization: Bearer KEY.", "Bearer")
    tenant = keys.find(credentials.credentials)
    if tenant is None:
        raise _refusal(
            "unknown_key",
            "This server does not know the key: ask whoever runs it for one.",
            'Bearer error="invalid_token"',
        )
    if (record := CURRENT.get()) is not None:
        # The access log's; set once the key is known to be good.
        record.caller = tenant.name
    return tenant


CurrentTenant = Annotated[Tenant, Depends(authenticate)]


async def authenticate_early(request: Request) -> None:
    """Authenticate a request before its body is read, where no dependency has run yet."""
    await authenticate(request, await _bearer(request))


async def authenticate_for_metrics(request: Request) -> None:
    """Authenticate a request for metrics, if `STEPBACK_METRICS_NEED_KEY` says so."""
    # No FastAPI security: the schema must not ask for a key that most servers do not want.
    if state_of(request.app).settings.metrics_need_key:
        await authenticate_early(request)


def _refusal(code: str, message: str, challenge: str) -> ApiError:
    headers = {"WWW-Authenticate": challenge}
    return ApiError(code, message, headers=headers)
