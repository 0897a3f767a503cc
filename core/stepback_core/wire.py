"""What crosses HTTP: the request, the result and the error body. Server and client share these."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from stepback_core.tasks import TASKS


class Strategy(StrEnum):
    """How the answer is searched for."""

    BEST_FIRST = "best_first"
    SELF_BACKTRACKING = "self_backtracking"
    GREEDY = "greedy"
    BEST_OF_N = "best_of_n"
    MAJORITY = "majority"


class Select(StrEnum):
    """How the answer is chosen among the candidates."""

    PERPLEXITY = "perplexity"
    """The candidate that the model finds likeliest per token."""
    VOTE = "vote"
    """The answer that most candidates agree on; perplexity breaks ties."""
    VERIFIED = "verified"
    """A candidate that the task's checker accepts; the search ends at the first."""


class Status(StrEnum):
    SOLVED = "solved"
    """The task's checker accepts the answer."""
    UNVERIFIED = "unverified"
    """There is an answer and no checker for it."""
    UNSOLVED = "unsolved"


class StopReason(StrEnum):
    SOLVED = "solved"
    EXHAUSTED = "exhausted"
    """The strategy has nothing more to try."""
    TOKEN_BUDGET = "token_budget"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"


class Outcome(StrEnum):
    """How one sampled branch ended."""

    ANSWER = "answer"
    BACKTRACK = "backtrack"
    ILLEGAL = "illegal"
    """In a step that the task does not allow; what was sampled behind it is not told."""
    UNFINISHED = "unfinished"
    """Cut by a length limit, a budget, a deadline or an early win."""


class _Said(BaseModel):
    """What the server says. Unknown fields are ignored, so that a client outlives an addition."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class _Question(BaseModel):
    """What a caller says: nothing unknown, and nothing of another type."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class Budget(_Question):
    """Upper limits of one search. What is left out is the server's own limit."""

    tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    """Generated tokens, those of discarded branches included; never exceeded. `best_first`
    takes those of 32 full answers if it is left out, or of `breadth` where that is more."""
    seconds: float | None = Field(default=None, gt=0, le=3600, allow_inf_nan=False)
    """Wall time from the start of the search, its time in the queue excluded."""


def _problem_schema() -> dict[str, Any]:
    """The task models as one JSON schema, for the documentation; the server validates by task."""
    return {
        "anyOf": [*(t.problem_type.model_json_schema() for t in TASKS.values()), {"type": "null"}]
    }


def _forms_of_a_request() -> list[JsonValue]:
    """In JSON schema what `SolveRequest` checks across its fields."""
    absent: JsonValue = {"type": "null"}
    tasks: list[JsonValue] = [
        {
            "title": f"A problem of {name}",
            "required": ["task", "problem"],
            "properties": {
                "task": {"const": name},
                "problem": task.problem_type.model_json_schema(),
                "prompt": absent,
            },
        }
        for name, task in TASKS.items()
    ]
    prompt: JsonValue = {
        "title": "A prompt",
        "required": ["prompt"],
        "properties": {
            "prompt": {"type": "string"},
            "task": absent,
            "problem": absent,
            "select": {"enum": [Select.PERPLEXITY.value, Select.VOTE.value, None]},
        },
    }
    return [*tasks, prompt]


def _majority_votes() -> JsonValue:
    return {
        "if": {
            "required": ["strategy"],
            "properties": {"strategy": {"const": Strategy.MAJORITY.value}},
        },
        "then": {"properties": {"select": {"enum": [Select.VOTE.value, None]}}},
    }


def _a_vote_needs_samples_that_may_agree() -> JsonValue:
    return {
        "if": {"required": ["select"], "properties": {"select": {"const": Select.VOTE.value}}},
        "then": {
            "required": ["strategy"],
            "properties": {
                "strategy": {"enum": [s.value for s in Strategy if s is not Strategy.BEST_FIRST]}
            },
        },
    }


