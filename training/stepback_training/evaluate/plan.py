"""Plan of an evaluation: its problems, and the settings for each. Pure."""

from collections.abc import Iterator, Sequence
from math import isqrt
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from stepback_client import SolveOptions
from stepback_core.schemas import Sampling, Select, SolveRequest, Strategy, selects_of
from stepback_core.validation import first_error
from stepback_training.evaluate.scoring import CHOICES, Rule
from stepback_training.generators import GENERATORS, Generator, Split
from stepback_training.sampling.problems import Question, draw

MOST_CANDIDATES = 1024
"""Rules that one result can serve."""


class _PlanModel(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


_SAMPLED = (Strategy.BEST_OF_N, Strategy.SELF_BACKTRACKING)


class Setting(_PlanModel):
    """Search that every problem gets. Self-backtracking with b=0 is best-of-N, and named so."""

    strategy: Strategy
    breadth: int | None = None
    """N; greedy has none."""
    backtracks: int | None = None
    """b, of self-backtracking alone."""
    sampling: Sampling = Sampling.INDEPENDENT
    """Way in which best-of-N and self-backtracking draw the samples of a state."""
    budget_tokens: int | None = None
    """Budget; None if the strategy ends by itself, or by the server's own default."""
    until_verified: bool = False
    """The checker ends the search at the first right answer; else every candidate comes back."""

    @property
    def name(self) -> str:
        """Says all of it, for a person and as a key."""
        parts = [self.strategy.value]
        parts += [f"N={self.breadth}"] if self.breadth is not None else []
        parts += [f"b={self.backtracks}"] if self.backtracks is not None else []
        parts += ["beam"] if self.sampling is Sampling.BEAM else []
        parts += [f"tokens<={self.budget_tokens}"] if self.budget_tokens is not None else []
        parts += ["until verified"] if self.until_verified else []
        return " ".join(parts)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules that can be judged on one such search."""
        if self.until_verified:
            return (Rule.VERIFIED,)
        offered = selects_of(self.strategy)
        return (*(Rule(each.value) for each in CHOICES if each in offered), Rule.LEGAL)

    def request(self, temperature: float, seed: int) -> SolveOptions:
        options: SolveOptions = {
            "strategy": self.strategy,
            "temperature": temperature,
            "seed": seed,
            "select": Select.VERIFIED if self.until_verified else Select.PERPLEXITY,
            "candidates": 1 if self.until_verified else MOST_CANDIDATES,
        }
        if self.strategy in _SAMPLED:
            options["sampling"] = self.sampling
        if self.breadth is not None:
            options["breadth"] = self.breadth
        if self.backtracks is not None:
            options["backtracks"] = self.backtracks
        if self.budget_tokens is not None:
            options["tokens"] = self.budget_tokens
        return options

    @model_validator(mode="after")
    def _check_request(self) -> Self:
        options = self.request(0.7, 0)
        budget = {"tokens": options.pop("tokens")} if "tokens" in options else {}
        asked = {**options, "budget": budget, "task": "any", "problem": {}}
        try:
            SolveRequest.model_validate(asked)
        except ValidationError as error:
            raise ValueError(f"{self.name}: {first_error(error, whole='it')}") from error
        if not self.until_verified and self._most_samples > MOST_CANDIDATES:
            raise ValueError(
                f"{self.name} makes up to {self._most_samples} candidates, and a result holds "
                f"{MOST_CANDIDATES}: lower N or b, or select only verified"
            )
        return self

    @property
    def _most_samples(self) -> int:
        breadth = self.breadth or 1
        return breadth * (1 + (self.backtracks or 0) * isqrt(breadth))


class Source(_PlanModel):
    """The file that the problems are from, instead of the task's generator."""

    name: str
    sha256: str
    problems: dict[Split, int]
    """Number of problems of each split, by the task's rule."""


class Plan(_PlanModel):
    """One evaluation. The same plan asks the same problems with the same seeds."""

    task: str
    options: dict[str, JsonValue] = {}
    """Options of the task's generator."""
    splits: tuple[Split, ...] = Field(min_length=1)
    problems: int = Field(ge=1)
    """Problems of each split; of a file, all of them."""
    seed: int = Field(ge=0)
    temperature: float = Field(gt=0, le=2)
    settings: tuple[Setting, ...] = Field(min_length=1)
    source: Source | None = None
    """The problems' file; None if they are drawn, by the seed."""

    @model_validator(mode="after")
    def _is_of_a_task(self) -> Self:
        if self.task not in GENERATORS:
            raise ValueError(f"task: unknown {self.task!r}; known: {', '.join(GENERATORS)}")
        for split in self.splits:
            if split not in self.the_task.splits:
                raise ValueError(f"split: {self.task} has no {split} problems")
        return self

    @property
    def the_task(self) -> Generator[Any]:
        return GENERATORS[self.task].with_options(self.options)

    def drawn(self) -> list[Question]:
        """The problems in their order; the same for the same task, splits, number and seed."""
        return [
            question
            for split in self.splits
            for question in draw(self.the_task, split, self.seed, self.problems)
        ]


def settings_of(
    strategies: Sequence[Strategy],
    breadths: Sequence[int],
    backtracks: Sequence[int],
    selects: Sequence[Select],
    budgets: Sequence[int | None],
    samplings: Sequence[Sampling] = (Sampling.INDEPENDENT,),
) -> tuple[Setting, ...]:
    """Cross strategies x N x b x ways to sample x budgets. Each is searched once for all rules that
    look at every candidate, and once more if the checker is to end it."""
    found = [
        Setting(**shape, sampling=sampling, budget_tokens=budget, until_verified=until_verified)
        for strategy in strategies
        for sampling in (samplings if strategy in _SAMPLED else (Sampling.INDEPENDENT,))
        for shape in _shapes(strategy, breadths, backtracks)
        for budget in budgets
        for until_verified in _searches(strategy, selects)
    ]
    return tuple(dict.fromkeys(found))


def _shapes(
    strategy: Strategy, breadths: Sequence[int], backtracks: Sequence[int]
) -> Iterator[dict[str, Any]]:
    if strategy is Strategy.MAJORITY:
        raise ValueError("strategies: majority is best_of_n chosen by vote; name best_of_n")
    if strategy is Strategy.GREEDY:
        yield {"strategy": strategy}
        return
    for breadth in breadths:
        if strategy is not Strategy.SELF_BACKTRACKING:
            yield {"strategy": strategy, "breadth": breadth}
            continue
        for rounds in backtracks:
            # One round of N samples, with the same seeds: the very same search.
            again = {"strategy": strategy, "breadth": breadth, "backtracks": rounds}
            yield again if rounds else {"strategy": Strategy.BEST_OF_N, "breadth": breadth}


def _searches(strategy: Strategy, selects: Sequence[Select]) -> list[bool]:
    """List the searches that are needed: true for one until verified. The only sample of a
    greedy search says it all."""
    every = strategy is Strategy.GREEDY or {*selects} != {Select.VERIFIED}
    early = strategy is not Strategy.GREEDY and Select.VERIFIED in selects
    return [*([False] if every else []), *([True] if early else [])]


def best_of_n_of(samples: float) -> Setting:
    """Return best-of-N with the nearest whole N."""
    return Setting(strategy=Strategy.BEST_OF_N, breadth=max(1, round(samples)))
