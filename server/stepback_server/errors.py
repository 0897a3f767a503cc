"""Errors that a caller is answered with: one table of codes, and the exception that carries one.

ApiError: refuses a request, with its code, status and body. Every layer may raise it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepback_core.schemas import ErrorBody, ErrorDetail, ErrorType
from stepback_core.validation import own_message


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """Meaning of one code of the error body."""

    status: int
    type: ErrorType
    meaning: str
    remedy: str
    """Remedy for the caller or the operator."""


def _invalid(meaning: str, remedy: str, status: int = 422) -> ErrorKind:
    return ErrorKind(status, ErrorType.INVALID_REQUEST, meaning, remedy)


ERRORS: dict[str, ErrorKind] = {
    "invalid_json": _invalid(
        "The body is not JSON in UTF-8.",
        "Send one JSON object with `Content-Type: application/json`.",
        400,
    ),
    "not_declared_as_json": _invalid(
        "The body is not declared as JSON.",
        "Send `Content-Type: application/json`.",
        415,
    ),
    "missing_key": ErrorKind(
        401,
        ErrorType.AUTHENTICATION,
        "The server asks for an API key, and the request has none.",
        "Send `Authorization: Bearer KEY`, with a key that the operator gave you.",
    ),
    "unknown_key": ErrorKind(
        401,
        ErrorType.AUTHENTICATION,
        "The server does not know this API key.",
        "Ask the operator whether it was withdrawn; `stepback keys new` makes another.",
    ),
    "idempotency_mismatch": _invalid(
        "The `Idempotency-Key` was used for another request.",
        "Send a fresh one with each request.",
    ),
    "tokens_per_minute": ErrorKind(
        429,
        ErrorType.OVERLOADED,
        "The API key has used its tokens of this minute.",
        "Wait as long as `Retry-After` says; the client does so by itself up to a minute, and "
        "raises at once where it is longer. An operator can raise the key's limit.",
    ),
    "unknown_task": ErrorKind(
        404,
        ErrorType.NOT_FOUND,
        "The served model does not know this task.",
        "Take one that `GET /v1/models` lists, or send a `prompt`.",
    ),
    "unknown_model": ErrorKind(
        404,
        ErrorType.NOT_FOUND,
        "Another model is served.",
        "Take the name from `GET /v1/models`, or leave `model` out.",
    ),
    "unknown_scorer": ErrorKind(
        404,
        ErrorType.NOT_FOUND,
        "The server has no scorer of this name.",
        "Take one that `GET /v1/models` lists, or leave `scorer` out. The operator names them in "
        "`STEPBACK_CHECKERS_FILE`.",
    ),
    "unknown_id": ErrorKind(
        404,
        ErrorType.NOT_FOUND,
        "There is nothing with this id, or it is another key's, or it has expired.",
        "Take an id from the list, with the key that made it.",
    ),
    "model_not_found": ErrorKind(
        404,
        ErrorType.NOT_FOUND,
        "On OpenAI's routes: another model is served.",
        "Take a name from `GET /v1/models`, or leave `model` out.",
    ),
    "unsupported_parameter": _invalid(
        "On OpenAI's routes: the server cannot honour this parameter, or this kind of message.",
        "Leave out what `param` names; what is ignored elsewhere is refused here.",
        400,
    ),
    "no_such_path": ErrorKind(
        404, ErrorType.NOT_FOUND, "There is nothing at this path.", "`/docs` lists the paths."
    ),
    "method_not_allowed": _invalid(
        "The path has no such method.", "`/docs` lists the methods.", 405
    ),
    "body_too_large": _invalid(
        "The body is larger than `STEPBACK_MAX_BODY_BYTES`.",
        "Send less; a problem has a few hundred bytes. The connection is closed.",
        413,
    ),
    "nested_too_deeply": _invalid(
        "The body has more levels of objects and lists than `STEPBACK_MAX_NESTING`.",
        "Send a flatter one; a problem has five levels at most.",
    ),
    "missing_field": _invalid("A field is missing.", "`param` names it: add it."),
    "extra_field": _invalid("A field is unknown.", "`param` names it: leave it out."),
    "wrong_type": _invalid("A field has the wrong type.", "`param` names it; none is converted."),
    "out_of_range": _invalid(
        "A field is out of its range, or of what this server allows.",
        "The message gives the limit; the operator sets the server's with `STEPBACK_MAX_BREADTH`, "
        "`STEPBACK_MAX_BACKTRACKS`, `STEPBACK_BUDGET_TOKENS` and `STEPBACK_BUDGET_SECONDS`.",
    ),
    "unknown_value": _invalid("A field has none of its values.", "The message lists them."),
    "invalid_value": _invalid(
        "Fields do not go together, or a value makes no sense.", "The message says which."
    ),
    "reserved_text": _invalid(
        "The prompt or a step contains the text of a control token.", "Leave that text out."
    ),
    "unknown_character": _invalid(
        "The prompt or a step has a character that the model's vocabulary lacks.",
        "The message names it and its place: leave it out, or write it otherwise.",
    ),
    "illegal_step": _invalid(
        "A step that the search is to start from is not legal.",
        "`param` names it: mend or drop it.",
    ),
    "steps_too_long": _invalid(
        "The steps to start from leave no room for an answer.", "Give fewer of them."
    ),
    "prompt_too_long": _invalid(
        "The prompt fills the model's context.", "Send a shorter one; the message counts tokens."
    ),
    "problem_too_long": _invalid(
        "The shortest answer is longer than the model may write.",
        "Send a smaller problem; the message counts steps and tokens.",
    ),
    "prompt_refused": _invalid(
        "The engine refuses the prompt.", "The message is the engine's; send another prompt."
    ),
    "queue_full": ErrorKind(
        429,
        ErrorType.OVERLOADED,
        "Too many searches wait, or this one has waited too long.",
        "Wait as long as `Retry-After` says: then there should be a place. The client does so by "
        "itself up to a minute. The operator: see the "
        "[runbook](runbook.md#too-many-searches-429).",
    ),
    "reload_path_refused": _invalid(
        "New weights may not come from that folder.",
        "Name a checkpoint folder under the server's `STEPBACK_RELOAD_ROOT`.",
        403,
    ),
    "reload_mismatch": _invalid(
        "The folder is no checkpoint of the served model.",
        "The message names the part that differs; another model needs a restart.",
    ),
    "reload_not_offered": ErrorKind(
        501,
        ErrorType.INVALID_REQUEST,
        "This server, or its engines, load no new weights while they run.",
        "The operator sets `STEPBACK_RELOAD_ROOT`; engines over HTTP also need vLLM's development "
        "mode (`VLLM_SERVER_DEV_MODE=1`), else restart them with the new checkpoint.",
    ),
    "reload_failed": ErrorKind(
        500,
        ErrorType.INTERNAL,
        "The engine failed at new weights; it is started anew with those of before.",
        "`GET /ready` tells when; the log says what it failed of.",
    ),
    "internal": ErrorKind(
        500,
        ErrorType.INTERNAL,
        "A defect of the server.",
        "Report it with the `X-Request-Id`; the log has the traceback under the same id.",
    ),
    "engine_unavailable": ErrorKind(
        503,
        ErrorType.UNAVAILABLE,
        "The engine starts, has died, or the server is stopping.",
        "Try again after `Retry-After`, until `GET /ready` says 200; the client does so by itself "
        "up to a minute.",
    ),
    "engine_lost": ErrorKind(
        500,
        ErrorType.INTERNAL,
        "Of a job: three engines were lost with it, the last one with no other suspect in flight.",
        "Ask for it again, by itself; if the engine dies each time, report it with the engine's "
        "log.",
    ),
    "checker_failed": ErrorKind(
        503,
        ErrorType.UNAVAILABLE,
        "The plug-in of the task failed to read the problem: its worker ended, or took too long.",
        "Try again after `Retry-After`. If it fails for one problem alone, report that to the "
        "operator; the message has the cause.",
    ),
    "jobs_not_offered": ErrorKind(
        501,
        ErrorType.INVALID_REQUEST,
        "This server keeps no jobs: no background searches, files or batches.",
        "Ask with `POST /solve` or `/solve/batch` and wait. The operator names a database in "
        "`STEPBACK_DATABASE_URL`.",
    ),
    "storage_unavailable": ErrorKind(
        503,
        ErrorType.UNAVAILABLE,
        "The database of jobs does not answer, or its file cannot be written.",
        "Try again after `Retry-After`; searches work meanwhile. The operator: see "
        "`STEPBACK_DATABASE_URL`; the log has the cause.",
    ),
    "http_error": _invalid(
        "Another refusal of HTTP itself; the status is HTTP's own.", "The message says which.", 400
    ),
}
"""Errors by code. A new one is one line here, and `ApiError(code, message)` where it is found."""

# pydantic's error types, in the words that a program can match on.
_CODES = {
    "missing": "missing_field",
    "extra_forbidden": "extra_field",
    "json_invalid": "invalid_json",
    "enum": "unknown_value",
    "literal_error": "unknown_value",
    "value_error": "invalid_value",
    "string_pattern_mismatch": "invalid_value",
}
_OUT_OF_RANGE = ("greater_than", "less_than", "too_long", "too_short", "finite_number")
_PLACES = ("body", "header", "query")
_BRANCH = re.compile(r"(str|int|list\[.*|dict\[.*)")
"""pydantic's names of the types that a field may have: no part of a caller's path."""


class ApiError(Exception):
    """An error to be answered with its body."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: dict[str, str] | None = None,
        retry_after: int | None = None,
        status: int | None = None,
    ) -> None:
        """`code` is one of `ERRORS`, which gives type and status, unless that is given;
        `retry_after` is in whole seconds."""
        super().__init__(message)
        kind = ERRORS[code]
        self.code = code
        self.status = status or kind.status
        self.body = ErrorBody(
            error=ErrorDetail(type=kind.type, message=message, param=param, code=code)
        )
        self.retry_after = retry_after
        if retry_after is not None:
            # In the header for HTTP, and as a number for the rows of a batch, which have no
            # headers.
            headers = {**(headers or {}), "Retry-After": str(retry_after)}
        self.headers = headers

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception would be made again from its message alone; solvers may be in other processes.
        return type(self), (self.code, str(self)), self.__dict__