class SolveRequest(_Question):
    """One problem and how to search for its answer: `task` and `problem`, or `prompt`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": _forms_of_a_request(),
            "allOf": [_majority_votes(), _a_vote_needs_samples_that_may_agree()],
            "examples": [
                {"task": name, "problem": task.example.model_dump(mode="json")}
                for name, task in TASKS.items()
            ],
        }
    )

    task: str | None = Field(default=None, max_length=64)
    """A task that the model knows, as `/v1/models` lists them."""
    problem: Annotated[
        dict[str, JsonValue] | None,
        Field(json_schema_extra=lambda schema: schema.update(_problem_schema())),
    ] = None
    """The task's typed problem, for example `{"numbers": [4, 16, 25, 82], "target": 95}`."""
    prompt: str | None = Field(default=None, min_length=1, max_length=100_000)
    """Free text, put into the checkpoint's own prompt frame; there is no checker for it."""
    model: str | None = Field(default=None, max_length=256)
    """A name from `/v1/models`; the served model if left out."""
    strategy: Annotated[Strategy, Field(strict=False)] = Strategy.BEST_FIRST
    """`best_first`: the likeliest text not written yet, dropped at an illegal step.
    `self_backtracking`: as published. `greedy`: one sample, the likeliest token each time.
    `best_of_n`: N samples. `majority`: N samples, and a vote."""
    breadth: int = Field(default=16, ge=1, le=1024)
    """N: samples of one expansion. Of `best_first`: samples in flight at most, and the answers
    that it looks for where no check ends the search. Greedy ignores it."""
    backtracks: int = Field(default=1, ge=0, le=64)
    """b: rounds of backtracking, of `self_backtracking` alone."""
    temperature: float = Field(default=0.7, gt=0, le=2, allow_inf_nan=False)
    """Of the sampling; scores are always of the model's own distribution. `greedy` and
    `best_first` ignore it."""
    seed: int | None = Field(default=None, ge=0, lt=2**31)
    """The same seed, alone on the same engine, gives the same tree; random if left out."""
    select: Annotated[Select | None, Field(strict=False)] = None
    """`perplexity`: the likeliest candidate a token. `vote`: what most agree on, of a strategy that
    samples: `best_first` writes nothing twice. `verified`:
    one that the task's checker accepts, which also ends the search. If left out, `verified` where
    there is a checker, else `perplexity`."""
    budget: Budget = Budget()
    """Upper limits of this search."""
    candidates: int = Field(default=1, ge=1, le=1024)
    """How many candidates to return, best first."""
    tree: bool = False
    """Whether to return the tree of branches."""
    stream: bool = False
    """Whether to tell the search as server-sent events while it runs."""

    @model_validator(mode="after")
    def _names_one_problem(self) -> "SolveRequest":
        if self.prompt is not None and (self.task is not None or self.problem is not None):
            raise ValueError("prompt: give either prompt, or task and problem, not both")
        if self.prompt is None and self.task is None:
            raise ValueError("task: give task and problem, or prompt")
        if self.prompt is None and self.problem is None:
            raise ValueError("problem: the task needs a problem")
        if self.prompt is not None and self.select is Select.VERIFIED:
            raise ValueError("select: verified needs a task, since a bare prompt has no checker")
        return self


class Answer(_Said):
    """One candidate answer."""

    text: str
    """The steps, with the checkpoint's separator between them."""
    steps: list[str]
    """The steps in order."""
    score: float
    """Mean log-probability a token, of everything after the prompt; perplexity is exp(-score)."""
    verified: bool | None
    """The checker's strict verdict; None where the task has none."""
    lax: bool | None = None
    """The verdict of the paper's lax checker; None where the task has none."""
    reason: str | None = None
    """Why the checker refused: `not_reached`, `wrong_arithmetic`, `wall`, `conflict`, ..."""
    votes: int = 1
    """Candidates that ended in this very answer."""


