"""The request of `POST /solve`."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

from stepback_core.inlining import inlined
from stepback_core.schemas.base import RequestModel
from stepback_core.tasks import TASKS


class Strategy(StrEnum):
    """Search strategy."""

    BEST_FIRST = "best_first"
    SELF_BACKTRACKING = "self_backtracking"
    GREEDY = "greedy"
    BEST_OF_N = "best_of_n"
    MAJORITY = "majority"


class Select(StrEnum):
    """Rule that chooses the answer among the candidates."""

    PERPLEXITY = "perplexity"
    """The candidate that the model finds likeliest per token."""
    MARKER = "marker"
    """The candidate with the greatest `confidence`; perplexity breaks ties, also above 0.997."""
    VOTE = "vote"
    """The answer that most candidates agree on; perplexity breaks ties."""
    WEIGHTED_VOTE = "weighted_vote"
    """A vote in which each candidate is weighted by its `confidence`."""
    VERIFIED = "verified"
    """A candidate that the checker accepts, the task's or the scorer; the search ends at the
    first."""
    SCORE = "score"
    """The candidate with the greatest score of the request's scorer; perplexity breaks ties."""


VOTES = (Select.VOTE, Select.WEIGHTED_VOTE)


def selects_of(strategy: Strategy) -> tuple[Select, ...]:
    """Return the rules of choice that go with a strategy."""
    if strategy is Strategy.MAJORITY:
        return VOTES
    # It writes no answer twice, so that none has two votes.
    if strategy is Strategy.BEST_FIRST:
        return tuple(each for each in Select if each not in VOTES)
    return tuple(Select)


class Sampling(StrEnum):
    """Way to draw the samples of one state."""

    INDEPENDENT = "independent"
    """Each on its own: likely ones come again."""
    BEAM = "beam"
    """Without replacement, by stochastic beam search: no text comes twice."""


class Rollback(StrEnum):
    """Unit that `self_backtracking` rolls back. All but `marker` are controls for experiments."""

    MARKER = "marker"
    """Samples that ended in the marker, by their last step."""
    RANDOM_STEP = "random_step"
    """The same samples, to the start of a random one of their steps."""
    RANDOM_BRANCH = "random_branch"
    """Random samples, whatever they ended in, to the start of a random step."""


LONGEST_SECONDS = 3600
"""Seconds of one search, as no server allows more."""


class Budget(RequestModel):
    """Upper limits of one search. What is left out is the server's own limit."""

    tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    """Generated tokens, those of discarded branches included; never exceeded. `best_first`
    takes those of 32 full answers if it is left out, or of `breadth` where that is more."""
    seconds: float | None = Field(default=None, gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)
    """Wall time from the start of the search, its time in the queue excluded."""
    answer_tokens: int | None = Field(default=None, ge=1)
    """Tokens from the prompt to the end of one branch; the checkpoint has a limit of its own."""


def _problem_schema() -> dict[str, Any]:
    """The task models as one JSON schema, for the documentation; the server validates by task."""
    problems = (inlined(task.problem_type.model_json_schema()) for task in TASKS.values())
    return {"anyOf": [*problems, {"type": "null"}]}