def invalid(errors: Sequence[Any], *, under: str | None = None) -> ApiError:
    """The first of pydantic's errors; `under` is the field that the validated value came from."""
    # The first alone: later ones often follow from it, and a caller mends one at a time.
    first = errors[0]
    kind: str = first["type"]
    if kind == "json_invalid":
        return unparsable()
    # A caller knows its own fields, not where FastAPI looked for them.
    path = [str(part) for part in first["loc"] if part not in _PLACES]
    if len(path) > 1 and _BRANCH.fullmatch(path[-1]):
        path.pop()
    if under is not None:
        path.insert(0, under)
    message = own_message(first["msg"])
    # Checks of the whole body name their field in front: "select: majority always votes".
    if not path and ": " in message:
        field, _, message = message.partition(": ")
        path = [field]
    param = ".".join(path) or None
    if param is None:
        message = "the body must be a JSON object; see /docs for its fields"
    code = _CODES.get(kind)
    if code is None:
        # pydantic has dozens of kinds, and later versions add some: what is not listed gets a code
        # all the same.
        code = "out_of_range" if any(part in kind for part in _OUT_OF_RANGE) else "wrong_type"
    return ApiError(code, f"{param}: {message}" if param else message, param=param)


def unparsable() -> ApiError:
    return ApiError(
        "invalid_json",
        "The body is not JSON in UTF-8: send one JSON object with Content-Type application/json.",
    )


