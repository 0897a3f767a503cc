"""Models, versions, health and reloads: an operator's view of a server."""

from typing import Literal

from pydantic import Field

from stepback_core.schemas.base import RequestModel, ResponseModel


class Model(ResponseModel):
    """An entry of `/v1/models`."""

    id: str
    object: Literal["model"] = "model"
    owned_by: str = "stepback"
    tasks: list[str]
    trained_for: dict[str, dict[str, tuple[int, int]]] = Field(default={})
    """For each task, the fewest and most entries of each list of a training problem, where that is
    known. An answer to another problem carries a `warning`."""
    scorers: list[str] = Field(default=[])
    """Names that a request may give as `scorer`."""
    parameters: int | None = None
    """Number of weights, if the model's training recorded it: a token costs twice as many
    FLOPs."""
    digest: str | None = None
    """SHA-256 of the served weights: it differs between two states of one model."""
    created: int = 0
    """Time at which the weights were written, in seconds since 1970."""
    max_model_len: int | None = None
    """The longest sequence in tokens, prompt included."""


class ModelList(ResponseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class Version(ResponseModel):
    """Versions of the server, its engine and its model."""

    stepback: str
    """This distribution's version."""
    vllm: str
    """The engines' version; "unknown" until one was up."""
    protocol: int
    """Version of the format of `stepback.json`."""
    model: str
    """The served model's name."""
    digest: str | None = None
    """SHA-256 of its weights."""


class ReloadRequest(RequestModel):
    """Request to load new weights."""

    path: str = Field(min_length=1, max_length=4096)
    """A checkpoint folder of the same model, under the server's `STEPBACK_RELOAD_ROOT`: absolute,
    or relative to that."""


class Reload(ResponseModel):
    """Result of loading new weights."""

    model: str
    """The model's name, which stays."""
    digest: str
    """SHA-256 of the weights that are served now."""
    previous: str
    """SHA-256 of those that were served before."""
    cut_short: int
    """Searches that ended with the best they had, since they outlasted the grace period."""
    seconds: float
    """Time in which no search could begin."""


class Health(ResponseModel):
    status: Literal["ok"] = "ok"


class Readiness(ResponseModel):
    ready: bool
    reason: str | None = None
    """Reason why it is not ready."""
    full: bool = False
    """True if the queue is full: another search would be refused with 429."""
    searching: int
    """Searches in flight."""
    queued: int
    """Searches that wait for a place."""
    running: int
    """Continuations that the engine is working on."""
    restarts: int
    """Number of lost engines that were replaced."""
    limits: Literal["own", "shared", "fallback"] = "own"
    """Reach of the limits of keys: in this controller; over all of one PostgreSQL; in this one
    while that database is slow or gone."""
