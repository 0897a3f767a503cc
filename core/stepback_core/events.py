"""Events of `POST /solve` with `stream`: one type an event.

Over HTTP each is a server-sent event whose `event` is the type and whose `data` is the JSON: first
`started`, then `step`, `backtrack`, `candidate` and `usage` in any number, then `result` or
`error`. Further types may come: a reader skips those that it does not know.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from stepback_core.schemas import Answer, ErrorDetail, Outcome, Select, SolveResult, Strategy


class _Event(BaseModel):
    """Unknown fields are ignored, so that a client outlives an addition."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class SearchLimits(_Event):
    """The upper limits of the search, the server's own where the request left them out."""

    tokens: int
    """Generated tokens, those of discarded branches included."""
    seconds: float
    """Wall time from the start of the search."""
    tokens_per_branch: int
    """Generated tokens from the prompt to one branch's end."""


class StartedEvent(_Event):
    """The search has its place and its engine. Always first."""

    type: Literal["started"] = "started"
    id: str
    """The search's own name, the same as the result's."""
    model: str
    """The model that searches."""
    strategy: Strategy
    """Strategy or rule in use."""
    select: Select
    """Strategy or rule in use."""
    limits: SearchLimits
    """Upper limits of the search."""


class StepEvent(_Event):
    """A complete step of a branch. A branch's steps are sent when its sample ends, in order."""

    type: Literal["step"] = "step"
    branch: int
    """The branch, by its id in the tree."""
    parent: int
    """The branch whose kept part this one continues; 0 for the prompt."""
    index: int
    """The step's place since the prompt, from 0; a branch's first index says how many it kept."""
    text: str
    """The step."""
    p_marker: float | None = None
    """P(marker) after the step; None if nothing was written after it."""
    score: float | None = None
    """Mean log-probability a token, from the prompt to the branch's end: the same for all of its
    steps."""


class StruckStep(_Event):
    """A step that a rollback takes back."""

    index: int
    """Its place since the prompt, from 0."""
    text: str
    """The step; incomplete if the marker came before its end."""


class BacktrackEvent(_Event):
    """A branch ended in the marker and was rolled back, or in a step that is not legal."""

    type: Literal["backtrack"] = "backtrack"
    branch: int
    """The branch, by its id in the tree."""
    parent: int
    """The branch whose kept part it continued; 0 for the prompt."""
    kept_steps: int
    """Number of the parent's steps that came before this branch."""
    outcome: Literal[Outcome.BACKTRACK, Outcome.ILLEGAL] = Outcome.BACKTRACK
    """Source of the refusal: the model with its marker, or the task."""
    struck: list[StruckStep]
    """The steps taken back; the steps before them stay. It may be a step that the branch had
    kept."""


class CandidateEvent(_Event):
    """A branch reached an answer."""

    type: Literal["candidate"] = "candidate"
    branch: int
    """The branch, by its id in the tree."""
    parent: int
    """The branch whose kept part it continued; 0 for the prompt."""
    kept_steps: int
    """Number of the parent's steps that came before this branch."""
    answer: Answer
    """The answer; its votes are those so far."""


class UsageEvent(_Event):
    """Running totals of the branches that have ended, a few times a second at most."""

    type: Literal["usage"] = "usage"
    branches: int
    """Branches that have ended."""
    in_flight: int = 0
    """Branches that the engine samples at this moment."""
    generated_tokens: int
    """Every sampled token, stop tokens included."""
    cached_tokens: int
    """Tokens that the engine took from its prefix cache."""
    backtracks: int
    """Branches that ended in the marker."""
    seconds_searching: float
    """Seconds since the search's start."""


class ResultEvent(_Event):
    """The search has ended. Always last."""

    type: Literal["result"] = "result"
    result: SolveResult
    """The answer to the same request without `stream`."""


class ErrorEvent(_Event):
    """The search failed after it had started. Always last."""

    type: Literal["error"] = "error"
    status: int
    """The HTTP status that the error has where nothing was sent before it."""
    error: ErrorDetail
    """The detail of an error body."""


ProgressEvent = (
    StartedEvent | StepEvent | BacktrackEvent | CandidateEvent | UsageEvent | ResultEvent
)
"""Any event of a search that does not fail."""

SolveEvent = Annotated[ProgressEvent | ErrorEvent, Field(discriminator="type")]
"""Any event of a stream."""