def _forms_of_a_request() -> list[JsonValue]:
    """Return the rules that `SolveRequest` checks across its fields, as JSON schema."""
    absent: JsonValue = {"type": "null"}
    tasks: list[JsonValue] = [
        {
            "title": f"A problem of {name}",
            "required": ["task", "problem"],
            "properties": {
                "task": {"const": name},
                "problem": inlined(task.problem_type.model_json_schema()),
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
        },
    }
    return [*tasks, prompt]


def _majority_votes() -> JsonValue:
    return {
        "if": {
            "required": ["strategy"],
            "properties": {"strategy": {"const": Strategy.MAJORITY.value}},
        },
        "then": {
            "properties": {
                "select": {"enum": [*(s.value for s in selects_of(Strategy.MAJORITY)), None]},
                "sampling": {"enum": [Sampling.INDEPENDENT.value, None]},
            }
        },
    }


def _a_vote_needs_samples_that_may_agree() -> JsonValue:
    return {
        "if": {
            "required": ["select"],
            "properties": {"select": {"enum": [s.value for s in VOTES]}},
        },
        "then": {
            "required": ["strategy"],
            "properties": {
                "strategy": {"enum": [s.value for s in Strategy if Select.VOTE in selects_of(s)]}
            },
        },
    }


def _a_rule_needs_who_judges() -> list[JsonValue]:
    named: JsonValue = {"required": ["scorer"], "properties": {"scorer": {"type": "string"}}}
    task: JsonValue = {"required": ["task"], "properties": {"task": {"type": "string"}}}
    return [
        {"if": _selects(Select.SCORE), "then": named},
        {"if": _selects(Select.VERIFIED), "then": {"anyOf": [named, task]}},
    ]


def _selects(rule: Select) -> JsonValue:
    return {"required": ["select"], "properties": {"select": {"const": rule.value}}}


def _across_fields() -> dict[str, JsonValue]:
    return {
        "oneOf": _forms_of_a_request(),
        "allOf": [
            _majority_votes(),
            _a_vote_needs_samples_that_may_agree(),
            *_a_rule_needs_who_judges(),
        ],
        "examples": [
            {"task": name, "problem": task.example.model_dump(mode="json")}
            for name, task in TASKS.items()
        ],
    }


class SolveRequest(RequestModel):
    """One problem and how to search for its answer: `task` and `problem`, or `prompt`."""

    # When a schema is asked for, and not before: a start adds tasks.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema.update(_across_fields()))

    task: str | None = Field(default=None, max_length=64)
    """A task that the model knows, as `/v1/models` lists them."""
    problem: Annotated[
        dict[str, JsonValue] | None,
        Field(json_schema_extra=lambda schema: schema.update(_problem_schema())),
    ] = None
    """The task's typed problem, for example `{"numbers": [4, 16, 25, 82], "target": 95}`."""
    prompt: str | None = Field(default=None, min_length=1, max_length=100_000)
    """Free text, put into the checkpoint's own prompt frame; a scorer alone can check it."""
    steps: list[Annotated[str, Field(max_length=10_000)]] = Field(default=[], max_length=1024)
    """Steps that the search starts from: every branch continues them, and none takes them back.
    Those of a task must be legal."""
    model: str | None = Field(default=None, max_length=256)
    """A name from `/v1/models`; the served model if left out."""
    strategy: Annotated[Strategy, Field(strict=False)] = Strategy.BEST_FIRST
    """`best_first`: the likeliest text not written yet, dropped at an illegal step.
    `self_backtracking`: the published rule over stochastic beams. `greedy`: one sample, the
    likeliest token each time. `best_of_n`: N samples. `majority`: N samples, and a vote."""
    breadth: int = Field(default=16, ge=1, le=1024)
    """N: samples of one expansion. Of `best_first`: samples in flight at most, and the answers
    that it looks for where no check ends the search. Greedy ignores it."""
    backtracks: int = Field(default=1, ge=0, le=64)
    """b: rounds of backtracking, of `self_backtracking` alone."""
    sampling: Annotated[Sampling | None, Field(strict=False)] = None
    """Way in which `self_backtracking` and `best_of_n` draw the samples of a state: `independent`,
    or `beam` for distinct ones. If left out, `beam` for `self_backtracking`, as published, else
    `independent`, as `majority` always does."""
    rollback: Annotated[Rollback, Field(strict=False)] = Rollback.MARKER
    """Unit that `self_backtracking` rolls back: `marker` as published; `random_step` and
    `random_branch` are controls."""
    widening: bool = True
    """`best_of_n` whose search a checker ends: one sample in flight at first, then more with those
    that failed. `majority`: no more samples than can decide the vote. Else all N at once."""
    greedy_first: bool = False
    """Make the first sample of `best_of_n` and `majority` the greedy one."""
    ignore_marker: bool = False
    """Let `best_first` order texts as if the marker had no probability: a control."""
    temperature: float = Field(default=0.7, ge=0, le=2, allow_inf_nan=False)
    """Sampling temperature; scores are always of the model's own distribution. 0 is greedy: one
    independent sample of a state, or the N likeliest ones of a beam. `greedy` and `best_first`
    ignore it."""
    seed: int | None = Field(default=None, ge=0, lt=2**31)
    """The same seed draws the same random numbers. With `breadth` 1, alone on the same engine, it
    gives the same tree; among more samples at once the rounding of a batch can change a token.
    Random if left out."""
    select: Annotated[Select | None, Field(strict=False)] = None
    """Rule that chooses the answer. The default is `verified` if a task or a scorer checks, else
    `score` with a scorer, else `perplexity`.

    `perplexity`: the likeliest candidate a token. `marker`: the one with the greatest
    `confidence`; above 0.997 likelihood decides. `vote`: what most agree on; not for
    `best_first`, which writes nothing twice. `weighted_vote`: the same, weighted by `confidence`.
    `verified`: one that the checker accepts, which also ends the search. `score`: the one that the
    scorer likes best."""
    scorer: str | None = Field(default=None, min_length=1, max_length=64)
    """A scorer that the server's operator has named, as `/v1/models` lists them. Where there is a
    task too, an answer must pass both."""
    budget: Budget = Budget()
    """Upper limits of this search."""
    candidates: int = Field(default=1, ge=1, le=1024)
    """Number of candidates to return, best first."""
    tree: bool = False
    """Return the tree of branches."""
    logprobs: bool = False
    """Return token ids and log-probabilities with answers and tree nodes."""
    stream: bool = False
    """Send the search as server-sent events while it runs."""
    background: bool = False
    """Answer 202 with an id at once, and keep the result for `GET /v1/searches/ID`."""

    @model_validator(mode="after")
    def _names_one_problem(self) -> "SolveRequest":
        if self.prompt is not None and (self.task is not None or self.problem is not None):
            raise ValueError("prompt: give either prompt, or task and problem, not both")
        if self.prompt is None and self.task is None:
            # pydantic's own word for a field that is not there: a program reads it as such.
            raise PydanticCustomError("missing", "task: give task and problem, or prompt")
        if self.prompt is None and self.problem is None:
            raise PydanticCustomError("missing", "problem: the task needs a problem")
        if self.scorer is None and self.select is Select.SCORE:
            raise ValueError("select: score needs a scorer; /v1/models lists them")
        if self.task is None and self.scorer is None and self.select is Select.VERIFIED:
            raise ValueError("select: verified needs a task or a scorer: a prompt has no checker")
        if self.background and self.stream:
            raise ValueError("background: follow it at /v1/searches/ID/events instead of stream")
        return self

    @model_validator(mode="after")
    def _selects_as_it_searches(self) -> "SolveRequest":
        if self.strategy is Strategy.MAJORITY and self.sampling is Sampling.BEAM:
            raise ValueError("sampling: samples of a beam are distinct, so none agree")
        if self.select is None or self.select in selects_of(self.strategy):
            return self
        if self.strategy is Strategy.MAJORITY:
            raise ValueError("select: the strategy majority always votes")
        raise ValueError(
            "select: best_first writes no answer twice, so none has two votes; name the strategy "
            "majority, or select by perplexity"
        )
