"""The result of a search: status, answer, candidates, cost and tree."""

from enum import StrEnum

from pydantic import Field

from stepback_core.schemas.base import ResponseModel
from stepback_core.schemas.request import Select, Strategy


class Status(StrEnum):
    SOLVED = "solved"
    """The task's checker accepts the answer."""
    UNVERIFIED = "unverified"
    """An answer, and no checker for it, or one that failed."""
    UNSOLVED = "unsolved"


class StopReason(StrEnum):
    SOLVED = "solved"
    EXHAUSTED = "exhausted"
    """The strategy has nothing more to try."""
    TOKEN_BUDGET = "token_budget"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    CHECKER_FAILED = "checker_failed"
    """The plug-in's checker failed too often: no answer would have been verified any more."""


class Outcome(StrEnum):
    """End of a sampled branch."""

    ANSWER = "answer"
    BACKTRACK = "backtrack"
    ILLEGAL = "illegal"
    """A step that the task does not allow; what was sampled after it is left out."""
    UNFINISHED = "unfinished"
    """Cut by a length limit, a budget, a deadline or an early win."""


class Answer(ResponseModel):
    """One candidate answer."""

    text: str
    """The steps, with the checkpoint's separator between them."""
    steps: list[str]
    """The steps in order."""
    score: float
    """Mean log-probability a token, of everything after the prompt and the given steps;
    perplexity is exp(-score)."""
    verified: bool | None
    """The checker's strict verdict, of the task and of the scorer; None if there is none, or if it
    failed."""
    lax: bool | None = None
    """The verdict of a published, more lenient rule of the task, or its strict one where there is
    none; None without a task."""
    reason: str | None = None
    """Reason why the checker refused: `not_reached`, `wrong_arithmetic`, `wall`, `conflict`, ...; a
    scorer's own words, `scorer_refused` without any, `scorer_failed` for no answer."""
    scorer_score: float | None = None
    """The scorer's, 0 to 1; None without a scorer, or if it failed."""
    votes: int = 1
    """Candidates that ended in this very answer."""
    confidence: float = 1.0
    """The product of 1 - P(marker) after each of the steps, and at the end. 0 means that the model
    is sure to take a step back."""
    weight: float = 1.0
    """The sum of its candidates' `confidence`: what `weighted_vote` counts."""
    token_ids: list[int] | None = None
    """Token ids after `prompt_token_ids`, the end token included; only with `logprobs`."""
    logprobs: list[float] | None = None
    """Natural log-probability of each of `token_ids`, before temperature."""


class Usage(ResponseModel):
    """Cost of a search. Token counts are as the engine counts them."""

    prompt_tokens: int
    """Tokens of the framed prompt and the given steps, once."""
    generated_tokens: int
    """Every sampled token, stop tokens included."""
    discarded_tokens: int
    """Generated tokens that are not part of the returned answer. Tokens of the answer that
    `best_first` put there itself were not generated."""
    cached_tokens: int
    """Tokens that the engine had in its prefix cache, summed over all requests, kept prefixes of
    rolled-back branches included."""
    prefilled_tokens: int = 0
    """Tokens of prompts and kept prefixes that the engine computed, summed over all requests."""
    forwarded_tokens: int = 0
    """Tokens that went through the model: `prefilled_tokens` and `generated_tokens`. Times two
    and times the model's `parameters`, these are the FLOPs of its matrices."""
    engine_requests: int
    """Samples requested from the engine."""
    backtracks: int
    """Branches that ended in the marker."""
    seconds_queued: float
    """Seconds in the queue."""
    seconds_searching: float
    """Seconds from the search's start to its end."""
    seconds_scoring: float = 0.0
    """Seconds among these that were spent on a scorer; the engine may have worked meanwhile."""
    scored: int = 0
    """Texts that the scorer gave a score to, unfinished ones too where it takes them."""
    unscored: int = 0
    """Texts that the scorer failed at, or was too slow for."""


class TreeNode(ResponseModel):
    """One branch of the search: what was sampled from its parent state."""

    id: int
    """Number in order of request; the root is 0."""
    parent: int | None
    """The node whose kept part this branch continues; None for the root."""
    kept_steps: int
    """Number of the parent's steps that came before this branch."""
    steps: list[str]
    """Steps after the kept part, up to an illegal one; for the root, the given steps."""
    outcome: Outcome | None
    """`answer`, `backtrack`, `illegal` or `unfinished`; None for the root."""
    kept_tokens: int | None = None
    """Number of the parent's ids after `prompt_token_ids` that this branch keeps: it may part
    from it within a step; only with `logprobs`."""
    token_ids: list[int] | None = None
    """The tokens of this branch after these; only with `logprobs`."""
    logprobs: list[float] | None = None
    """Natural log-probability of each of `token_ids`, before temperature."""
    p_marker: list[float | None] = Field(default=[])
    """P(marker) after each of `steps`: 0 where it is less likely than each token that the engine
    named, None if nothing was written after the step."""
    score: float | None
    """Mean log-probability a token, from the prompt to this branch's end."""


class SolveResult(ResponseModel):
    """The answer of `POST /solve`."""

    id: str
    """The search's own name."""
    status: Status
    """`solved`: the checker accepts the answer. `unverified`: an answer, and no checker, or one
    that failed. `unsolved`: neither."""
    stop_reason: StopReason
    """`solved`, `exhausted`, `token_budget`, `deadline`, `checker_failed` of a plug-in or of a
    scorer that decides, or `cancelled` by a server that stops."""
    strategy: Strategy
    """Value in use."""
    select: Select
    """Value in use."""
    scorer: str | None = None
    """The scorer in use."""
    model: str
    """The model that answered."""
    digest: str | None = None
    """SHA-256 of the weights that answered."""
    warning: str | None = None
    """Reason to expect little: a problem unlike those that the model was trained for."""
    prompt_token_ids: list[int] | None = None
    """The framed prompt and the given steps as the model reads them; only with `logprobs`."""
    answer: Answer | None
    """The chosen candidate; None if no branch reached an end."""
    candidates: list[Answer]
    """The first `candidates` distinct answers, best first, the chosen one among them."""
    picture: str | None = None
    """The answer as a plug-in's task draws it, in text; None if it does not."""
    usage: Usage
    """Its cost."""
    tree: list[TreeNode] | None = None
    """Every branch, in order of request, if `tree` asks for it."""
