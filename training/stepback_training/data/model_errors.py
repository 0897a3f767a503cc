"""A model's own wrong steps, as JSONL:

    {"task": "countdown", "problem": {"numbers": [4, 16, 25, 82], "target": 95},
     "prefix": ["16-4=12"], "wrong_step": "25-12=14", "follow_ups": ["82+14=95"],
     "kind": "computational", "noticed": false}

(one a line). The task judges every line again when it is read, whatever the file says of the step.
A problem that is not of the training split is refused.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, model_validator

from stepback_client.batch import json_lines
from stepback_core.errors import InvalidInput
from stepback_core.trace import Grammar
from stepback_core.validation import first_error
from stepback_training.config import DataRecipe
from stepback_training.data.control_texts import is_plain
from stepback_training.generators import GENERATORS, ErrorKind, Generator, Split
from stepback_training.generators.first_error import Mistake, first_mistake


class ModelError(BaseModel):
    """The first wrong step that a model took on a problem, and what it wrote after it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    problem: dict[str, Any]
    prefix: list[str]
    """The right steps before."""
    wrong_step: str
    follow_ups: list[str] = []
    """Steps of the model after the wrong one, as if that were right."""
    kind: ErrorKind
    noticed: bool
    """True if the model emitted the marker straight after the wrong step."""

    @cached_property
    def typed_problem(self) -> BaseModel:
        problem: BaseModel = self._task.checker.problem_type.model_validate(self.problem)
        return problem

    @property
    def key(self) -> tuple[str, str, tuple[str, ...]]:
        """Key that no two lines of a file share."""
        prompt = self._task.checker.prompt(self.typed_problem)
        return self.task, prompt, (*self.prefix, self.wrong_step)

    @property
    def _task(self) -> Generator[Any]:
        return GENERATORS[self.task]

    @model_validator(mode="after")
    def _check_error(self, info: ValidationInfo) -> Self:
        if self.task not in GENERATORS:
            raise ValueError(f"task: there is no {self.task!r}; known: {', '.join(GENERATORS)}")
        try:
            problem = self.typed_problem
        except ValidationError as error:
            raise ValueError(f"problem: {first_error(error, whole='it')}") from error
        # A model may be asked anything: a file of its errors can hold test problems.
        if self._task.split(problem) is not Split.TRAIN:
            raise ValueError("problem: it is not of the training split, and must not be trained on")
        steps = [*self.prefix, self.wrong_step]
        first = Mistake(len(self.prefix), self.kind)
        if first_mistake(self._task.checker, problem, steps) != first:
            raise ValueError(f"wrong_step: it is no {self.kind} error, or not the first error")
        self._refuse_what_must_not_be_taught(problem, info.context)
        return self

    def _refuse_what_must_not_be_taught(self, problem: BaseModel, grammar: Grammar | None) -> None:
        steps = [*self.prefix, self.wrong_step]
        # After every step: a follow-up may reach a held-out goal where the wrong step does not.
        for step in [None, *self.follow_ups]:
            steps += [] if step is None else [step]
            if not is_teachable(self._task, problem, steps, grammar):
                raise ValueError(
                    f"{steps[-1]!r}: it ends in a held-out goal, or has what the trace grammar "
                    "uses, or a control token"
                )


def is_teachable(
    task: Generator[Any], problem: BaseModel, steps: list[str], grammar: Grammar | None = None
) -> bool:
    """Tell whether the last of these wrong steps may stand in training data.

    Without the `grammar` of that data they are steps as a model's own separator has cut them.
    """
    step = steps[-1]
    reserved = grammar.reserved_in_step(step) if grammar else Grammar().reserved_in_prompt(step)
    if not step.strip() or reserved is not None or not is_plain(step):
        return False
    return not task.ends_held_out(problem, steps)


def read_model_errors(file: Path, grammar: Grammar | None = None) -> Iterator[ModelError]:
    """Read and judge a file line by line, as data of this grammar. Raises InvalidInput."""
    try:
        for number, line in enumerate(json_lines(file), start=1):
            if not line.strip():
                continue
            try:
                yield ModelError.model_validate_json(line, context=grammar)
            except ValidationError as error:
                what = first_error(error, whole="the line")
                raise InvalidInput(f"{file}:{number}: {what}") from error
    except OSError as error:
        raise InvalidInput(f"{file}: cannot be read ({error.strerror})") from error


def own_errors_of(recipe: DataRecipe) -> Mapping[str, list[ModelError]]:
    """Return the errors in the recipe's file by task; empty if the recipe names none.

    Raises InvalidInput for a file that is none, or that has nothing of the recipe's tasks.
    """
    if recipe.own_errors is None:
        return {}
    file = Path(recipe.own_errors.file)
    written = file.stat().st_mtime_ns if file.exists() else 0
    found = _read_once(file, written, recipe.separator)
    # A file of other tasks would silently train on none of it.
    if found.keys().isdisjoint(recipe.names):
        raise InvalidInput(f"{file}: it has no errors of {' or '.join(recipe.names)}")
    return found


@lru_cache(maxsize=4)
def _read_once(file: Path, written: int, separator: str) -> Mapping[str, list[ModelError]]:
    """One reading for all chunks of a process, as long as the file stays as it was written."""
    found: dict[str, list[ModelError]] = {}
    for error in read_model_errors(file, Grammar(separator=separator)):
        found.setdefault(error.task, []).append(error)
    return found
