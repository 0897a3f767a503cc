"""The wrong steps of samples that backtrack: invented, or made by a model itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from pydantic import BaseModel

from stepback_training.config import DataRecipe
from stepback_training.data.model_errors import ModelError, own_errors_of
from stepback_training.generators import ErrorKind, Generator


@dataclass(frozen=True, slots=True)
class WrongPath:
    """A right prefix, and the wrong steps after it."""

    prompt: str
    prefix: list[str]
    wrong_steps: list[str]


class Mistakes:
    """Draws wrong paths for one task, as a recipe says."""

    def __init__(self, task: Generator[Any], recipe: DataRecipe, own: Sequence[ModelError]) -> None:
        self._task = task
        self._recipe = recipe
        self._own = own

    @classmethod
    def of(cls, task: Generator[Any], recipe: DataRecipe) -> "Mistakes":
        """Reads the model's own errors, if the recipe has any. Raises InvalidInput."""
        return cls(task, recipe, own_errors_of(recipe).get(task.name, []))

    def draw(self, problem: BaseModel, path: list[str], rng: Random) -> WrongPath | None:
        """A wrong path that begins as a right one of this problem, or one of the model's own, of
        another problem. None if there is no wrong step."""
        own = self._recipe.own_errors
        if own is not None and self._own and rng.random() < own.share:
            return self._draw_own(rng)
        claims = self._recipe.false_claims
        # Nothing is drawn where there are none, so the samples of other recipes stay as they were.
        if claims and rng.random() < claims:
            claim = self._draw_claim(problem, path, rng)
            if claim is not None:
                return claim
        most = self._draw_number(rng)
        # Short enough that the wrong steps do not make the answer longer than a right one.
        prefix = path[: rng.randrange(max(1, len(path) + 1 - most))]
        wrong = draw_wrong_step(self._task, problem, prefix, self._recipe, rng)
        if wrong is None:
            return None
        steps = [*prefix, wrong]
        while len(steps) < len(prefix) + most:
            step = self._task.follow_up(problem, steps, rng)
            if step is None:
                break
            steps.append(step)
        return WrongPath(self._task.checker.prompt(problem), prefix, steps[len(prefix) :])

    def _draw_claim(self, problem: BaseModel, path: list[str], rng: Random) -> WrongPath | None:
        """A wrong path whose last step claims the goal. None if there is no way to one."""
        prefix = path[: rng.randrange(len(path))]
        steps = list(prefix)
        # A claim needs a state from which the goal is one step away; until then the path goes on
        # wrongly.
        while (claim := self._task.false_claim(problem, steps, rng)) is None:
            if len(steps) == len(prefix):
                step = self._task.wrong_step(problem, steps, ErrorKind.EXPLORATION, rng)
            else:
                step = self._task.follow_up(problem, steps, rng)
            if step is None:
                return None
            steps.append(step)
        return WrongPath(self._task.checker.prompt(problem), prefix, [*steps[len(prefix) :], claim])

    def _draw_own(self, rng: Random) -> WrongPath:
        error = rng.choice(self._own)
        more = self._draw_number(rng) - 1
        wrong = [error.wrong_step, *error.follow_ups[:more]]
        return WrongPath(self._task.checker.prompt(error.typed_problem), error.prefix, wrong)

    def _draw_number(self, rng: Random) -> int:
        """Tell how many steps are to be wrong."""
        # Nothing is drawn for a choice that is none, so the samples of recipes that know of one
        # wrong step alone stay as they were.
        weights = {n: weight for n, weight in self._recipe.wrong_steps.items() if weight > 0}
        if len(weights) == 1:
            return next(iter(weights))
        return rng.choices(list(weights), list(weights.values()))[0]


def draw_wrong_step(
    task: Generator[Any], problem: BaseModel, prefix: list[str], recipe: DataRecipe, rng: Random
) -> str | None:
    """A wrong step of a drawn kind; another kind where the drawn one does not exist here."""
    kinds = list(ErrorKind)
    weights = [recipe.errors.get(kind, 0.0) for kind in kinds]
    while any(weights):
        [kind] = rng.choices(kinds, weights)
        wrong = task.wrong_step(problem, prefix, kind, rng)
        if wrong is not None:
            return wrong
        # Drawn without this kind from here on: not every kind exists in every state.
        weights[kinds.index(kind)] = 0.0
    return None
