"""The refusal that an exception of a search, a job or a reload stands for."""

from functools import singledispatch

from stepback_server.engine.base import (
    EngineUnavailable,
    PromptRefused,
    ReloadFailed,
    ReloadNotOffered,
)
from stepback_server.errors import ApiError, storage_unavailable
from stepback_server.request_context import note
from stepback_server.storage.errors import StorageUnavailable


@singledispatch
def failure_of(error: Exception) -> ApiError:
    """Return the error that a failed search is answered with.

    The caller logs a defect. Details of engines, which callers may not know, go to the access log.
    """
    return ApiError("internal", "An error of the server's own; it has been logged.")


@failure_of.register
def _(error: ApiError) -> ApiError:
    return error


@failure_of.register
def _(error: PromptRefused) -> ApiError:
    return ApiError("prompt_refused", f"prompt: the engine refuses it: {error}", param="prompt")


@failure_of.register
def _(error: ReloadNotOffered) -> ApiError:
    note(reason=str(error))
    return ApiError(
        "reload_not_offered",
        "New weights are not loaded here while the server runs: restart the engines with the "
        "new checkpoint, or see STEPBACK_RELOAD_ROOT.",
    )


@failure_of.register
def _(error: ReloadFailed) -> ApiError:
    note(reason=str(error))
    return ApiError(
        "reload_failed",
        "The engine failed at the new weights and is started anew with those of before: GET /ready "
        "tells when; the server's log has the cause under this request's id.",
    )


@failure_of.register
def _(error: EngineUnavailable) -> ApiError:
    note(reason=str(error))
    return ApiError(
        "engine_unavailable",
        f"The engine is not available ({error.public}): try again in {error.retry_after} s; "
        "GET /ready tells when.",
        retry_after=error.retry_after,
    )


@failure_of.register
def _(error: StorageUnavailable) -> ApiError:
    note(reason=str(error))
    return storage_unavailable()


KNOWN_FAILURES: tuple[type[Exception], ...] = tuple(
    each for each in failure_of.registry if issubclass(each, Exception)
)
"""The exceptions that have an answer of their own."""
