"""Exception handlers: every error as the one error body, with a message that says what to do."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from stepback_server.api.openai_errors import body_of, headers_of, is_openai, status_of
from stepback_server.errors import ApiError, invalid, unparsable
from stepback_server.handlers.failures import KNOWN_FAILURES, failure_of
from stepback_server.request_context import note


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    for failure in (*KNOWN_FAILURES, Exception):
        app.add_exception_handler(failure, _on_failure)


def response_of(error: ApiError, path: str) -> JSONResponse:
    """Return the answer to a caller of a path, and note the code for the access log, which counts
    it."""
    note(code=error.code)
    # By path: OpenAI's clients parse their own form of errors on their routes.
    if is_openai(path):
        return JSONResponse(body_of(error), status_of(error), headers_of(error))
    return JSONResponse(error.body.model_dump(mode="json"), error.status, error.headers)


async def _on_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return response_of(invalid(error.errors()), request.url.path)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    # FastAPI's word on a body that cannot be read.
    if error.status_code == 400 and _is_form(request):
        message = "The body is no multipart/form-data that can be read: send `purpose` and `file`."
        return response_of(ApiError("http_error", message), request.url.path)
    if error.status_code == 400:
        return response_of(unparsable(), request.url.path)
    code = {404: "no_such_path", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    message = f"{error.detail}: see /docs for the paths and methods."
    headers = dict(error.headers) if error.headers else None
    failure = ApiError(code, message, headers=headers, status=error.status_code)
    return response_of(failure, request.url.path)


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/")


async def _on_failure(request: Request, error: Exception) -> JSONResponse:
    return response_of(failure_of(error), request.url.path)