def queue_full(retry_after: int) -> ApiError:
    """No more searches may wait, or this one waited for too long."""
    return ApiError(
        "queue_full",
        f"Too many searches are waiting: try again in {retry_after} s.",
        retry_after=retry_after,
    )


def out_of_tokens(retry_after: int) -> ApiError:
    """The tenant has generated its tokens of this minute."""
    return ApiError(
        "tokens_per_minute",
        f"This key has used its tokens: try again in {retry_after} s.",
        retry_after=retry_after,
    )


def idempotency_mismatch() -> ApiError:
    """The key was used before, for another request."""
    return ApiError(
        "idempotency_mismatch",
        "idempotency-key: it was used for another request; send a fresh one for each.",
        param="idempotency-key",
    )


def unknown_id(kind: str) -> ApiError:
    """Return the error for an id of this kind that does not exist, or is another tenant's."""
    # The same words for another tenant's: an answer must not tell what exists elsewhere.
    return ApiError("unknown_id", f"id: this key has no such {kind}.", param="id")


def reload_refused(code: str, why: str) -> ApiError:
    """The folder of new weights is refused before anything is changed."""
    return ApiError(code, f"path: {why}", param="path")


def engine_lost(times: int) -> ApiError:
    """Return the error of a job that is not tried again."""
    message = f"The engine was lost {times} times with this search: it is not tried again."
    return ApiError("engine_lost", message)


def jobs_not_offered() -> ApiError:
    return ApiError(
        "jobs_not_offered",
        "This server keeps no jobs: send the search without background, or problems to "
        "/solve/batch.",
    )


def storage_unavailable() -> ApiError:
    return ApiError(
        "storage_unavailable",
        "The database of jobs does not answer: try again in 5 s; searches work meanwhile.",
        retry_after=5,
    )