class Usage(_Said):
    """What a search cost. Token counts are as the engine counts them."""

    prompt_tokens: int
    """Of the framed prompt, once."""
    generated_tokens: int
    """Every sampled token, stop tokens included."""
    discarded_tokens: int
    """Generated tokens that are not part of the returned answer. Tokens of the answer that
    `best_first` put there itself were not generated."""
    cached_tokens: int
    """Tokens that the engine did not compute anew, its prefix cache had them; summed over all
    requests, kept prefixes of rolled-back branches included."""
    engine_requests: int
    """Samples asked of the engine."""
    backtracks: int
    """Branches that ended in the marker."""
    seconds_queued: float
    """Seconds in the queue."""
    seconds_searching: float
    """Seconds from the search's start to its end."""


class TreeNode(_Said):
    """One branch of the search: what was sampled from its parent state."""

    id: int
    """In order of asking; the root is 0."""
    parent: int | None
    """The node whose kept part this branch continues; None for the root."""
    kept_steps: int
    """How many of the parent's steps came before this branch."""
    steps: list[str]
    """What came after the kept part, up to a step that is illegal."""
    outcome: Outcome | None
    """`answer`, `backtrack`, `illegal` or `unfinished`; None for the root."""
    score: float | None
    """Mean log-probability a token, from the prompt to this branch's end."""


class SolveResult(_Said):
    """The answer of `POST /solve`."""

    id: str
    """The search's own name."""
    status: Status
    """`solved`: the checker accepts the answer. `unverified`: an answer, and no checker.
    `unsolved`: neither."""
    stop_reason: StopReason
    """`solved`, `exhausted`, `token_budget`, `deadline`, or `cancelled` by a server that stops."""
    strategy: Strategy
    """As it was used."""
    select: Select
    """As it was used."""
    model: str
    """The model that answered."""
    answer: Answer | None
    """The chosen candidate; None where no branch reached an end."""
    candidates: list[Answer]
    """The first `candidates` distinct answers, best first, the chosen one among them."""
    usage: Usage
    """What it cost."""
    tree: list[TreeNode] | None = None
    """Every branch, in order of asking, where the request wanted it."""


class ErrorType(StrEnum):
    INVALID_REQUEST = "invalid_request"
    AUTHENTICATION = "authentication"
    NOT_FOUND = "not_found"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class ErrorDetail(_Said):
    type: ErrorType
    """The kind of error."""
    message: str
    """What is wrong and what to do about it."""
    param: str | None = None
    """The field at fault, dotted."""
    code: str
    """A stable name for programs, such as `out_of_range`."""


class ErrorBody(_Said):
    """The one body of every error."""

    error: ErrorDetail
    """What went wrong."""


class Model(_Said):
    """An entry of `/v1/models`."""

    id: str
    object: Literal["model"] = "model"
    owned_by: str = "stepback"
    tasks: list[str]
    digest: str | None = None
    """SHA-256 of the weights that are served: tells two states of one model apart."""


class ModelList(_Said):
    object: Literal["list"] = "list"
    data: list[Model]


class Version(_Said):
    """What runs here."""

    stepback: str
    """This distribution's version."""
    vllm: str
    """The engines' version; "unknown" until one was up."""
    protocol: int
    """Of `stepback.json`."""
    model: str
    """The served model's name."""
    digest: str | None = None
    """SHA-256 of its weights."""


class ReloadRequest(_Question):
    """Where a model's new weights are."""

    path: str = Field(min_length=1, max_length=4096)
    """A checkpoint folder of the same model, under the server's `STEPBACK_RELOAD_ROOT`: absolute,
    or relative to that."""


class Reload(_Said):
    """What came of loading new weights."""

    model: str
    """The model's name, which stays."""
    digest: str
    """SHA-256 of the weights that are served now."""
    previous: str
    """SHA-256 of those that were served before."""
    cut_short: int
    """Searches that ended with the best they had, since they outlasted the grace period."""
    seconds: float
    """How long no search could begin."""


class Health(_Said):
    status: Literal["ok"] = "ok"


class Readiness(_Said):
    ready: bool
    reason: str | None = None
    """Why not."""
    full: bool = False
    """Whether the queue is full: another search would be refused with 429."""
    searching: int
    """Searches in flight."""
    queued: int
    """Searches that wait for a place."""
    running: int
    """Continuations that the engine is working on."""
    restarts: int
    """How often a lost engine was replaced."""
