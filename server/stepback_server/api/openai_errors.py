"""Errors as OpenAI spells them, on the routes that its clients call."""

from typing import Any

from stepback_core.schemas import ErrorType
from stepback_server.errors import ApiError, ErrorKind

_PREFIX = "/v1/"
# OpenAI has no such paths: Stepback's own client reads their errors.
_OWN_PREFIX, _OWN_SUFFIX = "/v1/searches", "/reload"
_TOKENIZER = frozenset({"/tokenize", "/detokenize", "/tokenizer_info"})
# A spent minute is not over when a client's retries are, and a defect is met again.
_USELESS_TO_RETRY = frozenset({"tokens_per_minute", "internal"})


def is_openai(path: str) -> bool:
    """True for the paths of OpenAI's API and of its clients' tokenizers."""
    if path.startswith(_OWN_PREFIX) or path.endswith(_OWN_SUFFIX):
        return False
    return path.startswith(_PREFIX) or path in _TOKENIZER


def status_of(error: ApiError | ErrorKind) -> int:
    """HTTP status: OpenAI knows no 422."""
    return 400 if error.status == 422 else error.status


def body_of(error: ApiError) -> dict[str, Any]:
    """The body: our names, but for the type of what is wrong with a request."""
    body = error.body.model_dump(mode="json")
    if body["error"]["type"] == ErrorType.INVALID_REQUEST.value:
        body["error"]["type"] = "invalid_request_error"
    return body


def headers_of(error: ApiError) -> dict[str, str]:
    """The headers: OpenAI's SDK obeys `x-should-retry`."""
    headers = dict(error.headers or {})
    if error.code in _USELESS_TO_RETRY:
        headers["x-should-retry"] = "false"
    return headers
