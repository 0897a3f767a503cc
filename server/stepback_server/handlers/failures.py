"""The refusal that an exception of a search, a job or a reload stands for."""

from stepback_server.engine.base import (
    EngineUnavailable,
    PromptRefused,
    ReloadFailed,
    ReloadNotOffered,
)
from stepback_server.errors import ApiError, storage_unavailable
from stepback_server.request_context import note
from stepback_server.storage.errors import StorageUnavailable


def failure_of(error: Exception) -> ApiError:
    """Return the error that a failed search is answered with.

    The caller logs a defect. Details of engines, which callers may not know, go to the access log.
    """
    match error:
        case ApiError():
            return error
        case EngineUnavailable():
            note(reason=str(error))
            return _not_ready(error.public, error.retry_after)
        case PromptRefused():
            return _prompt_refused(str(error))
        case ReloadNotOffered() | ReloadFailed():
            return _not_reloaded(error)
        case StorageUnavailable():
            note(reason=str(error))
            return storage_unavailable()
        case _:
            return ApiError("internal", "An error of the server's own; it has been logged.")


def _prompt_refused(why: str) -> ApiError:
    return ApiError(
        "prompt_refused",
        f"prompt: the engine refuses it: {why}",
        param="prompt",
    )


def _not_reloaded(error: ReloadNotOffered | ReloadFailed) -> ApiError:
    note(reason=str(error))
    if isinstance(error, ReloadNotOffered):
        return ApiError(
            "reload_not_offered",
            "New weights are not loaded here while the server runs: restart the engines with the "
            "new checkpoint, or see STEPBACK_RELOAD_ROOT.",
        )
    return ApiError(
        "reload_failed",
        "The engine failed at the new weights and is started anew with those of before: GET /ready "
        "tells when; the server's log has the cause under this request's id.",
    )


def _not_ready(reason: str, retry_after: int) -> ApiError:
    return ApiError(
        "engine_unavailable",
        f"The engine is not available ({reason}): try again in {retry_after} s; GET /ready tells "
        "when.",
        retry_after=retry_after,
    )
